"""The ledger in its database: entries are appended, each in one transaction with its hash.

Whoever appends locks the head's row first, so that all processes' entries make one chain. What was
appended is found again by its id: to append it once more, after an error that left open whether it
was committed, changes nothing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection

from ibinn.errors import IbinnError, LedgerError, RequestError, UnknownRecordError
from ibinn.records import (
    AnswerDigest,
    Entry,
    EntryKind,
    ErasureEntry,
    Feedback,
    FeedbackEntry,
    GuaranteeEntry,
    ImageState,
)
from service.converters import records as bodies
from service.records import database, rows, upgrading
from service.records.contents import (
    CalibrationTable,
    Labelled,
    NewAnswer,
    Page,
    Said,
    StoredRecord,
)
from service.records.labels import Labels
from service.records.saying import Saying, unknown
from service.records.schema import (
    HEAD_ID,
    answers,
    detector_states,
    feedback,
    guarantees,
    ledger,
    ledger_head,
)

_PAGE = 1000

# Made once: to make a statement takes longer than to run it.
_HEAD = sa.select(ledger_head).where(ledger_head.c.id == HEAD_ID)
_HEAD_TO_MOVE = _HEAD.with_for_update()
_MOVE_HEAD = (
    ledger_head.update()
    .where(ledger_head.c.id == HEAD_ID)
    .values(sequence=sa.bindparam("to_sequence"), hash=sa.bindparam("to_hash"))
)
_KNOWN = sa.select(answers.c.record_id).where(
    answers.c.record_id.in_(sa.bindparam("ids", expanding=True))
)
_INSERT_ENTRIES = ledger.insert()
_INSERT_ANSWERS = answers.insert()


class Ledger:
    """The records of one database; safe to use from several threads.

    Nothing is connected before the first use, which also brings the schema up to date; a database
    that cannot be reached then is tried anew at the next use.

    Args:
        url: See `service.records.database.checked_url`.
        timeout_s: Longest time for connecting, for a lock and for a statement.

    Attributes:
        name: The URL without credentials.

    Raises:
        ConfigError: The URL is not one of a database that can be used.
    """

    def __init__(self, url: str | URL, *, timeout_s: float) -> None:
        checked = database.checked_url(url)
        self.name = database.shown(checked)
        self._engine = database.engine(checked, timeout_s=timeout_s)
        self._writing = database.writing(self._engine)
        self._timeout_s = timeout_s
        self._preparing = threading.Lock()
        self._prepared = False
        # SQLite lets whoever polls at the right moment go first; within a process all take turns.
        self._turn = threading.Lock() if self._engine.dialect.name == "sqlite" else None

    @classmethod
    def open(cls, url: str | URL, *, timeout_s: float) -> Ledger:
        """A ledger that was reached and has the schema of this version.

        Raises:
            ConfigError: The URL is not one of a database that can be used.
            LedgerError: Its schema is newer than this version knows.
            RecordsUnavailableError: It cannot be reached.
        """
        opened = cls(url, timeout_s=timeout_s)
        try:
            opened.prepare()
        except BaseException:
            opened.close()
            raise
        return opened

    def prepare(self) -> None:
        """Brings the schema up to date, once.

        Raises:
            LedgerError: It is newer than this version knows.
            RecordsUnavailableError: The database cannot be reached.
        """
        if self._prepared:
            return
        with self._preparing:
            if not self._prepared:
                upgrading.upgrade(self._engine, timeout_s=self._timeout_s)
                self._prepared = True

    def close(self) -> None:
        """Gives back the connections."""
        self._engine.dispose()

    def ping(self) -> None:
        """Asks the database for an answer.

        Raises:
            LedgerError: Its schema is newer than this version knows.
            RecordsUnavailableError: There is none.
        """
        with self._read() as connection:
            connection.execute(sa.select(1))

    # ------------------------------------------------------------------------------- appending

    def append_answers(self, new: Sequence[NewAnswer]) -> None:
        """Appends answers in one transaction; those that are on record already are left out.

        Raises:
            RecordsUnavailableError: Whether they were appended is not known; try again.
        """
        made = [(answer, answer.body()) for answer in {a.digest.record_id: a for a in new}.values()]
        if not made:
            return
        ids = [answer.digest.record_id for answer, _ in made]
        with self._append() as (connection, chain):
            known = set(connection.scalars(_KNOWN, {"ids": ids}))
            inserted = [
                rows.answer_row(
                    answer, chain.append(EntryKind.ANSWER, answer.digest.record_id, body)
                )
                for answer, body in made
                if answer.digest.record_id not in known
            ]
            if inserted:
                connection.execute(_INSERT_ANSWERS, inserted)

    def append_feedback(
        self, statement: Feedback, *, caller: str, digest: AnswerDigest | None
    ) -> FeedbackEntry:
        """Appends a statement, unless it is on record already.

        Args:
            statement: As it was sent.
            caller: Who sent it.
            digest: The answer as its receipt has it; used where its record is not known.

        Returns:
            It as it is on record. Where nothing was appended, the earlier one with the outcome
            REPEATED.

        Raises:
            UnknownRecordError: There is neither a record nor a receipt of the answer.
            RequestError: Its id names another statement.
            RecordsUnavailableError: Whether it was appended is not known; try again.
        """
        said = Said(statement=statement, caller=caller, digest=digest)
        (found,) = self.append_statements([said])
        if isinstance(found, IbinnError):
            raise found
        return found

    def append_statements(
        self, said: Sequence[Said], *, time: datetime | None = None
    ) -> list[FeedbackEntry | UnknownRecordError | RequestError]:
        """Appends statements in one transaction, in their order.

        Args:
            said: The statements.
            time: When they are appended; None: now. Given once more after an error that left open
                whether they were committed, it tells that attempt's entries from earlier ones.

        Returns:
            For each what `append_feedback` returns or raises. One that is refused keeps none of
            the others from being appended.

        Raises:
            RecordsUnavailableError: Whether they were appended is not known; try again.
        """
        with self._append(time) as (connection, chain):
            saying = Saying(connection, chain, said)
            found = [saying.append(each) for each in said]
            saying.insert()
        return found

    def append_guarantee(self, entry: GuaranteeEntry) -> None:
        """Appends a change of the guarantee, unless it is the same as the last one.

        Raises:
            RecordsUnavailableError: Whether it was appended is not known; try again.
        """
        with self._append() as (connection, chain):
            last = self._guarantee(connection, entry.calibration)
            if last is not None and last[0] == entry:
                return
            sequence = chain.append(EntryKind.GUARANTEE, "", bodies.guarantee_body(entry))
            connection.execute(
                guarantees.insert().values(
                    sequence=sequence,
                    calibration=entry.calibration,
                    guarantee=entry.guarantee.value,
                )
            )

    def append_erasure(self, record_id: str, *, reason: str, caller: str, found: bool) -> int:
        """Appends that the image of a record was erased.

        Args:
            record_id: Of one of the records with the image.
            reason: Why.
            caller: Who asked for it.
            found: Whether there was a file.

        Returns:
            The number of records with these bytes; the image of those that kept it is ERASED now.

        Raises:
            UnknownRecordError: There is no such record.
            RecordsUnavailableError: Whether it was appended is not known; try again.
        """
        with self._append() as (connection, chain):
            sha256 = self._sha256(connection, record_id)
            same = answers.c.sha256_bytes == sha256 if sha256 else answers.c.record_id == record_id
            entry = ErasureEntry(sha256_bytes=sha256, caller=caller, reason=reason, found=found)
            chain.append(EntryKind.ERASURE, record_id, bodies.erasure_body(entry))
            connection.execute(
                answers.update()
                .where(same, answers.c.image_state != ImageState.NOT_KEPT.value)
                .values(image_state=ImageState.ERASED.value)
            )
            return connection.scalar(sa.select(sa.func.count()).where(same)) or 0

    def images_gone(self, sha256s: Sequence[str]) -> int:
        """Says of images that a sweep took them away; returns the number of records that had them.

        Raises:
            RecordsUnavailableError: Whether it was done is not known; try again.
        """
        changed = 0
        for start in range(0, len(sha256s), _PAGE):
            part = sha256s[start : start + _PAGE]
            with self._write() as connection:
                changed += connection.execute(
                    answers.update()
                    .where(
                        answers.c.sha256_bytes.in_(part),
                        answers.c.image_state == ImageState.KEPT.value,
                    )
                    .values(image_state=ImageState.EXPIRED.value)
                ).rowcount
        return changed

    # --------------------------------------------------------------------------------- reading

    def record(self, record_id: str) -> StoredRecord:
        """What is held about an answer.

        Raises:
            UnknownRecordError: Nothing is.
            RecordsUnavailableError: The database cannot be reached.
        """
        with self._read() as connection:
            row = connection.execute(
                sa.select(ledger, answers.c.image_state)
                .join(answers, answers.c.sequence == ledger.c.sequence)
                .where(answers.c.record_id == rows.plain(record_id))
            ).one_or_none()
            if row is None:
                raise unknown(record_id)
            return StoredRecord(
                entry=rows.entry_of(row),
                feedback=self._feedback(connection, feedback.c.record_id == record_id),
                image_state=ImageState(row.image_state),
            )

    def sha256_bytes(self, record_id: str) -> str:
        """Of an answer's image; empty where pixels came.

        Raises:
            UnknownRecordError: There is no such record.
        """
        with self._read() as connection:
            return self._sha256(connection, record_id)

    def entries(self, after: int, limit: int, kinds: frozenset[EntryKind] = frozenset()) -> Page:
        """Entries in order.

        Args:
            after: They come after this sequence; 0: from the beginning.
            limit: At most so many.
            kinds: Only these; none: all.

        Raises:
            RecordsUnavailableError: The database cannot be reached.
        """
        with self._read() as connection:
            head = self._head(connection, _HEAD)
            query = sa.select(ledger).where(
                ledger.c.sequence > after, ledger.c.sequence <= head.sequence
            )
            if kinds and kinds != frozenset(EntryKind):
                query = query.where(ledger.c.kind.in_([kind.value for kind in kinds]))
            found = connection.execute(query.order_by(ledger.c.sequence).limit(limit)).all()
        return Page(
            entries=tuple(map(rows.entry_of, found)),
            head_sequence=head.sequence,
            head_hash=head.hash,
        )

    def all_entries(self, after: int = 0) -> Iterator[Entry]:
        """Every entry after a sequence, read page by page.

        Raises:
            RecordsUnavailableError: The database cannot be reached.
        """
        while True:
            page = self.entries(after, _PAGE)
            yield from page.entries
            if len(page.entries) < _PAGE:
                return
            after = page.entries[-1].sequence

    def guarantee(self, calibration: str) -> tuple[GuaranteeEntry, datetime] | None:
        """The last change of a calibration's guarantee and when it was; None: there was none.

        Raises:
            RecordsUnavailableError: The database cannot be reached.
        """
        with self._read() as connection:
            return self._guarantee(connection, calibration)

    def labelled(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        model: str | None = None,
    ) -> Iterator[Labelled]:
        """Every answer that something was said about, in the order of the first statements.

        Args:
            since: Only answers received from then on.
            until: Only answers received before.
            model: Only those of a model, named like the metrics' label: the first 12 digits of
                the digests of its weights and calibration, with a hyphen between.

        Raises:
            RecordsUnavailableError: The database cannot be reached.
        """
        self.prepare()
        return Labels(self._engine).labelled(since=since, until=until, model=model)

    def calibration_table(self, model: str | None = None) -> CalibrationTable:
        """How often a model was right at which confidence, from first labels with a class.

        Args:
            model: See `labelled`; None: of all models together.

        Raises:
            RecordsUnavailableError: The database cannot be reached.
        """
        self.prepare()
        return Labels(self._engine).calibration_table(model)

    # ------------------------------------------------------------------------ states of detectors

    def save_state(self, owner: str, calibration: str, body: bytes) -> None:
        """Keeps a detector's state in place of the one before.

        Raises:
            RecordsUnavailableError: Whether it was kept is not known; try again.
        """
        values = {"time": datetime.now(UTC), "body": body}
        insert: Any = sqlite.insert if self._turn is not None else postgresql.insert
        statement = insert(detector_states).values(owner=owner, calibration=calibration, **values)
        keys = [detector_states.c.owner, detector_states.c.calibration]
        with self._write() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=values))

    def load_state(self, owner: str, calibration: str) -> bytes | None:
        """What `save_state` kept; None: nothing.

        Raises:
            RecordsUnavailableError: The database cannot be reached.
        """
        table = detector_states.c
        with self._read() as connection:
            return connection.scalar(
                sa.select(table.body).where(table.owner == owner, table.calibration == calibration)
            )

    # ---------------------------------------------------------------------------------- inside

    def _feedback(self, connection: Connection, which: Any) -> tuple[FeedbackEntry, ...]:
        query = (
            sa.select(ledger.c.body)
            .join(feedback, feedback.c.sequence == ledger.c.sequence)
            .where(which)
            .order_by(feedback.c.revision)
        )
        return tuple(map(bodies.read_feedback, connection.scalars(query)))

    def _sha256(self, connection: Connection, record_id: str) -> str:
        found = connection.scalar(
            sa.select(answers.c.sha256_bytes).where(answers.c.record_id == rows.plain(record_id))
        )
        if found is None:
            raise unknown(record_id)
        return found

    def _guarantee(
        self, connection: Connection, calibration: str
    ) -> tuple[GuaranteeEntry, datetime] | None:
        row = connection.execute(
            sa.select(ledger.c.body, ledger.c.time)
            .join(guarantees, guarantees.c.sequence == ledger.c.sequence)
            .where(guarantees.c.calibration == calibration)
            .order_by(guarantees.c.sequence.desc())
            .limit(1)
        ).one_or_none()
        return None if row is None else (bodies.read_guarantee(row.body), row.time)

    def _head(self, connection: Connection, query: sa.Select[Any]) -> Any:
        head = connection.execute(query).one_or_none()
        if head is None:
            raise LedgerError(
                f"the records in {self.name} have lost the row of their head; restore them from a "
                "backup"
            )
        return head

    @contextlib.contextmanager
    def _append(self, time: datetime | None = None) -> Iterator[tuple[Connection, rows.Chain]]:
        """A transaction that holds the ledger's head; what the chain has at the end is kept."""
        with self._write() as connection:
            head = self._head(connection, _HEAD_TO_MOVE)
            chain = rows.Chain(head.sequence, head.hash, time or datetime.now(UTC))
            yield connection, chain
            if not chain.rows:
                return
            connection.execute(_INSERT_ENTRIES, chain.rows)
            connection.execute(_MOVE_HEAD, {"to_sequence": chain.sequence, "to_hash": chain.hash})

    @contextlib.contextmanager
    def _write(self) -> Iterator[Connection]:
        self.prepare()
        with self._turn or contextlib.nullcontext(), database.transaction(self._writing) as found:
            yield found

    @contextlib.contextmanager
    def _read(self) -> Iterator[Connection]:
        self.prepare()
        with database.transaction(self._engine) as found:
            yield found
