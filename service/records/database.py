"""Connections to the database of the records, and what its errors mean.

SQLite: write-ahead log, and ``synchronous=FULL``, so that what was committed outlives a power cut;
each commit waits for the disk once. A transaction that writes takes the write lock at its beginning
and waits for it for at most the time limit; any number of processes of one machine share the file.

PostgreSQL (psycopg 3): every connection limits the time of connecting, of a statement, and of bytes
that the other side does not acknowledge; connections are tried before use and opened anew.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, Connection, Engine, make_url

from ibinn.errors import ConfigError, LedgerError, RecordsUnavailableError

_BEGIN = "ibinn_begin"
"""Execution option with SQLite's statement that begins a transaction."""

_EXAMPLES = "sqlite:////var/lib/ibinn/records.db or postgresql+psycopg://user@host/database"

POOL_SIZE = 6


def checked_url(url: str | URL) -> URL:
    """The URL of a database that can be used.

    Raises:
        ConfigError: Not a URL, another kind of database, or SQLite without a file or its folder.
    """
    try:
        found = make_url(url)
        backend, driver = found.get_backend_name(), found.get_driver_name()
    except (exc.ArgumentError, exc.NoSuchModuleError, ValueError) as error:
        raise ConfigError(
            f"records is no URL of a database that is known; expected {_EXAMPLES}"
        ) from error
    except ModuleNotFoundError as error:
        raise ConfigError(_driver_text(error.name or "")) from error
    if backend == "postgresql":
        found = found.set(drivername="postgresql+psycopg")
    elif backend == "sqlite" and driver == "pysqlite":
        if not found.database or found.database == ":memory:" or "mode" in found.query:
            raise ConfigError(
                "records is SQLite without a file, which no two connections share; expected "
                f"{_EXAMPLES}"
            )
        if not Path(found.database).parent.is_dir():
            raise ConfigError(
                f"the folder of records {found.database} does not exist; make it, or correct the "
                "setting records"
            )
    else:
        raise ConfigError(
            f"records is a database of the kind {found.drivername}; expected {_EXAMPLES}"
        )
    return found


def shown(url: URL) -> str:
    """A URL without user, password and options.

    >>> shown(make_url("postgresql+psycopg://ann:secret@db.example:5433/ibinn?sslkey=x"))
    'postgresql://db.example:5433/ibinn'
    """
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///{url.database}"
    named = url.host or url.query.get("host", "")
    host = named if isinstance(named, str) else ",".join(named)
    port = f":{url.port}" if url.port else ""
    return f"postgresql://{host}{port}/{url.database or ''}"


def engine(url: URL, *, timeout_s: float) -> Engine:
    """An engine for the URL; nothing is connected yet.

    Raises:
        ConfigError: The database's driver is not installed, or the URL has an unknown option.
    """
    try:
        if url.get_backend_name() == "sqlite":
            made = sa.create_engine(
                url,
                connect_args={"timeout": timeout_s},
                pool_size=POOL_SIZE,
                max_overflow=4,
                pool_timeout=timeout_s,
            )
            _prepare_sqlite(made)
        else:
            milliseconds = max(1, round(1000 * timeout_s))
            made = sa.create_engine(
                url,
                connect_args={
                    "connect_timeout": max(2, math.ceil(timeout_s)),
                    "tcp_user_timeout": milliseconds,
                    "keepalives_idle": max(1, math.ceil(timeout_s)),
                    "keepalives_interval": max(1, math.ceil(timeout_s / 3)),
                    "keepalives_count": 3,
                },
                pool_size=POOL_SIZE,
                max_overflow=4,
                pool_timeout=timeout_s,
                pool_pre_ping=True,
            )
            _prepare_postgresql(made, milliseconds)
    except ModuleNotFoundError as error:
        raise ConfigError(_driver_text(error.name or "")) from error
    return made


def _driver_text(module: str) -> str:
    return (
        f"the driver of the records' database, {module}, is not installed; "
        "pip install 'ibinn[serve,postgresql]'"
    )


def _prepare_sqlite(made: Engine) -> None:
    @event.listens_for(made, "connect")
    def connected(connection: Any, _record: Any) -> None:
        # The module's own transactions begin late and do not hold table definitions.
        connection.isolation_level = None
        try:
            connection.execute("PRAGMA synchronous=FULL")
        except sqlite3.OperationalError as error:
            raise exc.OperationalError("PRAGMA synchronous", None, error) from error
        except sqlite3.DatabaseError as error:
            raise exc.DatabaseError("PRAGMA synchronous", None, error) from error

    @event.listens_for(made, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))


def _prepare_postgresql(made: Engine, milliseconds: int) -> None:
    import psycopg

    @event.listens_for(made, "connect")
    def connected(connection: Any, _record: Any) -> None:
        try:
            configure(connection)
        except psycopg.Error as error:
            raise exc.OperationalError("SET", None, error) from error

    def configure(connection: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, false)", [str(milliseconds)])
            # A process that stops within a transaction must not hold the ledger's head for ever.
            cursor.execute(
                "SELECT set_config('idle_in_transaction_session_timeout', %s, false)",
                [str(2 * milliseconds)],
            )
            # Off would acknowledge what a crash of the database takes back; any other is stronger.
            cursor.execute(
                "SELECT set_config('synchronous_commit', 'on', false) "
                "WHERE current_setting('synchronous_commit') = 'off'"
            )
        connection.commit()


def writing(made: Engine) -> Engine:
    """The same engine whose transactions write: in SQLite they take the lock at once."""
    return made.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})


@contextlib.contextmanager
def transaction(made: Engine) -> Iterator[Connection]:
    """A transaction, committed at the end unless an error leaves the block.

    Raises:
        RecordsUnavailableError: The database cannot be reached, is busy for too long or refuses.
            Whether an error at the commit left the transaction done or undone is not known.
        LedgerError: The database is damaged or is not one of records.
    """
    with errors(shown(made.url)), made.begin() as connection:
        yield connection


@contextlib.contextmanager
def errors(name: str) -> Iterator[None]:
    """Turns the database's errors into ours."""
    try:
        yield
    except (exc.IntegrityError, exc.DataError) as error:
        raise LedgerError(
            f"the records in {name} refuse an entry ({_first_line(error)}); they do not fit each "
            "other: look at them with ibinn audit verify"
        ) from error
    except exc.DatabaseError as error:
        if type(error) is exc.DatabaseError and "sqlite" in name:
            raise LedgerError(
                f"{name} is damaged or no database of records ({_first_line(error)}); restore it "
                "from a backup, or name another file in the setting records"
            ) from error
        raise _unavailable(name, error) from error
    except (exc.DBAPIError, exc.TimeoutError, exc.PendingRollbackError) as error:
        raise _unavailable(name, error) from error


def _unavailable(name: str, error: Exception) -> RecordsUnavailableError:
    return RecordsUnavailableError(
        f"the records in {name} cannot be reached or are too slow now ({_first_line(error)}); "
        "try again"
    )


def _first_line(error: Exception) -> str:
    cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig else error
    text = str(cause).strip().splitlines()
    return text[0] if text else type(cause).__name__
