"""After 1,000 rude callers the server holds what it held before them."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ibinn.client import Client
from tests.faults import rude
from tests.faults.laws import broken
from tests.faults.resources import Resources
from tests.faults.server import ROOT, ServerProcess, eventually, stub_server
from tests.service.stub import png

BATCH_S = 0.02
_SETTLE_S = 15.0
_GROWTH_MB = 20.0
_MORE_FILES = 2
_MORE_THREADS = 8
"""gRPC keeps a pool of threads that grows with its work and shrinks in its own time."""
_IDLE_EXIT_S = 6.0
"""Longest time for an idle server to end; one with a call in flight would wait for 25 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakResult:
    """What rude callers left behind.

    Attributes:
        cycles: Number of rude callers.
        ends: For each kind how it ended how often.
        unserved: Callers that only took their time and got no answer.
        before: What server and decoders held after warm-up.
        after: What they held after all cycles.
        pending: Of the gauges; likewise `waiting`.
        normal_before_s: Median latency of single calls before.
        normal_after_s: And after.
        silent_closed: Connections without a word that the server closed by itself.
        silent: Those that were opened.
        exit_s: How long it took to stop.
        exit_status: Its status.
        faults: Faults in its log.
        seconds: Of the cycles.
    """

    cycles: int
    ends: dict[str, dict[str, int]]
    unserved: int
    before: Resources
    after: Resources
    pending: float
    waiting: float
    normal_before_s: float
    normal_after_s: float
    silent_closed: int
    silent: int
    exit_s: float
    exit_status: int
    faults: tuple[str, ...]
    seconds: float

    @property
    def broken(self) -> tuple[str, ...]:
        before, after = self.before, self.after
        normal_s = 1.5 * self.normal_before_s + 0.01
        return broken(
            (self.pending == 0, f"{self.pending:g} requests pending"),
            (self.waiting == 0, f"{self.waiting:g} images waiting"),
            (after.files <= before.files + _MORE_FILES, f"files {before.files} -> {after.files}"),
            (
                after.threads <= before.threads + _MORE_THREADS,
                f"threads {before.threads} -> {after.threads}",
            ),
            (after.processes == before.processes, f"{before.processes} -> {after.processes}"),
            (
                after.rss_mb <= before.rss_mb + _GROWTH_MB,
                f"memory {before.rss_mb:.0f} -> {after.rss_mb:.0f} MB",
            ),
            (self.unserved == 0, f"{self.unserved} slow callers got no answer: {self.ends}"),
            (
                self.normal_after_s <= normal_s,
                f"p50 {self.normal_before_s:.4f} -> {self.normal_after_s:.4f} s",
            ),
            (
                self.silent_closed == self.silent,
                f"{self.silent - self.silent_closed} silent connections are kept",
            ),
            (self.exit_s <= _IDLE_EXIT_S, f"stopping took {self.exit_s:.1f} s: calls in flight"),
            (self.exit_status == 0, f"exit status {self.exit_status}"),
            (not self.faults, f"log: {self.faults[:3]}"),
        )


def of_rude_callers(
    *,
    cycles: int = 1000,
    at_once: int = 16,
    silent: int = 50,
    seed: int = 4,
    told: Callable[[str], None] = lambda line: None,
) -> LeakResult:
    """Rude callers in turn, and beside them connections that never say a word.

    Args:
        cycles: How many callers; an eighth as many come first, as warm-up.
        at_once: So many at a time.
        silent: Connections that stay open until the server closes them, after 20 s; 0: none.
        seed: Of their pauses.
        told: Hears of the progress.
    """
    with (
        stub_server(batch_s=BATCH_S, max_batch_size=8, decode_in="process") as server,
        Client(server.target, timeout_s=20.0) as client,
    ):
        _rude(server, max(24, cycles // 8), at_once=at_once, seed=seed)
        _at_rest(server)
        normal_before_s = _median_s(client)
        before = server.resources()
        with _silent(server, silent) as connections:
            start = time.monotonic()
            ends = _rude(server, cycles, at_once=at_once, seed=seed + 1, told=told)
            seconds = time.monotonic() - start
            closed = sum(map(_closed, connections))
        _at_rest(server)
        normal_after_s = _median_s(client)
        _held(server, before)
        after = server.resources()
        samples = server.scrape()
        start = time.monotonic()
        server.signal(signal.SIGTERM)
        exit_status = server.ended(timeout_s=60.0)
        return LeakResult(
            cycles=cycles,
            ends=ends,
            unserved=sum(
                count for name in rude.SERVED for end, count in ends[name].items() if end != "0"
            ),
            before=before,
            after=after,
            pending=samples["ibinn_pending_requests", frozenset()],
            waiting=samples["ibinn_waiting_images", frozenset()],
            normal_before_s=normal_before_s,
            normal_after_s=normal_after_s,
            silent=silent,
            silent_closed=closed,
            exit_s=time.monotonic() - start,
            exit_status=exit_status,
            faults=server.faults(),
            seconds=seconds,
        )


def _rude(
    server: ServerProcess,
    count: int,
    *,
    at_once: int,
    seed: int,
    told: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, int]]:
    command = (
        *(sys.executable, "-m", "tests.faults.rude", server.target),
        *("--count", str(count), "--at-once", str(at_once)),
        *("--seed", str(seed), "--longest-s", str(4 * BATCH_S)),
    )
    line = "{}"
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().isdecimal():
                told(f"{line.strip()} of {count} rude callers")
    return dict(json.loads(line))


def _at_rest(server: ServerProcess) -> None:
    """Gives the server time to notice that everyone has left."""
    eventually(lambda: server.metric("ibinn_pending_requests") == 0, within_s=_SETTLE_S)


def _held(server: ServerProcess, before: Resources) -> None:
    """Gives it time to give back what it held."""

    def given_back() -> bool:
        now = server.resources()
        return (
            now.files <= before.files + _MORE_FILES
            and now.threads <= before.threads + _MORE_THREADS
        )

    eventually(given_back, within_s=_SETTLE_S)


def _median_s(client: Client, count: int = 30) -> float:
    """Median latency of single calls."""
    found = []
    for value in range(count):
        start = time.perf_counter()
        client.classify(png(value))
        found.append(time.perf_counter() - start)
    return statistics.median(found)


@contextlib.contextmanager
def _silent(server: ServerProcess, count: int) -> Iterator[list[socket.socket]]:
    """Connections on which nothing is ever said."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(server.address)) for _ in range(count)]


def _closed(connection: socket.socket) -> bool:
    """Whether the server closes a connection by itself, in time."""
    connection.settimeout(30.0)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True
