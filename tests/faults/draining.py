"""SIGTERM under load: what was taken on is answered, everyone else is told, and in time."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ibinn.client import wire
from tests.faults import calls
from tests.faults.calls import ANSWERED, BY_TRANSPORT, Ledger
from tests.faults.laws import broken
from tests.faults.server import ServerProcess, stub_server
from tests.service.stub import png

SERVICE = wire.CLASSIFY.strip("/").rpartition("/")[0]
HANGS = 99
_TIMEOUT_S = 20.0
_EXIT_MARGIN_S = 4.0
"""Beyond the drain: a second of farewell, and the ends of decoders, threads and interpreter."""
_LATE_S = 0.05
"""The two ends of a race between two connections may be seen this far in the wrong order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainResult:
    """What callers saw of a server that was told to stop.

    Attributes:
        callers: Number of callers, each with a connection of its own.
        before: Ends of the calls that were sent before the signal.
        after: Ends of those sent later, until the server was gone.
        handled: What the server's handlers ended with, as it said in the end.
        told_s: From the signal to NOT_SERVING at a caller that watches.
        first_refusal_s: From the signal to the first UNAVAILABLE of a handler; None: there was
            none.
        exit_s: From the signal to the end of the process.
        exit_status: Its status.
        drain_timeout_s: What it was given.
        faults: Faults in its log.
    """

    callers: int
    before: dict[str, int]
    after: dict[str, int]
    answered: dict[str, int]
    handled: dict[str, int]
    told_s: float
    first_refusal_s: float | None
    exit_s: float
    exit_status: int
    drain_timeout_s: float
    faults: tuple[str, ...]

    @property
    def broken(self) -> tuple[str, ...]:
        handled = Counter(self.handled)
        ends = {name.split(" ", 1)[1] for name in handled}
        first_s = self.first_refusal_s
        return broken(
            (set(self.before) <= {ANSWERED, "UNAVAILABLE"}, f"calls before SIGTERM: {self.before}"),
            (
                set(self.after) <= {ANSWERED, "UNAVAILABLE", "UNAVAILABLE" + BY_TRANSPORT},
                f"calls after SIGTERM: {self.after}",
            ),
            (ends <= {"OK", "UNAVAILABLE"}, f"handlers ended with {self.handled}"),
            (
                all(handled[f"{method} OK"] == n for method, n in self.answered.items()),
                f"answers received {self.answered}, given {self.handled}",
            ),
            (
                first_s is None or self.told_s <= first_s + _LATE_S,
                f"NOT_SERVING came {self.told_s:.3f} s after SIGTERM, UNAVAILABLE {first_s} s",
            ),
            (self.exit_status == 0, f"exit status {self.exit_status}"),
            (
                self.exit_s <= self.drain_timeout_s,
                f"ended after {self.exit_s:.1f} s of {self.drain_timeout_s:g} s",
            ),
            (not self.faults, f"log: {self.faults[:3]}"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HangResult:
    """What became of a server that was told to stop while its network hung.

    Attributes:
        outcomes: Ends of the calls in flight.
        exit_s: From the signal to the end of the process.
        exit_status: Its status.
        drain_timeout_s: What it was given.
    """

    outcomes: dict[str, int]
    exit_s: float
    exit_status: int
    drain_timeout_s: float

    @property
    def broken(self) -> tuple[str, ...]:
        limit_s = self.drain_timeout_s + _EXIT_MARGIN_S
        names = {name.removesuffix(BY_TRANSPORT) for name in self.outcomes}
        return broken(
            (names == {"UNAVAILABLE"}, f"calls in flight ended with {self.outcomes}"),
            (
                self.drain_timeout_s <= self.exit_s <= limit_s,
                f"ended after {self.exit_s:.1f} s, drain {self.drain_timeout_s:g} s",
            ),
            (self.exit_status == 0, f"exit status {self.exit_status}"),
        )


def under_load(*, callers: int = 24, load_s: float = 2.0) -> DrainResult:
    """SIGTERM while callers of Classify, ClassifyStream and Explain call again and again.

    Args:
        callers: A third of them for each method.
        load_s: How long they call before the signal.
    """
    drain_timeout_s = 15.0
    with stub_server(batch_s=0.05, max_batch_size=8, drain_timeout_s=drain_timeout_s) as server:
        ledger = Ledger()
        found = asyncio.run(_terminated(server, ledger, callers=callers, load_s=load_s))
        before = [call for call in ledger.calls if call.sent < found.signalled]
        after = [call for call in ledger.calls if call.sent >= found.signalled]
        refusals = [call.ended for call in ledger.calls if call.outcome == "UNAVAILABLE"]
        return DrainResult(
            callers=callers,
            before=dict(Counter(call.outcome for call in before)),
            after=dict(Counter(call.outcome for call in after)),
            answered={
                method: ledger.outcomes(method)[ANSWERED] for method in ("Classify", "Explain")
            },
            handled=server.last_words(),
            told_s=found.told - found.signalled,
            first_refusal_s=min(refusals) - found.signalled if refusals else None,
            exit_s=found.ended - found.signalled,
            exit_status=server.process.returncode,
            drain_timeout_s=drain_timeout_s,
            faults=server.faults(),
        )


def while_the_network_hangs(*, drain_timeout_s: float = 1.0) -> HangResult:
    """SIGTERM while the network does not return from a batch and others wait behind it."""
    with stub_server(hangs_on=HANGS, drain_timeout_s=drain_timeout_s) as server:
        ledger = Ledger()
        found = asyncio.run(_terminated_hanging(server, ledger))
        return HangResult(
            outcomes=dict(ledger.outcomes()),
            exit_s=found.ended - found.signalled,
            exit_status=server.process.returncode,
            drain_timeout_s=drain_timeout_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moments:
    """Monotonic times."""

    signalled: float
    told: float
    ended: float


async def _terminated(
    server: ServerProcess, ledger: Ledger, *, callers: int, load_s: float
) -> _Moments:
    gone = asyncio.Event()
    classify = [wire.classify_bytes(png(value)) for value in range(16)]
    explain = [wire.explain_bytes(png(value)) for value in range(16)]
    images = [png(value) for value in range(20)]

    async def call(number: int) -> None:
        async with _channel(server) as channel:
            turn = number
            while not gone.is_set():
                turn += 1
                if number % 3 == 0:
                    outcome = await calls.unary(
                        channel, wire.EXPLAIN, explain[turn % 16], ledger, timeout_s=_TIMEOUT_S
                    )
                elif number % 3 == 1:
                    outcome = await calls.stream(channel, images, ledger, timeout_s=_TIMEOUT_S)
                else:
                    outcome = await calls.unary(
                        channel, wire.CLASSIFY, classify[turn % 16], ledger, timeout_s=_TIMEOUT_S
                    )
                if outcome != ANSWERED:  # as long as RetryInfo says
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(gone.wait(), 1.0)

    async with asyncio.TaskGroup() as group, _channel(server) as channel:
        watch = group.create_task(_not_serving(channel))
        for number in range(callers):
            group.create_task(call(number))
        await asyncio.sleep(load_s)
        signalled = time.monotonic()
        server.signal(signal.SIGTERM)
        ended = await asyncio.to_thread(_end, server)
        gone.set()
        return _Moments(signalled=signalled, told=await watch, ended=ended)


async def _terminated_hanging(server: ServerProcess, ledger: Ledger) -> _Moments:
    async with _channel(server) as channel, asyncio.TaskGroup() as group:
        for value in (HANGS, 1, 2, HANGS, 3):
            group.create_task(
                calls.unary(
                    channel,
                    wire.CLASSIFY,
                    wire.classify_bytes(png(value)),
                    ledger,
                    timeout_s=_TIMEOUT_S,
                )
            )
            await asyncio.sleep(0.1)
        while await asyncio.to_thread(server.metric, "ibinn_pending_requests") < 5:
            await asyncio.sleep(0.02)
        signalled = time.monotonic()
        server.signal(signal.SIGTERM)
        ended = await asyncio.to_thread(_end, server)
    return _Moments(signalled=signalled, told=signalled, ended=ended)


async def _not_serving(channel: grpc.aio.Channel) -> float:
    """When a watcher of the server's health hears that it does not serve."""
    request = health_pb2.HealthCheckRequest(service=SERVICE)
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for response in health_pb2_grpc.HealthStub(channel).Watch(request):
            if response.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                return time.monotonic()
    return float("inf")


def _channel(server: ServerProcess) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(server.target, options=calls.OWN_CONNECTION)


def _end(server: ServerProcess) -> float:
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.ended(timeout_s=60.0)
    return time.monotonic()
