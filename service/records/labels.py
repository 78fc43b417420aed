"""What was said about answers, all of it: for figures and for export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ibinn.records import FeedbackEntry, FeedbackOutcome, ImageState, TruthKind
from service.converters import records as bodies
from service.records import database
from service.records.contents import CalibrationBin, CalibrationTable, Labelled
from service.records.schema import answers, feedback, ledger
from service.records.statements import BINS

_PAGE = 500


class Labels:
    """Reads labels.

    Args:
        engine: Of a database with the schema of this version.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def calibration_table(self, model: str | None) -> CalibrationTable:
        """See `service.records.ledger.Ledger.calibration_table`."""
        table = feedback.c
        query = (
            sa.select(
                table.bin,
                sa.func.count(),
                sa.func.sum(sa.case((table.correct, 1), else_=0)),
                sa.func.sum(table.confidence),
            )
            .where(
                table.outcome == FeedbackOutcome.FIRST.value,
                table.truth_kind == TruthKind.CLASS.value,
                table.bin.is_not(None),
            )
            .group_by(table.bin)
        )
        if model is not None:
            query = query.where(table.model == model)
        with database.transaction(self._engine) as connection:
            found = {place: values for place, *values in connection.execute(query)}
        return CalibrationTable(
            bins=tuple(
                CalibrationBin(count=count, correct=int(correct), confidence_sum=float(total))
                for count, correct, total in (found.get(n, (0, 0, 0.0)) for n in range(BINS))
            )
        )

    def labelled(
        self, *, since: datetime | None, until: datetime | None, model: str | None
    ) -> Iterator[Labelled]:
        """See `service.records.ledger.Ledger.labelled`; a page at a time, in short transactions."""
        after = 0
        while True:
            with database.transaction(self._engine) as connection:
                rows = connection.execute(_firsts(after, since, until, model)).all()
                said = self._said(connection, [row.record_id for row in rows])
            for row in rows:
                times, statements = zip(*said[row.record_id], strict=True)
                yield Labelled(
                    answer=statements[0].answer,
                    caller=row.caller,
                    image_state=ImageState(row.image_state or ImageState.NOT_KEPT.value),
                    feedback=tuple(statements),
                    times=tuple(times),
                )
            if len(rows) < _PAGE:
                return
            after = rows[-1].sequence

    def _said(
        self, connection: Connection, record_ids: Sequence[str]
    ) -> dict[str, list[tuple[datetime, FeedbackEntry]]]:
        query = (
            sa.select(feedback.c.record_id, ledger.c.time, ledger.c.body)
            .join(ledger, ledger.c.sequence == feedback.c.sequence)
            .where(feedback.c.record_id.in_(record_ids))
            .order_by(feedback.c.revision)
        )
        found: dict[str, list[tuple[datetime, FeedbackEntry]]] = {}
        for record_id, time, body in connection.execute(query):
            found.setdefault(record_id, []).append((time, bodies.read_feedback(body)))
        return found


def _firsts(
    after: int, since: datetime | None, until: datetime | None, model: str | None
) -> sa.Select[tuple[object, ...]]:
    table = feedback.c
    query = (
        sa.select(table.sequence, table.record_id, answers.c.caller, answers.c.image_state)
        .outerjoin(answers, answers.c.record_id == table.record_id)
        .where(table.revision == 1, table.sequence > after)
        .order_by(table.sequence)
        .limit(_PAGE)
    )
    if since is not None:
        query = query.where(table.received_time >= since)
    if until is not None:
        query = query.where(table.received_time < until)
    if model is not None:
        query = query.where(table.model == model)
    return query
