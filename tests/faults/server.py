"""A server process to do harm to, and what can be seen of it from outside."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.faults.resources import Resources
from tests.faults.server_process import Stub

ROOT = Path(__file__).parents[2]
_READY = re.compile(r"ready grpc=(\S+) metrics=(\S+) ")
_PATIENCE_S = 60.0

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProcess:
    """A running server.

    Attributes:
        target: ``host:port`` for gRPC.
        metrics: URL of its metrics.
        process: Its process, or that of the supervisor of its workers.
        log: File of its log entries.
    """

    target: str
    metrics: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def address(self) -> tuple[str, int]:
        """The target for plain sockets."""
        host, _, port = self.target.rpartition(":")
        return host, int(port)

    def resources(self) -> Resources:
        return Resources.of(self.pid)

    def scrape(self) -> Samples:
        """Every sample that Prometheus would read."""
        with urllib.request.urlopen(self.metrics, timeout=_PATIENCE_S) as response:
            text = response.read().decode()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of one name that have these labels; 0 where there is none."""
        return total(self.scrape(), name, **labels)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self, *, timeout_s: float) -> int:
        """Waits for the end; returns the exit status.

        Raises:
            subprocess.TimeoutExpired: It did not end in time.
        """
        return self.process.wait(timeout_s)

    def last_words(self) -> dict[str, int]:
        """How many calls the handlers ended with which status, once the process has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return dict(json.loads(line)["ended"]) if line else {}

    def faults(self) -> tuple[str, ...]:
        """Log entries that speak of a fault of the server."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        bad = re.compile(r" (ERROR|CRITICAL) |^Traceback|never (retrieved|awaited)|Exception ign")
        return tuple(line for line in lines if bad.search(line))


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples of one name that have these labels; 0 where there is none."""
    wanted = frozenset(labels.items())
    return sum(value for (found, has), value in samples.items() if found == name and wanted <= has)


@contextlib.contextmanager
def stub_server(
    *, batch_s: float = 0.0, hangs_on: int | None = None, **settings: Any
) -> Iterator[ServerProcess]:
    """A server whose network only takes time (`tests.faults.server_process`).

    Args:
        batch_s: Seconds of a batch.
        hangs_on: Red value of a plain image on which the network hangs.
        settings: Of `service.settings.Settings`.
    """
    stub = dataclasses.asdict(Stub(batch_s=batch_s, hangs_on=hangs_on))
    chosen = {"port": 0, "metrics_port": 0, **settings}
    orders = json.dumps({"settings": chosen, "stub": stub})
    with started((sys.executable, "-m", "tests.faults.server_process", orders)) as server:
        yield server


@contextlib.contextmanager
def real_server(**settings: Any) -> Iterator[ServerProcess]:
    """``ibinn-serve``, with the embedded model where the settings name no other."""
    chosen = {"port": 0, "metrics-port": 0, **settings}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in chosen.items()]
    with started((sys.executable, "-m", "service", *flags)) as server:
        yield server


@contextlib.contextmanager
def started(command: Sequence[str]) -> Iterator[ServerProcess]:
    """A server process by its command; killed at the end, if it is still there."""
    with tempfile.TemporaryDirectory(prefix="ibinn-faults-") as folder:
        log = Path(folder) / "log"
        with (
            log.open("w") as stderr,
            subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True
            ) as process,
        ):
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                found = _READY.match(line)
                if found is None:
                    process.kill()
                    raise RuntimeError(f"the server did not start: {line}{log.read_text()}")
                yield ServerProcess(target=found[1], metrics=found[2], process=process, log=log)
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    try:
                        process.wait(10)
                    except subprocess.TimeoutExpired:
                        process.kill()


def eventually(condition: Callable[[], bool], *, within_s: float) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
