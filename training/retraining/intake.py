"""An export as retraining reads it: `ibinn.feedback_export` to `training.retraining.candidates`."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ibinn import feedback_export
from ibinn.errors import ConfigError, DataError
from ibinn.feedback_export import ExportInfo, LabelledImage
from training.retraining.candidates import Candidate, Statement, sources_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """An export that was read and checked.

    Attributes:
        info: What it is of.
        digest: sha256 (hex) of its lines, to recognise it by.
        candidates: Its images with what was said of them.
    """

    info: ExportInfo
    digest: str
    candidates: tuple[Candidate, ...]


def take_in(folder: Path) -> Intake:
    """Read an export, with the hash of every image in it.

    Raises:
        DataError: It is damaged, or not an export.
    """
    export = feedback_export.read(folder)
    candidates = tuple(_candidate(image, export.path(image)) for image in export.images)
    if not candidates:
        raise DataError(
            f"{folder} holds no feedback; expected answers with statements about them: widen "
            "--since, --until or --model of the export, or wait for feedback"
        )
    lines = (folder / "feedback.jsonl").read_bytes()
    return Intake(info=export.info, digest=hashlib.sha256(lines).hexdigest(), candidates=candidates)


def _candidate(image: LabelledImage, path: Path | None) -> Candidate:
    answer = image.answer
    return Candidate(
        record_id=answer.record_id,
        time=answer.received_time,
        id=answer.sha256_pixels,
        group=answer.group_id,
        path=path,
        statements=tuple(
            Statement(
                time=statement.time,
                source=source_name(statement.caller, statement.source),
                truth=statement.truth,
                selection=statement.selection,
                sampling_probability=statement.sampling_probability or None,
            )
            for statement in image.statements
        ),
        answer=answer.class_name,
        confidence=answer.confidence,
        verdict=answer.verdict,
        weights=answer.versions.weights,
    )


def source_name(caller: str, source: str) -> str:
    """Who says something: ``caller/source``.

    A caller can state any source, but not be another caller.
    """
    return f"{caller}/{source}" if caller else source


def read_trusted(path: Path) -> tuple[str, ...]:
    """The patterns in a file of trusted sources: one a line, ``#`` begins a comment.

    Raises:
        ConfigError: The file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"trusted sources: {path} cannot be read ({error}); give a text file with one source "
            "a line, such as inspection/anna"
        ) from error
    entries = (line.partition("#")[0].strip() for line in lines)
    return tuple(entry for entry in entries if entry)


def trusted_sources(
    patterns: Collection[str], candidates: Iterable[Candidate]
) -> tuple[frozenset[str], tuple[str, ...]]:
    """The sources of an export that patterns name, and the patterns that name none.

    Args:
        patterns: ``caller/source``, with ``*`` for any text, or a source alone for that source
            from whichever caller (whoever may send feedback can then use its name).
        candidates: The export.
    """
    names = sources_of(candidates)
    found: dict[str, set[str]] = {
        pattern: {name for name in names if _named(pattern, name)} for pattern in patterns
    }
    unused = tuple(pattern for pattern, matched in found.items() if not matched)
    return frozenset().union(*found.values()), unused


def _named(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern) or (
        "/" not in pattern and fnmatchcase(name.partition("/")[2], pattern)
    )
