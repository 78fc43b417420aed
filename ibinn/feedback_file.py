"""Truths for many answers, read from a file: CSV with a header, or JSON lines.

Columns (keys) are those of `COLUMNS`; those of a table that `ibinn classify --out` wrote may stand
beside them, so that such a table with a column ``truth`` added is one. No column needs to be there
but ``record_id`` and ``truth``; lines whose truth is empty are passed over.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from ibinn import tables
from ibinn.errors import ConfigError, DataError, IbinnError
from ibinn.records import Feedback, Provenance, Reaction, Selection, Truth

COLUMNS = (
    "record_id", "truth", "source", "saw_answer", "reaction", "selection", "sampling_probability",
    "feedback_id", "receipt", "labelled_time", "comment",
)  # fmt: skip
_IGNORED = frozenset(tables.COLUMNS) - frozenset(COLUMNS)
_YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_E = TypeVar("_E", bound=StrEnum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A statement, and where it stands.

    Attributes:
        number: Of its line, from 1 (a CSV's header is line 1).
        statement: What is said, with a feedback id.
    """

    number: int
    statement: Feedback


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """What a file says.

    Attributes:
        lines: Its statements, in order.
        unlabelled: Lines whose truth is empty.
    """

    lines: tuple[Line, ...]
    unlabelled: int


def read(path: Path, *, default: Provenance, truth_of: Callable[[str], Truth]) -> Statements:
    """The statements of a file, all of it checked.

    A statement without a feedback id gets one made of its content (and, of statements with the same
    content, of which one in the file it is): sending the file again repeats the same statements.

    Args:
        path: Its suffix says the format: ``.csv`` or ``.jsonl``.
        default: Stands in for what a line does not say.
        truth_of: Reads a truth in a word.

    Raises:
        ConfigError: The suffix is another.
        DataError: The file cannot be read, or a line is wrong; the message says which one.
    """
    rows = _csv_rows if path.suffix == ".csv" else _json_rows
    if path.suffix not in (".csv", ".jsonl"):
        raise ConfigError(f"--from is {str(path)!r}, expected a name that ends in .csv or .jsonl")
    lines: list[Line] = []
    unlabelled = 0
    seen: Counter[str] = Counter()
    try:
        for number, row in rows(path):
            if row.get("truth") in (None, ""):
                unlabelled += 1
                continue
            try:
                statement = _statement(row, default=default, truth_of=truth_of)
            except IbinnError as error:
                raise DataError(f"{path}, line {number}: {error}") from error
            lines.append(Line(number=number, statement=_named(statement, seen)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}; give a file in UTF-8") from error
    return Statements(lines=tuple(lines), unlabelled=unlabelled)


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        _check_columns(path, reader.fieldnames or ())
        for row in reader:
            if None in row or None in row.values():
                raise DataError(
                    f"{path}, line {reader.line_num}: it has another number of fields than the "
                    f"header, which has {len(reader.fieldnames or ())}"
                )
            yield reader.line_num, row


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: it is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: expected an object, got {row!r}")
            try:
                _check_columns(path, tuple(row))
            except DataError as error:
                raise DataError(f"line {number}: {error}") from error
            yield number, row


def _check_columns(path: Path, columns: Any) -> None:
    if unknown := [name for name in columns if name not in COLUMNS and name not in _IGNORED]:
        raise DataError(
            f"{path} has {', '.join(map(repr, unknown))}, which says nothing about a truth; known "
            f"are {', '.join(COLUMNS)}"
        )
    if missing := [name for name in ("record_id", "truth") if name not in columns]:
        raise DataError(f"{path} lacks {', '.join(missing)}; every statement needs a record's id "
                        "and a truth")  # fmt: skip


def _statement(
    row: Mapping[str, Any], *, default: Provenance, truth_of: Callable[[str], Truth]
) -> Feedback:
    chance = _text(row, "sampling_probability")
    labelled = _text(row, "labelled_time")
    saw = _text(row, "saw_answer").lower()
    if saw not in ("", *_YES_NO):
        raise DataError(f"saw_answer is {saw!r}, expected yes, no or nothing")
    source = _text(row, "source") or default.source
    if not source:
        raise DataError("there is no source: who says so? Give it in the file or with --source")
    provenance = Provenance(
        source=source,
        saw_answer=_YES_NO.get(saw, default.saw_answer),
        reaction=_choice(Reaction, row, "reaction") or default.reaction,
        selection=_choice(Selection, row, "selection") or default.selection,
        sampling_probability=_chance(chance) if chance else default.sampling_probability,
    )
    return Feedback(
        record_id=_text(row, "record_id"),
        truth=truth_of(_text(row, "truth")),
        provenance=provenance,
        feedback_id=_text(row, "feedback_id"),
        receipt=_text(row, "receipt"),
        labelled_time=time_of(labelled) if labelled else None,
        comment=_text(row, "comment"),
    )


def time_of(text: str) -> datetime:
    """A time in ISO 8601 with its zone.

    Raises:
        DataError: It is none, or has no zone.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise DataError(
            f"the labelled time is {text!r}; expected ISO 8601 with its zone, such as "
            "2026-01-31T09:30:00Z"
        )
    return found


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case str() | int() | float():
            return str(value).strip()
        case _:
            raise DataError(f"{name} is {value!r}, expected a text or a number")


def _chance(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0.0 < found <= 1.0:
        raise DataError(f"sampling_probability is {text!r}, expected a chance above 0, at most 1")
    return found


def _choice(kind: type[_E], row: Mapping[str, Any], name: str) -> _E | None:
    text = _text(row, name)
    if not text:
        return None
    try:
        return kind(text.replace("-", "_"))
    except ValueError:
        raise DataError(
            f"{name} is {text!r}, expected one of {', '.join(each.value for each in kind)}"
        ) from None


def _named(statement: Feedback, seen: Counter[str]) -> Feedback:
    if statement.feedback_id:
        return statement
    content = repr(replace(statement, receipt=""))
    occurrence = seen[content]
    seen[content] += 1
    digest = hashlib.sha256(f"{occurrence}\n{content}".encode()).hexdigest()
    return replace(statement, feedback_id=f"file-{digest[:40]}")
