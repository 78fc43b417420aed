"""Statements that are appended together: what each is beside those before it, on record and not.

Everything that is looked up for all of them is read at once, under the lock of the ledger's head;
each statement then sees what those before it in the same transaction became.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ibinn.errors import RequestError, UnknownRecordError
from ibinn.records import AnswerDigest, EntryKind, Feedback, FeedbackEntry, FeedbackOutcome
from service.converters import records as bodies
from service.records import rows, statements
from service.records.contents import Said
from service.records.schema import answers, feedback, ledger


class Saying:
    """One transaction's statements.

    Args:
        connection: Holds the ledger's head.
        chain: The end of the ledger.
        said: What is going to be appended.
    """

    def __init__(self, connection: Connection, chain: rows.Chain, said: Sequence[Said]) -> None:
        self._connection = connection
        self._chain = chain
        self._rows: list[dict[str, Any]] = []
        self._times: dict[str, datetime] = {}
        self._by_id: dict[str, FeedbackEntry] = {}
        self._by_record: dict[str, list[FeedbackEntry]] = defaultdict(list)
        record_ids = {each.statement.record_id for each in said}
        named = {each.statement.feedback_id for each in said if each.statement.feedback_id}
        if named:
            self._read(feedback.c.feedback_id.in_(named), self._remember_id)
        self._read(feedback.c.record_id.in_(record_ids), self._remember)
        query = (
            sa.select(answers.c.record_id, ledger.c.body)
            .join(ledger, answers.c.sequence == ledger.c.sequence)
            .where(answers.c.record_id.in_(record_ids))
        )
        self._answers = {row.record_id: row.body for row in connection.execute(query)}

    def append(self, said: Said) -> FeedbackEntry | UnknownRecordError | RequestError:
        """What `service.records.ledger.Ledger.append_feedback` returns or raises."""
        try:
            return self._append(said)
        except (UnknownRecordError, RequestError) as error:
            return error

    def insert(self) -> None:
        """Inserts what was appended; the entries themselves are the chain's."""
        if self._rows:
            self._connection.execute(feedback.insert(), self._rows)

    def _append(self, said: Said) -> FeedbackEntry:
        statement = said.statement
        same = self._by_id.get(statement.feedback_id) if statement.feedback_id else None
        if same is not None:
            statements.check_same(statement, same)
            return self._again(same, said)
        before = self._by_record[statement.record_id]
        outcome = statements.outcome(statement, before)
        if outcome is FeedbackOutcome.REPEATED:
            source = statement.provenance.source
            return self._again([e for e in before if e.provenance.source == source][-1], said)
        answer, record_known = self._answer(statement, said.digest)
        revision = len(before) + 1
        entry = FeedbackEntry(
            feedback_id=statement.feedback_id or statements.made_id(statement, revision),
            record_id=statement.record_id,
            truth=statement.truth,
            provenance=statement.provenance,
            labelled_time=statement.labelled_time,
            comment=statement.comment,
            caller=said.caller,
            outcome=outcome,
            revision=revision,
            answer=answer,
            record_known=record_known,
        )
        body = bodies.feedback_body(entry)
        sequence = self._chain.append(EntryKind.FEEDBACK, entry.record_id, body)
        self._rows.append(rows.feedback_row(entry, sequence))
        self._remember(entry)
        return entry

    def _answer(
        self, statement: Feedback, digest: AnswerDigest | None
    ) -> tuple[AnswerDigest, bool]:
        """The answer in short, and whether it is on record."""
        body = self._answers.get(statement.record_id)
        if body is not None:
            return bodies.read_answer_digest(body), True
        if digest is not None and digest.record_id == statement.record_id:
            return digest, False
        raise unknown(statement.record_id)

    def _again(self, entry: FeedbackEntry, said: Said) -> FeedbackEntry:
        """An entry that is there already: repeated, unless an earlier attempt of ours wrote it.

        The attempt's time says so rather than a comparison with the clock, which may step back.
        """
        own = self._times.get(entry.feedback_id) == self._chain.time and entry.caller == said.caller
        if own:
            return entry
        return dataclasses.replace(entry, outcome=FeedbackOutcome.REPEATED)

    def _read(self, which: Any, remember: Any) -> None:
        query = (
            sa.select(ledger.c.body, ledger.c.time)
            .join(feedback, feedback.c.sequence == ledger.c.sequence)
            .where(which)
            .order_by(feedback.c.record_id, feedback.c.revision)
        )
        for row in self._connection.execute(query):
            entry = bodies.read_feedback(row.body)
            self._times[entry.feedback_id] = row.time
            remember(entry)

    def _remember_id(self, entry: FeedbackEntry) -> None:
        self._by_id[entry.feedback_id] = entry

    def _remember(self, entry: FeedbackEntry) -> None:
        self._remember_id(entry)
        self._by_record[entry.record_id].append(entry)


def unknown(record_id: str) -> UnknownRecordError:
    """What to say where there is no such record."""
    return UnknownRecordError(
        f"there is no record {record_id}; expected the record_id of an answer of this service. "
        "Feedback about an answer whose record was lost needs the receipt that came with it"
    )
