"""Runs a plan: connects, sends on time, waits for what is under way."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc
import grpc.aio

from ibinn.errors import UnavailableError
from ibinn.load_test.plan import Concurrency, Plan, Rate, intended_times
from ibinn.load_test.report import LoadReport, Tally
from ibinn.load_test.streams import StreamSender
from ibinn.load_test.unary import Finished, UnarySender
from ibinn.load_test.work import UnaryWork

_CONNECT_TIMEOUT_S = 10.0
_PAUSE_AFTER_FAILURE_S = 0.01
_PROGRESS_EVERY_S = 0.25
# Else channels to one address share a connection.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a running load test stands; counts are of images in the measured time.

    Attributes:
        elapsed_s: Since the measured time began; negative during warm-up.
        sent: Sent so far.
        good: Answered within the deadline.
        settled: Answered or ended with another status.
    """

    elapsed_s: float
    sent: int
    good: int
    settled: int


class _Sender(Protocol):
    def send(self, intended: float, finished: Finished | None = None) -> None:
        """Sends the next call, which should have been sent at `intended`."""

    async def finish(self) -> None:
        """Waits for the calls under way."""


def run(plan: Plan, *, progress: Callable[[Progress], None] | None = None) -> LoadReport:
    """Runs a load test in an event loop of its own, whose timers are exact to about 0.1 ms.

    Args:
        plan: What to do.
        progress: Called four times a second.

    Raises:
        UnavailableError: The server cannot be reached.
    """

    # epoll rounds waiting up to whole milliseconds, select does not; there are few sockets here.
    def exact_loop() -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(selectors.SelectSelector())

    with asyncio.Runner(loop_factory=exact_loop) as runner:
        return runner.run(generate(plan, progress=progress))


async def generate(plan: Plan, *, progress: Callable[[Progress], None] | None = None) -> LoadReport:
    """As `run`, in the event loop that is running; most loops' timers are exact to 1 ms."""
    connection = plan.connection
    async with contextlib.AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(connection.aio_channel(options=_OPTIONS))
            for _ in range(plan.connections)
        ]
        await _connect(connection.target, channels)
        cpu_s = time.process_time()
        start = time.monotonic()
        begin = start + plan.warm_up_s
        tally = Tally(begin=begin, duration_s=plan.duration_s, deadline_s=plan.deadline_s)
        sender = _sender(plan, channels, tally=tally)
        async with _reported(progress, tally, begin):
            if isinstance(plan.load, Rate):
                await _open_loop(sender, plan, plan.load, start)
            else:
                await _closed_loop(sender, plan.load, until=begin + plan.duration_s)
            await sender.finish()
        return tally.report(
            target=connection.target,
            method=plan.work.path,
            offered_per_s=plan.load.images_per_s if isinstance(plan.load, Rate) else None,
            concurrency=plan.load.calls if isinstance(plan.load, Concurrency) else None,
            connections=plan.connections,
            generator_cpu_s=time.process_time() - cpu_s,
        )


async def _connect(target: str, channels: Sequence[grpc.aio.Channel]) -> None:
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            await asyncio.gather(*(channel.channel_ready() for channel in channels))
    except TimeoutError:
        raise UnavailableError(
            f"no connection to {target} within {_CONNECT_TIMEOUT_S:g} s; check the address and "
            "the TLS options, or start a server there with ibinn-serve",
            code=grpc.StatusCode.UNAVAILABLE.name,
        ) from None


def _sender(plan: Plan, channels: Sequence[grpc.aio.Channel], *, tally: Tally) -> _Sender:
    metadata = plan.connection.metadata(f"load-test-{uuid.uuid4().hex[:12]}")
    if isinstance(plan.work, UnaryWork):
        return UnarySender(
            channels, plan.work, deadline_s=plan.deadline_s, metadata=metadata, tally=tally
        )
    return StreamSender(
        channels, plan.work, deadline_s=plan.deadline_s, metadata=metadata, tally=tally
    )


async def _open_loop(sender: _Sender, plan: Plan, rate: Rate, start: float) -> None:
    until_s = plan.warm_up_s + plan.duration_s
    for offset_s in intended_times(rate, images_per_call=plan.images_per_call, until_s=until_s):
        # Also when late: answers that came meanwhile must be taken down.
        await asyncio.sleep(max(0.0, start + offset_s - time.monotonic()))
        sender.send(start + offset_s)


async def _closed_loop(sender: _Sender, concurrency: Concurrency, *, until: float) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    running = concurrency.calls

    def send() -> None:
        nonlocal running
        now = time.monotonic()
        if now < until:
            sender.send(now, finished)
        else:
            running -= 1
            if running == 0:
                over.set()

    def finished(answered: bool) -> None:  # noqa: FBT001 - the only thing there is to tell
        if answered:
            send()
        else:  # a server that refuses everything is not asked in a spin
            loop.call_later(_PAUSE_AFTER_FAILURE_S, send)

    for _ in range(concurrency.calls):
        send()
    await over.wait()


@contextlib.asynccontextmanager
async def _reported(
    progress: Callable[[Progress], None] | None, tally: Tally, begin: float
) -> AsyncIterator[None]:
    async def report(tell: Callable[[Progress], None]) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_EVERY_S)
            tell(
                Progress(
                    elapsed_s=time.monotonic() - begin,
                    sent=tally.sent,
                    good=tally.good,
                    settled=tally.settled,
                )
            )

    task = None if progress is None else asyncio.create_task(report(progress))
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
