"""What is taken on, what is computed together and in which order, what is never computed."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ibinn.errors import ExpiredError, ImageDecodeError, QueueFullError
from service.models.served import Served
from service.monitoring import Monitor
from service.scheduling.admission import Limits
from service.scheduling.job import Job, Lane, Outcome, Task
from service.scheduling.scheduler import Scheduler
from tests.service.stub import StubClassifier

PATIENCE_S = 30.0


class InstantDecoders:
    """Gives bytes back as the prepared image; b"bad" is an image that cannot be read."""

    slots = 2

    def __init__(self) -> None:
        self.frames: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def prepare(self, preparer: Any, images: Sequence[bytes]) -> list[Any]:
        self.frames.append(len(images))
        await self.gate.wait()
        return [ImageDecodeError("bad") if image == b"bad" else image for image in images]


class Bench:
    """A scheduler with a network that waits for its gate and records its batches."""

    def __init__(self, **limits: Any) -> None:
        self.decoders = InstantDecoders()
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.batches: list[list[bytes]] = []
        self.compute_s = 0.0
        self.error: Exception | None = None
        self.monitor = Monitor()
        defaults = {
            "max_batch_size": 4,
            "max_batch_wait_s": 0.0,
            "max_pending": 64,
            "max_explain_pending": 8,
        }
        self.scheduler = Scheduler(
            self.decoders,
            self.compute,
            limits=Limits(**(defaults | limits)),
            monitor=self.monitor,
        )
        self.task = Task(served=Served.of(StubClassifier()))

    def compute(self, task: Task, prepared: Sequence[Any], done: Any) -> None:
        self.batches.append(list(prepared))
        self.entered.set()
        running = asyncio.create_task(self.run(prepared))
        running.add_done_callback(
            lambda ended: (
                done(None, ended.exception()) if ended.exception() else done(ended.result(), None)
            )
        )

    async def run(self, prepared: Sequence[Any]) -> Sequence[Any]:
        if self.compute_s:
            await asyncio.sleep(self.compute_s)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return list(prepared)

    def submit(
        self,
        image: bytes,
        *,
        caller: str = "me",
        lane: Lane = Lane.CLASSIFY,
        timeout_s: float = PATIENCE_S,
        task: Task | None = None,
    ) -> asyncio.Task[Outcome]:
        now = time.monotonic()
        job = Job(
            lane=lane,
            caller=caller,
            task=task or self.task,
            image=image,
            deadline=now + timeout_s,
            arrived=now,
            future=asyncio.get_running_loop().create_future(),
        )
        return asyncio.create_task(self.scheduler.submit(job))

    async def busy(self) -> asyncio.Task[Outcome]:
        """A batch of one is being computed, and its gate is closed."""
        self.gate.clear()
        first = self.submit(b"first")
        await self.entered.wait()
        return first

    async def settled(self, waiting: int) -> None:
        await until(lambda: self.scheduler.waiting == waiting)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0)


async def test_an_idle_server_computes_at_once_and_alone() -> None:
    bench = Bench(max_batch_wait_s=1.0)
    outcome = await bench.submit(b"a")
    assert outcome.value == b"a"
    assert outcome.batch_size == 1
    assert bench.batches == [[b"a"]]


async def test_what_waits_while_a_batch_is_computed_shares_the_next_ones() -> None:
    bench = Bench()
    first = await bench.busy()
    others = [bench.submit(bytes([number])) for number in range(6)]
    await bench.settled(6)
    bench.gate.set()
    outcomes = await asyncio.gather(first, *others)
    assert [len(batch) for batch in bench.batches] == [1, 4, 2]
    assert [outcome.value for outcome in outcomes[1:]] == [bytes([n]) for n in range(6)]


async def test_a_greedy_caller_does_not_delay_another_by_more_than_its_turn() -> None:
    bench = Bench()
    first = await bench.busy()
    greedy = [bench.submit(bytes([number]), caller="greedy") for number in range(30)]
    await until(lambda: bench.scheduler.pending == 31)
    modest = bench.submit(b"modest", caller="modest")
    await until(lambda: bench.scheduler.pending == 32)
    bench.gate.set()
    await asyncio.gather(first, modest, *greedy)
    assert b"modest" in [*bench.batches[1], *bench.batches[2], *bench.batches[3]]


async def test_classify_goes_before_explain_and_explain_before_the_servers_own_work() -> None:
    bench = Bench()
    first = await bench.busy()
    jobs = [
        bench.submit(b"own", lane=Lane.BACKGROUND),
        bench.submit(b"explain", lane=Lane.EXPLAIN),
    ]
    await until(lambda: bench.scheduler.waiting == 1)
    jobs.append(bench.submit(b"classify"))
    await bench.settled(2)
    bench.gate.set()
    await asyncio.gather(first, *jobs)
    assert bench.batches[1:] == [[b"classify"], [b"explain"], [b"own"]]


async def test_the_servers_own_work_ends_on_a_server_that_is_never_idle() -> None:
    bench = Bench(max_batch_size=1)
    own = bench.submit(b"own", lane=Lane.BACKGROUND)
    callers = [bench.submit(b"x") for _ in range(60)]
    await asyncio.gather(own, *callers)
    assert bench.batches.index([b"own"]) <= 17


async def test_jobs_of_two_models_never_share_a_batch() -> None:
    bench = Bench()
    other = Task(served=Served.of(StubClassifier()))
    first = await bench.busy()
    jobs = [bench.submit(b"a"), bench.submit(b"b", task=other), bench.submit(b"c")]
    await bench.settled(3)
    bench.gate.set()
    await asyncio.gather(first, *jobs)
    assert bench.batches[1:] == [[b"a", b"c"], [b"b"]]


async def test_an_expired_job_leaves_the_queue_and_is_never_computed() -> None:
    bench = Bench()
    first = await bench.busy()
    late = bench.submit(b"late", timeout_s=0.05)
    await bench.settled(1)
    with pytest.raises(ExpiredError, match=r"in the queue; the image was not computed"):
        await late
    assert bench.scheduler.waiting == 0
    bench.gate.set()
    await first
    await bench.submit(b"next")
    assert [b"late"] not in bench.batches
    assert bench.monitor.registry.get_sample_value("ibinn_computed_expired_total") == 0


async def test_a_job_that_expires_while_it_is_computed_is_told_so() -> None:
    bench = Bench()
    bench.gate.clear()
    job = bench.submit(b"a", timeout_s=0.05)
    with pytest.raises(ExpiredError, match="no answer within"):
        await job
    bench.gate.set()


async def test_a_cancelled_job_leaves_the_queue() -> None:
    bench = Bench()
    first = await bench.busy()
    gone = bench.submit(b"gone")
    await bench.settled(1)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert bench.scheduler.waiting == 0
    bench.gate.set()
    await first
    assert bench.batches == [[b"first"]]
    assert bench.scheduler.pending == 0


async def test_a_full_server_refuses_with_advice_when_to_come_back() -> None:
    bench = Bench(max_pending=3)
    first = await bench.busy()
    others = [bench.submit(b"x") for _ in range(2)]
    await bench.settled(2)
    with pytest.raises(QueueFullError, match="3 requests are pending") as caught:
        await bench.submit(b"x")
    assert 0 < caught.value.retry_after_s <= 30
    bench.gate.set()
    await asyncio.gather(first, *others)


async def test_a_full_server_makes_room_for_a_caller_with_fewer_requests() -> None:
    bench = Bench(max_pending=4)
    first = await bench.busy()
    greedy = [bench.submit(bytes([number]), caller="greedy") for number in range(3)]
    await bench.settled(3)
    modest = bench.submit(b"modest", caller="modest")
    with pytest.raises(QueueFullError, match="made room for a caller with fewer requests"):
        await greedy[-1]
    bench.gate.set()
    outcomes = await asyncio.gather(first, modest, *greedy[:-1])
    assert all(isinstance(outcome.value, bytes) for outcome in outcomes)


async def test_a_full_server_gives_up_explain_before_classify() -> None:
    bench = Bench(max_pending=3)
    first = await bench.busy()
    explain = bench.submit(b"explain", lane=Lane.EXPLAIN, caller="other")
    classify = bench.submit(b"classify")
    await bench.settled(2)
    newcomer = bench.submit(b"newcomer")
    with pytest.raises(QueueFullError, match="made room for Classify requests"):
        await explain
    bench.gate.set()
    await asyncio.gather(first, classify, newcomer)


async def test_explain_has_a_limit_of_its_own() -> None:
    bench = Bench(max_explain_pending=1)
    first = await bench.busy()
    explain = bench.submit(b"explain", lane=Lane.EXPLAIN)
    await bench.settled(1)
    with pytest.raises(QueueFullError, match="IBINN_MAX_EXPLAIN_PENDING"):
        await bench.submit(b"explain", lane=Lane.EXPLAIN)
    bench.gate.set()
    await asyncio.gather(first, explain)


async def test_a_request_that_would_be_answered_too_late_is_refused_at_once() -> None:
    bench = Bench(max_batch_size=1)
    bench.compute_s = 0.05
    await bench.submit(b"learn")
    first = await bench.busy()
    others = [bench.submit(b"x") for _ in range(10)]
    await until(lambda: bench.scheduler.pending == 11)
    with pytest.raises(QueueFullError, match=r"would take about .* has only") as caught:
        await bench.submit(b"x", timeout_s=0.2)
    assert caught.value.retry_after_s > 0.1
    patient = bench.submit(b"x", timeout_s=PATIENCE_S)
    bench.compute_s = 0
    bench.gate.set()
    await asyncio.gather(first, patient, *others)


async def test_one_image_that_cannot_be_decoded_fails_alone() -> None:
    bench = Bench()
    bench.decoders.gate.clear()
    jobs = [bench.submit(image) for image in (b"x", b"y", b"a", b"bad", b"b", b"c")]
    await until(lambda: bench.scheduler.pending == 6)
    bench.decoders.gate.set()
    done = await asyncio.gather(*jobs, return_exceptions=True)
    assert [isinstance(found, ImageDecodeError) for found in done] == [
        image == b"bad" for image in (b"x", b"y", b"a", b"bad", b"b", b"c")
    ]


async def test_a_failing_batch_fails_its_images_and_the_next_one_is_computed() -> None:
    bench = Bench()
    bench.error = ValueError("broken")
    with pytest.raises(ValueError, match="broken"):
        await bench.submit(b"a")
    bench.error = None
    assert (await bench.submit(b"b")).value == b"b"
    assert bench.scheduler.pending == 0


async def test_decoding_runs_ahead_by_two_batches_at_most() -> None:
    bench = Bench()
    first = await bench.busy()
    others = [bench.submit(b"x") for _ in range(40)]
    await bench.settled(8)
    for _ in range(20):
        await asyncio.sleep(0)
    assert bench.scheduler.waiting == 8
    bench.gate.set()
    await asyncio.gather(first, *others)


async def test_a_busy_server_waits_for_the_callers_that_were_just_answered() -> None:
    bench = Bench(max_batch_size=8, max_batch_wait_s=0.02)
    bench.compute_s = 0.02

    async def caller() -> None:
        for _ in range(10):
            await bench.submit(b"x")

    await asyncio.gather(*(caller() for _ in range(4)))
    sizes = [len(batch) for batch in bench.batches]
    assert sum(sizes) == 40
    assert len(sizes) <= 16, "callers that come back together share a batch"


async def test_where_the_time_went_adds_up() -> None:
    bench = Bench()
    bench.compute_s = 0.02
    start = time.monotonic()
    outcome = await bench.submit(b"a")
    total_s = time.monotonic() - start
    assert outcome.compute_s >= 0.019
    parts = outcome.prepare_s + outcome.queue_s + outcome.compute_s
    assert parts <= total_s + 1e-6
    assert math.isfinite(parts)
    assert dataclasses.asdict(outcome)["batch_size"] == 1


async def test_an_image_whose_decoding_outlasts_its_deadline_is_told_so_in_time() -> None:
    bench = Bench()
    bench.decoders.gate.clear()
    start = time.monotonic()
    with pytest.raises(ExpiredError):
        await bench.submit(b"slow", timeout_s=0.05)
    assert time.monotonic() - start < 5
    bench.decoders.gate.set()
    assert (await bench.submit(b"next")).value == b"next"
    assert bench.scheduler.pending == 0


async def test_a_caller_that_leaves_while_its_image_is_decoded_is_let_go() -> None:
    bench = Bench()
    bench.decoders.gate.clear()
    job = bench.submit(b"slow")
    await until(lambda: bench.decoders.frames == [1])
    job.cancel()
    done = await asyncio.gather(job, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    bench.decoders.gate.set()
    assert (await bench.submit(b"next")).value == b"next"


async def test_explain_that_waits_does_not_keep_classify_from_its_decoder() -> None:
    bench = Bench(max_batch_size=2)
    first = await bench.busy()
    explains = [bench.submit(b"e", lane=Lane.EXPLAIN) for _ in range(6)]
    await bench.settled(4)  # as many as are decoded ahead
    classifies = [bench.submit(b"c") for _ in range(2)]
    await bench.settled(6)
    bench.gate.set()
    await asyncio.gather(first, *explains, *classifies)
    assert bench.batches[1] == [b"c", b"c"]
