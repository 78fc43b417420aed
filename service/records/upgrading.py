"""Brings a database to the schema of this version, one process at a time.

Everything happens in one transaction under a lock (PostgreSQL: an advisory lock; SQLite: the write
lock), so that a process that dies leaves the schema as it was.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ibinn.errors import LedgerError
from service.records import database
from service.records.schema import REVISIONS, VERSION_TABLE

_log = logging.getLogger(__name__)

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x6962696E6E  # "ibinn"
_PAUSE_S = 0.02


def upgrade(engine: Engine, *, timeout_s: float, revision: str = REVISIONS[-1]) -> None:
    """Makes the schema, or brings it to a revision.

    Args:
        engine: Of the database.
        timeout_s: How long to wait for the lock; the upgrade itself is not limited.
        revision: Where to stop; tests of upgrades name an older one.

    Raises:
        LedgerError: The schema is newer than this version knows, or cannot be brought there.
        RecordsUnavailableError: The database cannot be reached, or another process holds the lock.
    """
    sqlite = engine.dialect.name == "sqlite"
    if sqlite:
        with database.errors(database.shown(engine.url)):
            _write_ahead(engine, timeout_s)
    with database.transaction(engine) as connection:
        if _known(connection) == revision:
            return
    with database.transaction(database.writing(engine)) as connection:
        if not sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        found = _known(connection)
        if found == revision:
            return
        if found is not None and REVISIONS.index(found) > REVISIONS.index(revision):
            return
        _run(connection, revision)
    _log.info(
        "the schema of the records is now at revision %s (before: %s)", revision, found or "none"
    )


def _known(connection: Connection) -> str | None:
    """The database's revision; None for a new database."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    table = sa.table(VERSION_TABLE, sa.column("version_num"))
    found: str | None = connection.scalar(sa.select(table.c.version_num))
    if found is not None and found not in REVISIONS:
        raise LedgerError(
            f"the records have a schema of revision {found}, this version knows up to "
            f"{REVISIONS[-1]}: a newer version of ibinn has upgraded them; use that one, or "
            "restore the backup of before"
        )
    return found


def _run(connection: Connection, revision: str) -> None:
    # Only a database that is not at its revision pays for the import.
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(_MIGRATIONS))

    def steps(found: Any, context: Any) -> Any:
        return scripts._upgrade_revs(revision, found)

    context = MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE, "fn": steps, "transactional_ddl": True}
    )
    with Operations.context(context):
        context.run_migrations()


def _write_ahead(engine: Engine, timeout_s: float) -> None:
    """Switches to the write-ahead log; the busy time-out does not hold for this statement."""
    give_up = time.monotonic() + timeout_s
    while True:
        try:
            with contextlib.closing(engine.raw_connection()) as raw:
                raw.driver_connection.execute("PRAGMA journal_mode=WAL")  # type: ignore[union-attr]
            return
        except sqlite3.OperationalError as error:
            if time.monotonic() > give_up or not _busy(error):
                raise sa.exc.OperationalError("PRAGMA journal_mode=WAL", None, error) from error
        except sqlite3.DatabaseError as error:
            raise sa.exc.DatabaseError("PRAGMA journal_mode=WAL", None, error) from error
        time.sleep(_PAUSE_S)


def _busy(error: sqlite3.Error) -> bool:
    return "locked" in str(error) or "busy" in str(error)
