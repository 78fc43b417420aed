"""The ledger, and what is looked up of answers and feedback."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)
_SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_GENESIS = "0" * 64


def upgrade() -> None:
    """Makes the tables; the ledger is empty."""
    op.create_table(
        "ledger",
        sa.Column("sequence", _SEQUENCE, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("record_id", sa.String(64), nullable=False),
        sa.Column("time", _TIME, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    head = op.create_table(
        "ledger_head",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.bulk_insert(head, [{"id": 1, "sequence": 0, "hash": _GENESIS}])
    op.create_table(
        "answers",
        sa.Column("record_id", sa.String(64), primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False, unique=True),
        sa.Column("received_time", _TIME, nullable=False, index=True),
        sa.Column("caller", sa.Text, nullable=False),
        sa.Column("method", sa.String(32), nullable=False),
        sa.Column("model", sa.String(32), nullable=False),
        sa.Column("class_name", sa.Text, nullable=False),
        sa.Column("confidence", sa.Double, nullable=False),
        sa.Column("verdict", sa.String(32), nullable=False),
        sa.Column("action", sa.String(32)),
        sa.Column("p_value", sa.Double),
        sa.Column("sha256_bytes", sa.String(64), nullable=False, index=True),
        sa.Column("sha256_pixels", sa.String(64), nullable=False),
        sa.Column("group_id", sa.Text, nullable=False),
        sa.Column("image_kept", sa.String(16)),
    )
    op.create_table(
        "feedback",
        sa.Column("feedback_id", sa.String(64), primary_key=True),
        sa.Column("record_id", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False, unique=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("truth_kind", sa.String(16), nullable=False),
        sa.Column("truth_class", sa.Text, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("received_time", _TIME, nullable=False),
        sa.Column("confidence", sa.Double, nullable=False),
        sa.UniqueConstraint("record_id", "revision", name="feedback_record_revision"),
    )
