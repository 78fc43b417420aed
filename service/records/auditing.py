"""Checks the records straight in their database, and changes nothing.

The chain is recomputed from the entries as they lie there. What is looked up in other tables
(`service.records.schema`) is held against the bodies of the entries that it repeats: figures and
exports come from those tables, so that a changed row there would otherwise go unseen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ibinn import chain
from ibinn.errors import ConfigError, LedgerError
from ibinn.records import Entry, EntryKind, ImageState
from service.converters import records as bodies
from service.records import database, rows
from service.records.contents import NewAnswer
from service.records.schema import (
    REVISIONS,
    VERSION_TABLE,
    answers,
    feedback,
    guarantees,
    ledger,
    ledger_head,
)

MOST_FINDINGS = 100
"""Findings that are told one by one; all are counted."""

_PAGE = 1000
_MAY_BE_EMPTY = frozenset({"model", "bin", "correct"})
"""Columns that a server of the revision before leaves empty while it is being replaced."""
_TABLES = (answers, feedback, guarantees)
_UNREADABLE = (ValueError, TypeError, sa.exc.OperationalError)
"""What a value raises that is not of its column's kind; SQLite keeps any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What a check of the records found.

    Attributes:
        chain: Of the entries.
        rows: Rows of the other tables that were held against an entry.
        wrong: Number of rows that are not as their entry says, or have none, or are missing.
        findings: The first of them, at most `MOST_FINDINGS`, a sentence each.
    """

    chain: chain.Verified
    rows: int
    wrong: int
    findings: tuple[str, ...]

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong."""
        return self.chain.intact and not self.wrong


def audit(engine: Engine, *, anchors: Sequence[chain.Point] = ()) -> Audit:
    """Checks every entry up to the head that the database states, and the tables made of them.

    Args:
        engine: Of the database.
        anchors: Entries noted down elsewhere.

    Raises:
        ConfigError: The schema is not that of this version, or two anchors contradict each other.
        LedgerError: There is no head.
        RecordsUnavailableError: The database cannot be reached.
    """
    _check_revision(engine)
    with database.transaction(engine) as connection:
        head = connection.execute(sa.select(ledger_head)).one_or_none()
    if head is None:
        raise LedgerError(
            f"the records in {database.shown(engine.url)} have lost the row of their head, which "
            "says where they end; restore them from a backup"
        )
    found = _Findings()
    end = chain.Point(sequence=head.sequence, hash=head.hash)
    verified = chain.verify(
        _entries(engine, head.sequence, found), anchors=(end, *anchors), about=_about
    )
    with database.transaction(engine) as connection:
        _check_beyond(connection, found)
    return Audit(
        chain=verified, rows=found.rows, wrong=found.wrong, findings=tuple(found.sentences)
    )


class _Findings:
    def __init__(self) -> None:
        self.rows = 0
        self.wrong = 0
        self.sentences: list[str] = []

    def add(self, sentence: str) -> None:
        self.wrong += 1
        if len(self.sentences) < MOST_FINDINGS:
            self.sentences.append(sentence)


def revision(engine: Engine) -> str | None:
    """The revision of a database's schema; None where there is none.

    Raises:
        RecordsUnavailableError: The database cannot be reached.
    """
    with database.transaction(engine) as connection:
        if not sa.inspect(connection).has_table(VERSION_TABLE):
            return None
        table = sa.table(VERSION_TABLE)
        return connection.scalar(sa.select(sa.column("version_num")).select_from(table))


def _check_revision(engine: Engine) -> None:
    name, found = database.shown(engine.url), revision(engine)
    if found is None:
        raise ConfigError(f"there are no records in {name}; name their database by --records")
    if found != REVISIONS[-1]:
        raise ConfigError(
            f"the records in {name} have a schema of revision {found}, this version reads "
            f"{REVISIONS[-1]}; run `ibinn-serve records upgrade`, or a newer ibinn where that is "
            "the newer one"
        )


def _entries(engine: Engine, end: int, found: _Findings) -> Iterator[Entry]:
    """Every entry up to the end; what belongs to it in other tables is checked on the way."""
    after = None
    while True:
        query = sa.select(ledger.c.sequence).where(ledger.c.sequence <= end)
        if after is not None:
            query = query.where(ledger.c.sequence > after)
        with database.transaction(engine) as connection:
            page = connection.scalars(query.order_by(ledger.c.sequence).limit(_PAGE)).all()
            is_last = len(page) < _PAGE
            last = end if is_last else page[-1]
            kept, *beside = (
                _read(connection, table, after, last, found) for table in (ledger, *_TABLES)
            )
        for row in kept.values():
            entry = _entry(row, found)
            if entry is not None:
                _check_rows(entry, beside, found)
                yield entry
        for table, left in zip(_TABLES, beside, strict=True):
            for sequence in left:
                found.add(f"table {table.name} has a row of entry {sequence}, which has none.")
        if is_last:
            return
        after = last


def _read(
    connection: Connection, table: sa.Table, after: int | None, last: int, found: _Findings
) -> dict[int, Mapping[str, Any]]:
    """The rows of a part of the ledger, by sequence; of those that do not read it is told."""
    where = [table.c.sequence <= last]
    if after is not None:
        where.append(table.c.sequence > after)
    columns: list[Any] = list(table.c)
    if table is ledger and connection.dialect.name == "sqlite":
        # SQLite lets a text stand where bytes belong; the chain is over its bytes.
        columns = [sa.cast(c, sa.LargeBinary).label("body") if c.name == "body" else c
                   for c in table.c]  # fmt: skip
    query = sa.select(*columns).order_by(table.c.sequence)
    try:
        return _fetched(connection, query.where(*where))
    except _UNREADABLE as error:
        if not _is_unreadable(error):
            raise
    rows: dict[int, Mapping[str, Any]] = {}
    for sequence in connection.scalars(sa.select(table.c.sequence).where(*where)).all():
        try:
            rows |= _fetched(connection, query.where(table.c.sequence == sequence))
        except _UNREADABLE as error:
            if not _is_unreadable(error):
                raise
            found.add(f"table {table.name}: the row of entry {sequence} does not read ({error}).")
    return rows


def _fetched(connection: Connection, query: sa.Select[Any]) -> dict[int, Mapping[str, Any]]:
    rows: Any = connection.execute(query).mappings().all()
    return {row["sequence"]: row for row in rows}


def _is_unreadable(error: Exception) -> bool:
    return not isinstance(error, sa.exc.OperationalError) or "decode" in str(error)


def _entry(row: Mapping[str, Any], found: _Findings) -> Entry | None:
    try:
        kind = EntryKind(row["kind"])
    except ValueError:
        found.add(
            f"entry {row['sequence']} has the kind {row['kind']!r}; expected one of "
            f"{', '.join(EntryKind)}."
        )
        return None
    return Entry(**{**row, "kind": kind})


def _check_rows(
    entry: Entry, beside: Sequence[dict[int, Mapping[str, Any]]], found: _Findings
) -> None:
    try:
        table, expected = _expected(entry)
    except LedgerError:
        # The walk along the chain tells it; what its rows should be is not known.
        for of_table in beside:
            of_table.pop(entry.sequence, None)
        return
    if table is None:
        return
    row = beside[_TABLES.index(table)].pop(entry.sequence, None)
    found.rows += 1
    where = f"table {table.name}, entry {entry.sequence}"
    if row is None:
        found.add(f"{where}: the row is missing.")
        return
    for column, value in expected.items():
        kept = row[column]
        if kept != value and not (kept is None and column in _MAY_BE_EMPTY):
            found.add(f"{where}: {column} is {kept!r}, the entry has {value!r}.")
    if table is answers:
        _check_image_state(row, where, found)


def _check_image_state(row: Mapping[str, Any], where: str, found: _Findings) -> None:
    """It alone changes; whether there ever was an image does not."""
    state = row["image_state"]
    if state not in set(ImageState):
        found.add(f"{where}: image_state is {state!r}; expected one of {', '.join(ImageState)}.")
    elif (state == ImageState.NOT_KEPT) != (row["image_kept"] is None):
        found.add(
            f"{where}: image_state is {state!r} where image_kept is {row['image_kept']!r}; the "
            "entry says whether the image was kept."
        )


def _expected(entry: Entry) -> tuple[sa.Table | None, dict[str, Any]]:
    """The row that repeats an entry, without what may change."""
    match entry.kind:
        case EntryKind.ANSWER:
            message = bodies.read_answer(entry.body)
            new = NewAnswer(
                digest=bodies.read_answer_digest(entry.body),
                caller=message.caller,
                method=message.method,
                image_kept=next(
                    (kept for kept, number in bodies.KEPT.items() if number == message.image_kept),
                    None,
                ),
                body=lambda: entry.body,
            )
            row = rows.answer_row(new, entry.sequence)
            del row["image_state"]
            return answers, row
        case EntryKind.FEEDBACK:
            return feedback, rows.feedback_row(bodies.read_feedback(entry.body), entry.sequence)
        case EntryKind.GUARANTEE:
            said = bodies.read_guarantee(entry.body)
            return guarantees, {
                "sequence": entry.sequence,
                "calibration": said.calibration,
                "guarantee": said.guarantee.value,
            }
        case EntryKind.ERASURE:
            return None, {}


def _about(entry: Entry) -> str | None:
    match entry.kind:
        case EntryKind.ANSWER:
            return bodies.read_answer_digest(entry.body).record_id
        case EntryKind.FEEDBACK:
            return bodies.read_feedback(entry.body).record_id
        case EntryKind.ERASURE:
            bodies.read_erasure(entry.body)
            return None
        case EntryKind.GUARANTEE:
            bodies.read_guarantee(entry.body)
            return ""


def _check_beyond(connection: Connection, found: _Findings) -> None:
    """Whoever appends moves the head in the same transaction: nothing is ever beyond it."""
    end = sa.select(ledger_head.c.sequence).scalar_subquery()
    for table in (ledger, *_TABLES):
        beyond = sa.select(table.c.sequence).where(table.c.sequence > end)
        for sequence in connection.scalars(beyond.order_by(table.c.sequence).limit(10)):
            found.add(f"table {table.name} has a row of entry {sequence}, beyond the head.")
