"""The fuzzed server's process: begins, is weighed, says what it logged, ends."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class FuzzedServer:
    """A running server.

    Attributes:
        address: For gRPC.
        log: Path of what it wrote.
    """

    address: str
    log: Path
    _process: subprocess.Popen[str]

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    @property
    def status(self) -> int | None:
        """Its exit status, once it has ended."""
        return self._process.poll()

    def rss_bytes(self) -> int:
        """Memory of the server and of its decoder processes."""
        process = psutil.Process(self._process.pid)
        total = 0
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss
        return total

    def logged(self) -> str:
        """What it wrote."""
        return self.log.read_text("utf-8", errors="replace")


@contextlib.contextmanager
def running(log: Path) -> Iterator[FuzzedServer]:
    """A server on a free port; ended afterwards.

    Args:
        log: Where it writes; what it needs goes into a folder beside it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.server", str(log.parent.absolute() / "server")],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=_ROOT,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            if not words:
                raise RuntimeError(f"the server did not start; see {log}")
            yield FuzzedServer(address=words[0], log=log, _process=process)
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
