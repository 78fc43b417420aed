"""Reads an export of feedback and checks all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from ibinn.errors import DataError
from ibinn.feedback_export.contents import (
    FORMAT_VERSION,
    INFO_FILE,
    LINES_FILE,
    Export,
    ExportInfo,
    Filters,
    LabelledImage,
    Statement,
    image_path,
)
from ibinn.feedback_export.fields import Fields
from ibinn.records import AnswerDigest, FeedbackOutcome, Reaction, Selection, Truth, TruthKind
from ibinn.types import Action, Verdict, Versions


def read(folder: Path) -> Export:
    """Reads an export and checks all of it, the images' hashes too.

    Raises:
        DataError: It is not one, was not finished, is of another version, or was changed; the
            message names file and line.
    """
    info = read_info(folder)
    path = folder / LINES_FILE
    images = tuple(_read_lines(folder, path))
    if len(images) != info.count:
        raise DataError(
            f"{path} has {len(images)} lines where {INFO_FILE} states {info.count}; lines were "
            "lost or added: export anew"
        )
    return Export(folder=folder, info=info, images=images)


def read_info(folder: Path) -> ExportInfo:
    """What an export is of.

    Raises:
        DataError: As for `read`.
    """
    path = folder / INFO_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{folder} is no finished export: {INFO_FILE} cannot be read ({error}); expected the "
            "folder that `ibinn-serve records export --out` wrote to its end"
        ) from error
    fields = Fields.parse(text, where=str(path))
    version = fields.whole("format_version")
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path}: format_version is {version}, this version of ibinn reads {FORMAT_VERSION}; "
            "export anew with the same version of ibinn as reads it"
        )
    ledger, filters = fields.inner("ledger"), fields.inner("filters")
    return ExportInfo(
        created_time=fields.time("created_time"),
        software=fields.text("software"),
        sequence=ledger.whole("sequence"),
        hash=ledger.text("hash"),
        count=fields.whole("count"),
        filters=Filters(
            since=filters.time_or_none("since"),
            until=filters.time_or_none("until"),
            model=filters.text("model"),
        ),
    )


def _read_lines(folder: Path, path: Path) -> Iterator[LabelledImage]:
    seen: dict[str, int] = {}
    checked: set[str] = set()
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                where = f"{path} line {number}"
                image = _line(Fields.parse(line, where=where), where)
                if (first := seen.setdefault(image.record_id, number)) != number:
                    raise DataError(
                        f"{where}: the answer {image.record_id} is that of line {first}; expected "
                        "each answer once: export anew"
                    )
                if image.image is not None and image.image not in checked:
                    _check_image(folder / image.image, image.answer.sha256_bytes, where)
                    checked.add(image.image)
                yield image
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); export anew") from error


def _line(fields: Fields, where: str) -> LabelledImage:
    answer = fields.inner("answer")
    versions = answer.inner("versions")
    sha256 = fields.text("sha256_bytes")
    path = fields.text_or_none("image")
    if path is not None and (len(sha256) != 64 or path != image_path(sha256)):
        raise DataError(
            f"{where}: image is {path!r}; expected {image_path(sha256)!r}, by its sha256_bytes"
        )
    image = LabelledImage(
        answer=AnswerDigest(
            record_id=fields.text("record_id"),
            received_time=fields.time("received_time"),
            versions=Versions(
                weights=versions.text("weights"),
                calibration=versions.text("calibration"),
                policy=versions.text("policy"),
                taxonomy=versions.text("taxonomy"),
                software=versions.text("software"),
            ),
            class_name=answer.text("class_name"),
            confidence=answer.chance("confidence"),
            verdict=answer.one_of("verdict", Verdict),
            action=answer.one_of_or_none("action", Action),
            sha256_bytes=sha256,
            sha256_pixels=fields.text("sha256_pixels"),
            p_value=answer.chance_or_none("p_value"),
            group_id=fields.text("group_id"),
        ),
        caller=fields.text("caller"),
        image=path,
        statements=tuple(map(_statement, fields.several("statements"))),
    )
    if not image.statements:
        raise DataError(f"{where}: statements is empty; expected at least one")
    stated = None if fields.is_null("truth") else _truth(fields.inner("truth"))
    if stated != image.truth or fields.yes_or_no("conflict") != image.conflict:
        raise DataError(
            f"{where}: truth is {stated.text if stated else None!r}; by each source's last "
            f"statement it is {image.truth.text if image.truth else None!r}: the line was changed, "
            "export anew"
        )
    return image


def _statement(fields: Fields) -> Statement:
    return Statement(
        feedback_id=fields.text("feedback_id"),
        time=fields.time("time"),
        source=fields.text("source"),
        caller=fields.text("caller"),
        truth=_truth(fields.inner("truth")),
        saw_answer=fields.yes_or_no_or_none("saw_answer"),
        reaction=fields.one_of_or_none("reaction", Reaction),
        selection=fields.one_of_or_none("selection", Selection),
        sampling_probability=fields.chance_or_none("sampling_probability"),
        labelled_time=fields.time_or_none("labelled_time"),
        outcome=fields.one_of("outcome", FeedbackOutcome),
        comment=fields.text("comment"),
    )


def _truth(fields: Fields) -> Truth:
    kind, name = fields.one_of("kind", TruthKind), fields.text("class_name")
    if (kind is TruthKind.CLASS) != bool(name):
        raise DataError(
            f"{fields.where}: kind is {kind.value!r} with class_name {name!r}; expected the name "
            "of a class for 'class', and none for the others"
        )
    return Truth(kind=kind, class_name=name)


def _check_image(path: Path, sha256: str, where: str) -> None:
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"{where}: the image {path} cannot be read ({error.strerror or error}); it was lost: "
            "export anew"
        ) from error
    if found != sha256:
        raise DataError(
            f"{where}: the image {path} has the sha256 {found}, not that of its name; it was "
            "changed or damaged: export anew"
        )
