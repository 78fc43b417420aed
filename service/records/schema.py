"""The tables of the records.

``ledger`` is the record: entries that are only ever appended, each with its hash. ``answers``,
``feedback`` and ``guarantees`` repeat what is looked up of its entries in columns, and can be made
again from it; ``answers.image_state`` alone changes afterwards. ``ledger_head`` is one row, which
whoever appends holds until its entries are durable: that makes one chain of many writers.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

REVISIONS = ("0001", "0002")
"""Every revision of the schema, oldest first; the last one is what this module describes."""

VERSION_TABLE = "ibinn_schema"
"""Holds the revision that a database is at."""

HEAD_ID = 1
"""Of the one row of `ledger_head`."""


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC to the microsecond; SQLite, which knows no time zones, is given none."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """To the database."""
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """From the database."""
        if value is None:
            return None
        found: datetime = value.replace(tzinfo=UTC) if value.tzinfo is None else value
        return found.astimezone(UTC)


# SQLite makes its row number of an INTEGER key, and of no other.
Sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata = sa.MetaData()

ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("sequence", Sequence, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("record_id", sa.String(64), nullable=False),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("previous_hash", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)

ledger_head = sa.Table(
    "ledger_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)

answers = sa.Table(
    "answers",
    metadata,
    sa.Column("record_id", sa.String(64), primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False, unique=True),
    sa.Column("received_time", UtcTime, nullable=False, index=True),
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
    sa.Column("image_state", sa.String(16), nullable=False, server_default="not_kept"),
)

feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("feedback_id", sa.String(64), primary_key=True),
    sa.Column("record_id", sa.String(64), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False, unique=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("truth_kind", sa.String(16), nullable=False),
    sa.Column("truth_class", sa.Text, nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    # Of the answer that it is about, whose own row may have been lost:
    sa.Column("received_time", UtcTime, nullable=False),
    sa.Column("model", sa.String(32)),
    sa.Column("confidence", sa.Double, nullable=False),
    sa.Column("bin", sa.SmallInteger),
    sa.Column("correct", sa.Boolean),
    sa.UniqueConstraint("record_id", "revision", name="feedback_record_revision"),
    sa.Index("feedback_model_outcome", "model", "outcome"),
)

guarantees = sa.Table(
    "guarantees",
    metadata,
    sa.Column("sequence", Sequence, primary_key=True, autoincrement=False),
    sa.Column("calibration", sa.String(64), nullable=False, index=True),
    sa.Column("guarantee", sa.String(16), nullable=False),
)

detector_states = sa.Table(
    "detector_states",
    metadata,
    sa.Column("owner", sa.String(200), primary_key=True),
    sa.Column("calibration", sa.String(64), primary_key=True),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
