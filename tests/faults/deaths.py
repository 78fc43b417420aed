"""kill -9 under load: of a decoder process, and of one of several workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass

import grpc.aio

from ibinn.client import wire
from tests.faults import calls
from tests.faults.calls import ANSWERED, BY_TRANSPORT, Ledger
from tests.faults.laws import broken
from tests.faults.resources import children
from tests.faults.server import Samples, ServerProcess, stub_server, total
from tests.service.stub import png

_TIMEOUT_S = 20.0
_BACK_S = 20.0
"""Longest time for a new worker to serve: it begins a Python process and its decoders."""
_DYING_S = 0.1
"""The kernel takes a moment to end a process and close its connections; calls are sent in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderDeathResult:
    """What killing decoder processes does to callers.

    Attributes:
        kills: Decoder processes killed.
        outcomes: How the calls ended.
        crashes: What the server counted.
        processes: Server and decoders before.
        processes_after: And in the end.
        slowest_s: Longest call.
        faults: Faults in the server's log.
    """

    kills: int
    outcomes: dict[str, int]
    crashes: float
    processes: int
    processes_after: int
    slowest_s: float
    faults: tuple[str, ...]

    @property
    def broken(self) -> tuple[str, ...]:
        return broken(
            (set(self.outcomes) == {ANSWERED}, f"calls ended with {self.outcomes}"),
            (self.crashes == self.kills, f"{self.kills} kills, {self.crashes:g} counted"),
            (
                self.processes_after == self.processes,
                f"{self.processes} processes -> {self.processes_after}",
            ),
            (not self.faults, f"log: {self.faults[:3]}"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDeathResult:
    """What killing one of several workers does to callers.

    Attributes:
        workers: Their number.
        callers: Number of callers, each with a connection of its own and one call at a time.
        lost: Calls that ended without an answer, by their status.
        lost_at_once: Whether all of these were in flight when the worker died.
        hit: Callers that lost a call.
        answered_after: Calls answered from the death until there was a new worker.
        back_s: From the death until as many workers served again; infinite if they never did.
        shrunk: Counters whose sum went down.
        faults: Faults in the log.
    """

    workers: int
    callers: int
    lost: dict[str, int]
    lost_at_once: bool
    hit: int
    answered_after: int
    back_s: float
    shrunk: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def broken(self) -> tuple[str, ...]:
        names = {name.removesuffix(BY_TRANSPORT) for name in self.lost}
        return broken(
            (names <= {"UNAVAILABLE"}, f"calls were lost with {self.lost}"),
            (self.lost_at_once, "calls were lost that were not in flight at the death"),
            (sum(self.lost.values()) <= self.hit, f"{self.hit} callers lost {self.lost}"),
            (0 < self.hit < self.callers, f"{self.hit} of {self.callers} callers were hit"),
            (self.answered_after > 0, "the other workers answered nothing"),
            (self.back_s <= _BACK_S, f"a new worker served after {self.back_s:.1f} s"),
            (not self.shrunk, f"went down: {self.shrunk}"),
            (not self.faults, f"log: {self.faults[:3]}"),
        )


def of_decoders(*, kills: int = 6, callers: int = 12) -> DecoderDeathResult:
    """kill -9 of one decoder process after another, while callers call again and again.

    Args:
        kills: One every half second, which is as often as the server forgets one.
        callers: Each with one call at a time.
    """
    with stub_server(batch_s=0.01, max_batch_size=8, decode_in="process") as server:
        processes = server.resources().processes
        ledger = Ledger()
        asyncio.run(_decoders_killed(server, ledger, kills=kills, callers=callers))
        return DecoderDeathResult(
            kills=kills,
            outcomes=dict(ledger.outcomes()),
            crashes=server.metric("ibinn_decoder_faults_total", kind="crash"),
            processes=processes,
            processes_after=server.resources().processes,
            slowest_s=max(call.ended - call.sent for call in ledger.calls),
            faults=server.faults(),
        )


def of_a_worker(*, callers: int = 16, load_s: float = 1.0) -> WorkerDeathResult:
    """kill -9 of one of two workers, while callers call again and again.

    Args:
        callers: Each with a connection of its own and one call at a time.
        load_s: How long they call before the death, and after a new worker serves.
    """
    with stub_server(batch_s=0.02, max_batch_size=8, workers=2) as server:
        ledger = Ledger()
        found = asyncio.run(_worker_killed(server, ledger, callers=callers, load_s=load_s))
        lost = [call for call in ledger.calls if call.outcome != ANSWERED]
        dead = found.killed + _DYING_S
        in_flight = [call for call in lost if call.sent <= dead and found.killed <= call.ended]
        after = [
            call
            for call in ledger.calls
            if call.outcome == ANSWERED and found.killed < call.ended <= found.back
        ]
        return WorkerDeathResult(
            workers=2,
            callers=callers,
            lost=dict(Counter(call.outcome for call in lost)),
            lost_at_once=len(in_flight) == len(lost),
            hit=found.hit,
            answered_after=len(after),
            back_s=found.back - found.killed,
            shrunk=found.shrunk,
            faults=server.faults(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Death:
    """Monotonic times of a worker's death and of the new one; callers hit; sums that shrank."""

    killed: float
    back: float
    hit: int
    shrunk: tuple[str, ...]


async def _decoders_killed(
    server: ServerProcess, ledger: Ledger, *, kills: int, callers: int
) -> None:
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(_calling(server, ledger, over, number))
        for _ in range(kills):
            await asyncio.sleep(0.5)
            crashes = await asyncio.to_thread(_crashes, server)
            os.kill(children(server.pid)[0], signal.SIGKILL)
            async with asyncio.timeout(_BACK_S):
                while await asyncio.to_thread(_crashes, server) <= crashes:
                    await asyncio.sleep(0.02)
        processes = 3
        async with asyncio.timeout(_BACK_S):
            while server.resources().processes != processes:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        over.set()


async def _worker_killed(
    server: ServerProcess, ledger: Ledger, *, callers: int, load_s: float
) -> _Death:
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_calling(server, ledger, over, number)) for number in range(callers)
        ]
        await asyncio.sleep(load_s)
        before = await asyncio.to_thread(server.scrape)
        victim = children(server.pid)[0]
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        shrunk: dict[str, None] = {}
        back = float("inf")
        while time.monotonic() < killed + _BACK_S:
            now = await asyncio.to_thread(server.scrape)
            shrunk |= dict.fromkeys(_shrunk(before, now))
            before = now
            if total(now, "ibinn_worker_restarts_total") and await all_serve(server):
                back = time.monotonic()
                break
            await asyncio.sleep(0.05)
        await asyncio.sleep(load_s)
        over.set()
    return _Death(
        killed=killed,
        back=back,
        hit=sum(task.result() > 0 for task in tasks),
        shrunk=tuple(shrunk),
    )


async def _calling(server: ServerProcess, ledger: Ledger, over: asyncio.Event, number: int) -> int:
    """One call after another over a connection of its own; how many were lost."""
    lost = 0
    async with grpc.aio.insecure_channel(
        server.target, options=(*calls.OWN_CONNECTION, ("grpc.enable_retries", 0))
    ) as channel:
        while not over.is_set():
            outcome = await calls.unary(
                channel,
                wire.CLASSIFY,
                wire.classify_bytes(png(number)),
                ledger,
                timeout_s=_TIMEOUT_S,
            )
            if outcome != ANSWERED:
                lost += 1
                await _connected(channel)
    return lost


async def _connected(channel: grpc.aio.Channel) -> None:
    """Waits until there is a connection again, as a client does that retries.

    Not at once: until the dying process has closed its sockets, the kernel may deal it the new
    connection too.
    """
    await asyncio.sleep(_DYING_S)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_BACK_S):
            await channel.channel_ready()


async def all_serve(server: ServerProcess) -> bool:
    """Whether the kernel deals connections to as many workers as before."""
    samples = await asyncio.to_thread(server.scrape)
    if total(samples, "ibinn_workers") != 2:
        return False
    return all(_listens(pid, server.address[1]) for pid in children(server.pid))


def _listens(pid: int, port: int) -> bool:
    """Whether a process has a listening socket on a port."""
    sockets = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                sockets.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/net/{table}", encoding="ascii") as lines:
            for line in lines:
                fields = line.split()
                if (
                    fields[3] == "0A"
                    and int(fields[1].rpartition(":")[2], 16) == port
                    and f"socket:[{fields[9]}]" in sockets
                ):
                    return True
    return False


def _shrunk(before: Samples, now: Samples) -> list[str]:
    """Counters of the workers whose sum is smaller than before."""
    return [
        f"{name} {dict(labels)}: {value:g} -> {now.get((name, labels), 0.0):g}"
        for (name, labels), value in before.items()
        if name.startswith("ibinn_")
        and name.endswith(("_total", "_count", "_sum", "_bucket"))
        and now.get((name, labels), 0.0) < value
    ]


def _crashes(server: ServerProcess) -> float:
    return server.metric("ibinn_decoder_faults_total", kind="crash")
