"""A database that is slow, silent, gone, locked or full while a server answers."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ibinn.client import wire
from ibinn.v1 import classification_service_pb2 as service
from tests.faults.calls import ANSWERED, outcome_of
from tests.faults.laws import broken
from tests.faults.proxy import Network, Proxy
from tests.faults.server import ServerProcess, eventually, total
from tests.faults.telling import SUBMIT_FEEDBACK, Statement
from tests.service.stub import png

_PATIENCE_S = 60.0
_SLACK_S = 1.5
"""On top of the time limit of records, on a machine that has other things to do."""
_HEALTH_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreResult:
    """What callers notice of a bad database.

    Attributes:
        fault: What was done to it.
        audit: The server's setting.
        timeout_s: Likewise, `records_timeout_s`.
        classify: How calls of Classify ended meanwhile; likewise SubmitFeedback's.
        slowest_classify_s: Longest call of Classify; likewise SubmitFeedback's.
        health_s: Longest health check meanwhile.
        dropped: Answers that were counted as dropped.
        unaccounted: Answers given less those recorded or dropped, at the end.
        reachable_during: What the server's metric said at the end of the fault.
        recovered_s: From the end of the fault until a statement was taken and nothing waited.
        after: How calls of Classify ended after it.
        faults: Faults in the server's log.
    """

    fault: str
    audit: str
    timeout_s: float
    classify: dict[str, int]
    feedback: dict[str, int]
    slowest_classify_s: float
    slowest_feedback_s: float
    health_s: float
    dropped: float
    unaccounted: float
    reachable_during: float
    recovered_s: float
    after: dict[str, int]
    faults: tuple[str, ...]

    @property
    def broken(self) -> tuple[str, ...]:
        best_effort = self.audit == "best_effort"
        wanted = {ANSWERED} if best_effort else {"UNAVAILABLE"}
        limit_s = self.timeout_s + _SLACK_S
        return broken(
            (set(self.classify) == wanted, f"Classify ended with {self.classify}"),
            (set(self.feedback) == {"UNAVAILABLE"}, f"feedback ended with {self.feedback}"),
            (
                max(self.slowest_classify_s, self.slowest_feedback_s) <= limit_s,
                f"calls took {self.slowest_classify_s:.2f} and {self.slowest_feedback_s:.2f} s",
            ),
            (self.health_s <= _HEALTH_S, f"a health check took {self.health_s:.2f} s"),
            (not best_effort or self.dropped > 0, "nothing was counted as dropped"),
            (best_effort or not self.dropped, f"{self.dropped:g} required ones were dropped"),
            (self.unaccounted == 0, f"{self.unaccounted:g} answers are not accounted for"),
            (self.reachable_during == 0, "the metric says that the database was reachable"),
            (self.recovered_s < _PATIENCE_S, "no recovery"),
            (set(self.after) == {ANSWERED}, f"afterwards Classify ended with {self.after}"),
            (not self.faults, f"log: {self.faults[:3]}"),
        )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process holds the write lock of a SQLite file."""
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60); "
        "c.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        (sys.executable, "-c", program, str(path)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            process.stdin.close()


@contextlib.contextmanager
def full(pid: int) -> Iterator[None]:
    """No file of a process may grow: what a full disk says is said to it (EFBIG for ENOSPC)."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def network_is(proxy: Proxy, network: Network) -> Iterator[None]:
    """The way to the database is bad while the block runs."""
    proxy.become(network)
    try:
        yield
    finally:
        proxy.become(Network.WELL)


def bad(
    server: ServerProcess,
    fault: str,
    happens: contextlib.AbstractContextManager[None],
    *,
    audit: str,
    timeout_s: float,
    queue: int,
    during: Callable[[], None] = lambda: None,
) -> StoreResult:
    """Calls before, during and after a fault of the database.

    Args:
        server: Its settings are the following ones.
        fault: Its name.
        happens: It, for as long as the block runs.
        audit: Setting.
        timeout_s: Setting `records_timeout_s`.
        queue: Setting `records_queue`.
        during: Called while it lasts.
    """
    caller = Caller(server)
    dropped_before, written_before = _counted(server)
    before = asyncio.run(caller.classify(20))
    assert set(before) == {ANSWERED}, before
    assert caller.told() == ANSWERED
    caller.slowest = Counter()
    with happens:
        # More than waits, so that some find no room; required answers wait themselves.
        count = queue + 200 if audit == "best_effort" else 60
        classify, feedback, health_s = asyncio.run(caller.during(count))
        during()
        eventually(lambda: server.metric("ibinn_records_reachable") == 0, within_s=_PATIENCE_S)
        reachable = server.metric("ibinn_records_reachable")
    slowest = caller.slowest
    ended = time.monotonic()
    is_well = eventually(
        lambda: (
            server.metric("ibinn_records_waiting") == 0
            and server.metric("ibinn_records_reachable") == 1
            and caller.told() == ANSWERED
        ),
        within_s=_PATIENCE_S,
    )
    recovered_s = time.monotonic() - ended if is_well else float("inf")
    after = asyncio.run(caller.classify(20))
    eventually(lambda: server.metric("ibinn_records_waiting") == 0, within_s=_PATIENCE_S)
    dropped, written = _counted(server)
    dropped, written = dropped - dropped_before, written - written_before
    # With required ones, a record may be written of an answer that was not sent.
    unaccounted = caller.answers - dropped - written
    return StoreResult(
        fault=fault,
        audit=audit,
        timeout_s=timeout_s,
        classify=dict(classify),
        feedback=dict(feedback),
        slowest_classify_s=slowest["classify"],
        slowest_feedback_s=slowest["feedback"],
        health_s=health_s,
        dropped=dropped,
        unaccounted=max(0.0, unaccounted) if audit == "required" else unaccounted,
        reachable_during=reachable,
        recovered_s=recovered_s,
        after=dict(after),
        faults=server.faults(),
    )


def _counted(server: ServerProcess) -> tuple[float, float]:
    """Answers that were dropped, and recorded."""
    samples = server.scrape()
    return (
        total(samples, "ibinn_records_dropped_total"),
        total(samples, "ibinn_records_written_total", kind="answer"),
    )


class Caller:
    """Calls a server and takes down how long that took.

    Attributes:
        answers: Answers that were received.
        slowest: Seconds of the longest call by kind.
    """

    def __init__(self, server: ServerProcess) -> None:
        self.answers = 0
        self.slowest: Counter[str] = Counter()
        self._server = server
        self._request = wire.classify_bytes(png(1))
        self._last: tuple[str, str] = ("", "")
        self._said = 0

    async def classify(self, count: int, *, at_once: int = 16) -> Counter[str]:
        """So many calls of Classify; how they ended."""
        async with grpc.aio.insecure_channel(self._server.target) as channel:
            return await self._classify(channel, count, at_once)

    async def during(self, count: int) -> tuple[Counter[str], Counter[str], float]:
        """Calls of Classify, and beside them statements and health checks; the longest of these."""
        async with grpc.aio.insecure_channel(self._server.target) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            over = asyncio.Event()
            longest = 0.0

            async def check() -> None:
                nonlocal longest
                while not over.is_set():
                    begun = time.monotonic()
                    await health.Check(health_pb2.HealthCheckRequest())
                    longest = max(longest, time.monotonic() - begun)
                    await asyncio.sleep(0.02)

            checking = asyncio.create_task(check())
            classify, told = await asyncio.gather(
                self._classify(channel, count, 16),
                asyncio.gather(*(self._tell(channel) for _ in range(6))),
            )
            over.set()
            await checking
            return classify, Counter(told), longest

    def told(self) -> str:
        """How a statement about the last answer ended."""

        async def tell() -> str:
            async with grpc.aio.insecure_channel(self._server.target) as channel:
                return await self._tell(channel)

        return asyncio.run(tell())

    async def _classify(self, channel: grpc.aio.Channel, count: int, at_once: int) -> Counter[str]:
        ended: Counter[str] = Counter()
        method = channel.unary_unary(wire.CLASSIFY)

        async def caller(calls: int) -> None:
            for _ in range(calls):
                begun = time.monotonic()
                try:
                    answer = await method(self._request, timeout=_PATIENCE_S)
                except grpc.aio.AioRpcError as error:
                    ended[outcome_of(error)] += 1
                else:
                    ended[ANSWERED] += 1
                    self.answers += 1
                    found = service.ClassifyResponse.FromString(answer).classification
                    self._last = (found.record_id, found.receipt)
                took_s = time.monotonic() - begun
                self.slowest["classify"] = max(self.slowest["classify"], took_s)  # type: ignore[assignment]

        shares = [count // at_once + (n < count % at_once) for n in range(at_once)]
        await asyncio.gather(*map(caller, shares))
        return ended

    async def _tell(self, channel: grpc.aio.Channel) -> str:
        self._said += 1
        record_id, receipt = self._last
        statement = Statement(
            record_id=record_id,
            receipt=receipt,
            source=f"source-{self._said}",
            truth="cat",
            feedback_id="",
        )
        begun = time.monotonic()
        try:
            await channel.unary_unary(SUBMIT_FEEDBACK)(statement.request(), timeout=_PATIENCE_S)
        except grpc.aio.AioRpcError as error:
            return outcome_of(error)
        else:
            return ANSWERED
        finally:
            took_s = time.monotonic() - begun
            self.slowest["feedback"] = max(self.slowest["feedback"], took_s)  # type: ignore[assignment]
