"""What a process holds of the machine, read from ``/proc``."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Of a process and its children.

    Attributes:
        files: Open file descriptors.
        threads: Threads.
        rss_mb: Resident memory in megabytes (10^6 bytes).
        processes: The process and its children.
    """

    files: int
    threads: int
    rss_mb: float
    processes: int

    @classmethod
    def of(cls, pid: int) -> Resources:
        """What the process and its children hold now; one that ends meanwhile holds nothing."""
        pids = (pid, *children(pid))
        found = [_one(each) for each in pids]
        return cls(
            files=sum(files for files, _, _ in found),
            threads=sum(threads for _, threads, _ in found),
            rss_mb=sum(rss for _, _, rss in found) / 1e6,
            processes=len(pids),
        )


def children(pid: int) -> tuple[int, ...]:
    """The living children of a process."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return tuple(sorted(found))


def rss_mb(pid: int) -> float:
    """Resident memory of one process in megabytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / 1e6


@contextlib.contextmanager
def watched_rss(pid: int, *, every_s: float = 0.25) -> Iterator[list[tuple[float, float]]]:
    """Takes down a process' resident memory: (monotonic time, megabytes), while the block runs."""
    samples: list[tuple[float, float]] = []
    over = threading.Event()

    def watch() -> None:
        while True:
            with contextlib.suppress(OSError):
                samples.append((time.monotonic(), rss_mb(pid)))
            if over.wait(every_s):
                return

    thread = threading.Thread(target=watch, name="watch-rss", daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def _one(pid: int) -> tuple[int, int, float]:
    try:
        files = len(os.listdir(f"/proc/{pid}/fd"))
        threads = len(os.listdir(f"/proc/{pid}/task"))
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0, 0, 0.0
    return files, threads, float(pages * _PAGE_BYTES)
