"""A real Prometheus with the project's configuration and rules, at a pace for tests."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.deployment.monitoring.files import FOLDER, load
from tests.faults.server import eventually

SCRAPE_S = 1
PATIENCE_S = 60.0

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """A running one.

    Attributes:
        url: Where it answers.
    """

    url: str

    def get(self, path: str, **query: str) -> Any:
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(address, timeout=PATIENCE_S) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from error

    def query(self, expr: str) -> dict[Labels, float]:
        """The values of an expression now, by labels."""
        return {
            frozenset(series["metric"].items()): float(series["value"][1])
            for series in self.get("query", query=expr)["result"]
        }

    def number(self, expr: str) -> float:
        """The value of an expression with one series or none, which is 0."""
        found = self.query(expr)
        assert len(found) < 2, expr
        return next(iter(found.values()), 0.0)

    def seen_s(self, metric: str) -> float:
        """Shortest time between the first and the last sample of the series of a metric."""
        series = self.get("query", query=f"{metric}[1h]")["result"]
        return min(float(one["values"][-1][0]) - float(one["values"][0][0]) for one in series)

    def comes(self, expr: str, value: Callable[[float], bool]) -> bool:
        """Whether the value of an expression becomes right in time."""
        return eventually(lambda: value(self.number(expr)), within_s=PATIENCE_S)


@contextlib.contextmanager
def running(folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """A Prometheus that reads servers once a second, and computes every rule as often.

    Args:
        folder: For its files.
        targets: ``host:port`` of the servers' metrics.
    """
    config = load("prometheus.yml")
    config["global"] = {
        "scrape_interval": f"{SCRAPE_S}s",
        "evaluation_interval": f"{SCRAPE_S}s",
    }
    jobs = [job for job in config["scrape_configs"] if job["job_name"] == "ibinn"]
    for job in jobs:
        for found in [key for key in job if key.endswith("_sd_configs")]:
            del job[found]
        job["static_configs"] = [{"targets": list(targets)}]
    config["scrape_configs"] = jobs
    (folder / "rules").mkdir()
    for path in (FOLDER / "rules").glob("*.yml"):
        text = re.sub(r"^    interval: .*\n", "", path.read_text("utf-8"), flags=re.MULTILINE)
        (folder / "rules" / path.name).write_text(text, "utf-8")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
    program = shutil.which("prometheus")
    assert program is not None
    log = folder / "log"
    with (
        log.open("w") as said,
        subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            stdout=said,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            yield Prometheus(url=_address(process, log))
        finally:
            process.kill()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where it listens, once it is ready: it takes a free port and says which."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        text = log.read_text("utf-8")
        found = re.search(r'msg="Listening on" address=(\S+)', text)
        if found is not None and "Server is ready to receive web requests" in text:
            return f"http://{found[1]}"
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"Prometheus did not start: {log.read_text('utf-8')}")
