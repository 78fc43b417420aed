"""What became of images, the guarantee, states of detectors, and columns for calibration figures.

A server of the revision before goes on writing while replicas are replaced one by one: every column
added to its tables has a default or may be empty. Feedback that it writes from then on names no
model, and calibration figures leave it out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op
from sqlalchemy.engine import Connection

from service.converters import records as bodies

revision = "0002"
down_revision = "0001"

_BINS = 15
_ROWS = 1000

_ledger = sa.table(
    "ledger", sa.column("sequence"), sa.column("kind"), sa.column("body", sa.LargeBinary)
)
_answers = sa.table(
    "answers", sa.column("sha256_bytes"), sa.column("image_kept"), sa.column("image_state")
)
_feedback = sa.table(
    "feedback",
    sa.column("sequence"),
    sa.column("model"),
    sa.column("bin"),
    sa.column("correct", sa.Boolean),
)


def upgrade() -> None:
    """Adds tables and columns, and fills them from the bodies of the entries."""
    time = sa.DateTime(timezone=True)
    sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column(
        "answers",
        sa.Column("image_state", sa.String(16), nullable=False, server_default="not_kept"),
    )
    op.add_column("feedback", sa.Column("model", sa.String(32)))
    op.add_column("feedback", sa.Column("bin", sa.SmallInteger))
    op.add_column("feedback", sa.Column("correct", sa.Boolean))
    op.create_index("feedback_model_outcome", "feedback", ["model", "outcome"])
    guarantees = op.create_table(
        "guarantees",
        sa.Column("sequence", sequence, primary_key=True, autoincrement=False),
        sa.Column("calibration", sa.String(64), nullable=False, index=True),
        sa.Column("guarantee", sa.String(16), nullable=False),
    )
    op.create_table(
        "detector_states",
        sa.Column("owner", sa.String(200), primary_key=True),
        sa.Column("calibration", sa.String(64), primary_key=True),
        sa.Column("time", time, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    connection = op.get_bind()
    _fill_images(connection)
    _fill_feedback(connection)
    for number, body in _bodies(connection, "guarantee"):
        found = bodies.read_guarantee(body)
        values = {"calibration": found.calibration, "guarantee": found.guarantee.value}
        connection.execute(guarantees.insert().values(sequence=number, **values))


def _fill_images(connection: Connection) -> None:
    kept = _answers.c.image_kept.is_not(None)
    connection.execute(_answers.update().where(kept).values(image_state="kept"))
    for _, body in _bodies(connection, "erasure"):
        same = _answers.c.sha256_bytes == bodies.read_erasure(body).sha256_bytes
        connection.execute(_answers.update().where(same, kept).values(image_state="erased"))


def _fill_feedback(connection: Connection) -> None:
    change = (
        _feedback.update()
        .where(_feedback.c.sequence == sa.bindparam("number"))
        .values(
            model=sa.bindparam("its_model"),
            bin=sa.bindparam("its_bin"),
            correct=sa.bindparam("is_correct"),
        )
    )
    rows = []
    for number, body in _bodies(connection, "feedback"):
        found = bodies.read_feedback(body)
        versions = found.answer.versions
        place = math.floor(found.answer.confidence * _BINS)
        rows.append(
            {
                "number": number,
                "its_model": f"{versions.weights[:12]}-{versions.calibration[:12]}",
                "its_bin": min(max(place, 0), _BINS - 1),
                "is_correct": found.answer.correct(found.truth),
            }
        )
    for start in range(0, len(rows), _ROWS):
        connection.execute(change, rows[start : start + _ROWS])


def _bodies(connection: Connection, kind: str) -> Iterator[tuple[int, bytes]]:
    """Sequence and body of every entry of a kind, in order, a thousand at a time."""
    after = 0
    while True:
        rows = connection.execute(
            sa.select(_ledger.c.sequence, _ledger.c.body)
            .where(_ledger.c.kind == kind, _ledger.c.sequence > after)
            .order_by(_ledger.c.sequence)
            .limit(_ROWS)
        ).all()
        if not rows:
            return
        for row in rows:
            yield row[0], row[1]
        after = rows[-1][0]
