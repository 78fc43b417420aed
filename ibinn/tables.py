"""Answers as rows of a file: JSON lines, CSV or Parquet, written one by one and read again.

Parquet needs pyarrow, the extra `tables`.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Protocol

from ibinn.errors import ConfigError, DataError
from ibinn.json_lines import json_line
from ibinn.types import Prediction

ROWS_PER_GROUP = 1000


class Outcome(StrEnum):
    """What became of an image."""

    OK = "ok"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One image of many, and its answer; texts are empty and numbers None where there is none.

    Attributes:
        file: The image.
        status: Whether it was answered.
        error: Why not.
        class_name: The most probable class.
        probability: Its calibrated posterior.
        verdict: See `ibinn.types.Verdict`.
        reason: The verdict's, in words.
        decision: The policy's action.
        decision_class: The class to act on.
        decision_rule: The rule that fired.
        conformal_set: Names of the classes in the prediction set, most probable first.
        p_value: Of the combined test.
        bits_per_dim: Of the preprocessed image.
        weights: Digest of the model.
        calibration: Digest of its calibration.
        policy: Digest of the policy in force.
        record_id: The server's name for the answer.
        request_id: The request's name in the server's logs.
    """

    file: str
    status: Outcome
    error: str = ""
    class_name: str = ""
    probability: float | None = None
    verdict: str = ""
    reason: str = ""
    decision: str = ""
    decision_class: str = ""
    decision_rule: str = ""
    conformal_set: tuple[str, ...] = ()
    p_value: float | None = None
    bits_per_dim: float | None = None
    weights: str = ""
    calibration: str = ""
    policy: str = ""
    record_id: str = ""
    request_id: str = ""


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
_NUMBERS = ("probability", "p_value", "bits_per_dim")
_LIST = "conformal_set"


def answered(file: str, prediction: Prediction) -> Row:
    """The row of an answer."""
    decision, receipt, combined = prediction.decision, prediction.receipt, prediction.combined
    return Row(
        file=file,
        status=Outcome.OK,
        class_name=prediction.top.name,
        probability=prediction.top.probability,
        verdict=prediction.verdict.value,
        reason=prediction.reason,
        decision="" if decision is None else decision.action.value,
        decision_class="" if decision is None else decision.class_name or "",
        decision_rule="" if decision is None else decision.rule,
        conformal_set=() if prediction.conformal is None else prediction.conformal.classes,
        p_value=None if combined is None else combined.p_value,
        bits_per_dim=prediction.bits_per_dim,
        weights=prediction.versions.weights,
        calibration=prediction.versions.calibration,
        policy=prediction.versions.policy,
        record_id="" if receipt is None else receipt.record_id,
        request_id="" if receipt is None else receipt.request_id,
    )


def failed(file: str, error: str, *, request_id: str = "") -> Row:
    """The row of an image that has no answer."""
    return Row(file=file, status=Outcome.FAILED, error=error, request_id=request_id)


class Format(StrEnum):
    """How a table is written, by the suffix of its file."""

    JSON_LINES = ".jsonl"
    CSV = ".csv"
    PARQUET = ".parquet"

    @classmethod
    def of(cls, out: Path) -> Format:
        """The format that a file's name asks for.

        Raises:
            ConfigError: None has this suffix, or the library for it is not there.
        """
        try:
            found = cls(out.suffix.lower())
        except ValueError:
            raise ConfigError(
                f"{str(out)!r} names no format; expected a name that ends in {', '.join(cls)}"
            ) from None
        if found is cls.PARQUET:
            _pyarrow()
        return found


class Table(Protocol):
    """A file that rows are added to."""

    def append(self, row: Row) -> None:
        """Adds a row."""

    def close(self) -> None:
        """Ends the file; what was added is in it."""


def open_table(path: Path, form: Format) -> Table:
    """A new, empty table.

    Raises:
        ConfigError: The file cannot be written.
    """
    try:
        match form:
            case Format.JSON_LINES:
                return _JsonLines(path)
            case Format.CSV:
                return _Csv(path)
            case Format.PARQUET:
                return _Parquet(path)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror or error}; name a file in a folder that exists "
            "and can be written"
        ) from error


def read_table(path: Path, form: Format) -> Iterator[Row]:
    """The rows of a table; a last one that was not written to its end is left out.

    Raises:
        DataError: The file is not such a table.
    """
    try:
        match form:
            case Format.JSON_LINES:
                yield from _read_json_lines(path)
            case Format.CSV:
                yield from _read_csv(path)
            case Format.PARQUET:
                yield from _read_parquet(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        # pyarrow's errors are ValueErrors and OSErrors.
        raise DataError(f"{path} cannot be read as a table of answers: {error}") from error


class _Lines:
    """A text file written line by line, so that a break leaves whole lines."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("w", encoding="utf-8", newline="")

    def _write(self, line: str) -> None:
        self._file.write(line)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class _JsonLines(_Lines):
    def append(self, row: Row) -> None:
        self._write(json_line(row) + "\n")


def _read_json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield _row(json.loads(line))


class _Csv(_Lines):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._write(_csv_line(COLUMNS))

    def append(self, row: Row) -> None:
        values = dataclasses.asdict(row)
        values[_LIST] = json.dumps(row.conformal_set, ensure_ascii=False)
        self._write(_csv_line(tuple(values[name] for name in COLUMNS)))


def _csv_line(values: tuple[Any, ...]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue()


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        records = csv.reader(file)
        if tuple(next(records, ())) != COLUMNS:
            raise ValueError("its columns are not those of a table of answers")
        whole = _ends_with_newline(path)
        before: list[str] | None = None
        for record in records:
            if before is not None:
                yield _from_csv(before)
            before = record
        if before is not None and whole and len(before) == len(COLUMNS):
            yield _from_csv(before)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, io.SEEK_END)
        return file.read(1) == b"\n"


def _from_csv(record: list[str]) -> Row:
    values: dict[str, Any] = dict(zip(COLUMNS, record, strict=True))
    for name in _NUMBERS:
        values[name] = float(values[name]) if values[name] else None
    values[_LIST] = json.loads(values[_LIST])
    return _row(values)


class _Parquet:
    """Rows are kept until there are enough for a group, or the file is closed."""

    def __init__(self, path: Path) -> None:
        arrow, parquet = _pyarrow()
        self._schema = arrow.schema([(name, _column(arrow, name)) for name in COLUMNS])
        self._table = arrow.Table
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._rows: list[dict[str, Any]] = []

    def append(self, row: Row) -> None:
        self._rows.append(dataclasses.asdict(row))
        if len(self._rows) >= ROWS_PER_GROUP:
            self._flush()

    def close(self) -> None:
        with contextlib.closing(self._writer):
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            self._writer.write_table(self._table.from_pylist(rows, schema=self._schema))


def _column(arrow: Any, name: str) -> Any:
    if name in _NUMBERS:
        return arrow.float64()
    return arrow.list_(arrow.string()) if name == _LIST else arrow.string()


def _read_parquet(path: Path) -> Iterator[Row]:
    _, parquet = _pyarrow()
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=ROWS_PER_GROUP):
            for values in batch.to_pylist():
                yield _row(values)


def _row(values: dict[str, Any]) -> Row:
    return Row(
        **{
            **values,
            "status": Outcome(values["status"]),
            _LIST: tuple(values[_LIST]),
        }
    )


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            "Parquet needs pyarrow, which is not installed; install ibinn[tables], or choose a "
            "name that ends in .jsonl or .csv"
        ) from error
    return pyarrow, pyarrow.parquet
