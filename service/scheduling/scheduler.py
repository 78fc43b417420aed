"""From admitted images to answers: decoded ahead, joined into batches, computed one at a time.

    admission -> encoded (a fair queue for each lane) -> decoders -> ready (likewise) -> batches

An image that expires or whose caller hangs up leaves whichever queue it is in. One batch is
computed at a time; Classify goes before Explain, both before the server's own work, which gets
every sixteenth batch so that it ends.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ibinn.errors import ExpiredError
from ibinn.types import Explanation, Prediction
from service.monitoring import Monitor
from service.scheduling.admission import Delay, Limits, cautious_s, full, predicted_wait_s
from service.scheduling.cost import BatchCost
from service.scheduling.fair_queue import FairQueue
from service.scheduling.job import Job, Lane, Outcome, Task

if TYPE_CHECKING:
    from ibinn.images import PreparedImage
    from service.decoding.decoders import Decoders

Answer = Prediction | Explanation
Done = Callable[[Sequence[Answer] | None, Exception | None], None]
Compute = Callable[[Task, Sequence["PreparedImage"], Done], None]

_FRAME = 16
"""Most images that one decoder is given at once."""
_BACKGROUND_EVERY = 16
"""At least one of so many batches is the server's own work, if there is some."""
_WORTH_A_WAIT = 0.5
"""Images that waits must have gained on average to be taken at every chance."""
_PROBE_EVERY = 16
_UP_TO = {lane: tuple(Lane)[: number + 1] for number, lane in enumerate(Lane)}
"""The lanes that go before each lane, and itself."""


class Scheduler:
    """Takes images on, decodes them, joins them into batches, hands out answers.

    Args:
        decoders: Decode.
        compute: Begins to compute one answer for each prepared image, in order, and calls back
            in the event loop with them. An exception is the outcome of every image of the batch.
        limits: What bounds it.
        monitor: Counts.
        clock: Monotonic seconds, the event loop's.
    """

    def __init__(
        self,
        decoders: Decoders,
        compute: Compute,
        *,
        limits: Limits,
        monitor: Monitor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._decoders = decoders
        self._compute = compute
        self._limits = limits
        self._monitor = monitor
        self._clock = clock
        self._encoded = {lane: FairQueue[Job](_caller_of) for lane in Lane}
        self._ready = {lane: FairQueue[Job](_caller_of) for lane in Lane}
        self._pending: Counter[Lane] = Counter(dict.fromkeys(Lane, 0))
        self._cost = {lane: BatchCost() for lane in Lane}
        self._tasks: set[asyncio.Task[None]] = set()
        self._computing = False
        self._hold: _Hold | None = None
        self._held = False
        self._inside = 0
        self._undecoded = 0
        self._frames = 0
        self._decoding = 0
        self._decode_each_s = 0.0
        self._expected = 0
        self._last_end = -math.inf
        self._computing_until = -math.inf
        self._since_background = 0
        self._gain = 1.0
        self._chances = 0
        # One lane does not tell of another: Explain waits for every Classify that comes later.
        self._delay = {lane: Delay() for lane in Lane}

    @property
    def pending(self) -> int:
        """Number of callers' images being decoded, waiting and being computed."""
        return self._pending[Lane.CLASSIFY] + self._pending[Lane.EXPLAIN]

    @property
    def waiting(self) -> int:
        """Number of callers' images that are in no batch yet and decoded."""
        return len(self._ready[Lane.CLASSIFY]) + len(self._ready[Lane.EXPLAIN])

    async def submit(self, job: Job) -> Outcome:
        """Waits for the job's outcome.

        Raises:
            QueueFullError: There is no room, it would be answered too late, or it made room for
                another caller.
            ExpiredError: The deadline passed.
            ImageError: The image cannot be decoded.
        """
        self._admit(job)
        self._pending[job.lane] += 1
        self._inside += 1
        timer = asyncio.get_running_loop().call_at(job.deadline, self._expire, job)
        try:
            if job.prepared is not None:
                self._make_ready(job)
            elif self._frames or self._undecoded or self._room_ahead(job.lane) <= 0:
                self._encoded[job.lane].push(job)
                self._undecoded += 1
                self._pump_decoding()
            else:  # nobody to share a frame with: without a task of its own
                await self._decode_alone(job)
            return await job.future
        except BaseException:
            self._withdraw(job)
            raise
        finally:
            timer.cancel()
            self._pending[job.lane] -= 1
            self._inside -= 1

    # ------------------------------------------------------------------------------- admission

    def _admit(self, job: Job) -> None:
        now = self._clock()
        if job.deadline <= now:
            raise ExpiredError("the time for this request had run out when it arrived")
        limits, lane = self._limits, job.lane
        job.predicted_s = self._predicted_wait_s(job, now)
        alone_s = min(self._cost[lane].seconds(1), job.predicted_s)
        wait_s = cautious_s(job.predicted_s, alone_s=alone_s, factor=self._delay[lane].factor(now))
        if now + wait_s > job.deadline:
            raise full(
                f"an answer would take about {wait_s:.2f} s, but the request has only "
                f"{job.deadline - now:.2f} s left; try again later or allow more time",
                wait_s=wait_s - (job.deadline - now),
            )
        if lane is Lane.BACKGROUND:
            busy = self.pending >= max(1, limits.max_pending // 2)
            if busy or self._pending[lane] >= limits.max_background_pending:
                raise full("the server has no room for work of its own", wait_s=wait_s)
            return
        if lane is Lane.EXPLAIN and self._pending[lane] >= limits.max_explain_pending:
            raise full(
                f"{self._pending[lane]} Explain requests are pending, the limit of this server "
                "(IBINN_MAX_EXPLAIN_PENDING); try again later",
                wait_s=wait_s,
            )
        if self.pending >= limits.max_pending and not self._make_room(job):
            raise full(
                f"{self.pending} requests are pending, the limit of this server "
                "(IBINN_MAX_PENDING); try again later",
                wait_s=wait_s,
            )

    def _predicted_wait_s(self, job: Job, now: float) -> float:
        cost = self._cost[job.lane]
        if not self._inside:
            return self._decode_each_s + cost.seconds(1)
        before = _UP_TO[job.lane]
        encoded = sum(len(self._encoded[lane]) for lane in before)
        ready = sum(len(self._ready[lane]) for lane in before)
        small = job.lane is not Lane.CLASSIFY
        own = self._encoded[job.lane], self._ready[job.lane]
        return predicted_wait_s(
            ahead=encoded + self._decoding + ready,
            own=sum(queue.count(job.caller) for queue in own),
            callers=max(queue.callers for queue in own) + (0 if job.lane is Lane.CLASSIFY else 1),
            batch_size=self._limits.small_batch_size if small else self._limits.max_batch_size,
            cost=cost,
            running_s=max(0.0, self._computing_until - now),
            decode_s=self._decode_each_s * (encoded + 1) / max(1, self._decoders.slots),
        )

    def _make_room(self, job: Job) -> bool:
        """Gives up a waiting request for this one, if it is more entitled."""
        victim: Job | None = None
        if job.lane is Lane.CLASSIFY:
            victim = self._newest_of_heaviest(Lane.EXPLAIN)
        if victim is None:
            heaviest = self._newest_of_heaviest(job.lane)
            if heaviest is not None:
                theirs = self._waiting_of(job.lane, heaviest.caller)
                if theirs > self._waiting_of(job.lane, job.caller) + 1:
                    victim = heaviest
        if victim is None:
            return False
        self._withdraw(victim)
        _fail(
            victim,
            full(
                "the server is full, and this request made room for "
                + (
                    "Classify requests"
                    if victim.lane is not job.lane
                    else "a caller with fewer requests"
                )
                + "; try again later",
                wait_s=self._cost[victim.lane].seconds(self._limits.max_batch_size),
            ),
        )
        return True

    def _newest_of_heaviest(self, lane: Lane) -> Job | None:
        counts: Counter[str] = Counter()
        for queue in (self._ready[lane], self._encoded[lane]):
            counts.update(job.caller for job in queue)
        if not counts:
            return None
        caller = counts.most_common(1)[0][0]
        jobs = [
            job
            for queue in (self._encoded[lane], self._ready[lane])
            for job in queue
            if job.caller == caller
        ]
        return max(jobs, key=lambda job: job.arrived)

    def _waiting_of(self, lane: Lane, caller: str) -> int:
        return self._encoded[lane].count(caller) + self._ready[lane].count(caller)

    def _withdraw(self, job: Job) -> None:
        if self._encoded[job.lane].remove(job):
            self._undecoded -= 1
        else:
            self._ready[job.lane].remove(job)

    def _expire(self, job: Job) -> None:
        if job.decoder is not None:
            decoder, job.decoder = job.decoder, None
            decoder.cancel()
        now = self._clock()
        waited_s = now - job.arrived
        self._delay[job.lane].observe(now, actual_s=waited_s, predicted_s=job.predicted_s)
        waiting = self._waiting_of(job.lane, job.caller) and (
            job in self._encoded[job.lane] or job in self._ready[job.lane]
        )
        self._withdraw(job)
        _fail(
            job,
            ExpiredError(
                f"the time for this request ran out after {waited_s:.2f} s in the queue; the image "
                "was not computed; allow more time or try again later"
            )
            if waiting
            else _too_late(waited_s),
        )

    # -------------------------------------------------------------------------------- decoding

    def _room_ahead(self, lane: Lane) -> int:
        """How many more images of a lane may be decoded: two batches are kept ready, no more.

        What is ready of the lanes behind does not count: Explain that waits for Classify must not
        keep Classify from its decoder.
        """
        ready = sum(len(self._ready[before]) for before in _UP_TO[lane])
        return 2 * self._limits.max_batch_size - self._decoding - ready

    def _pump_decoding(self) -> None:
        while self._undecoded and self._frames < self._decoders.slots:
            if not (jobs := self._next_frame()):
                return
            self._take_frame(jobs)
            task = asyncio.create_task(self._decode_frame(jobs), name="ibinn-decode")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next_frame(self) -> list[Job]:
        for lane, queue in self._encoded.items():
            if queue and (room := self._room_ahead(lane)) > 0:
                share = math.ceil(len(queue) / self._decoders.slots)
                jobs = queue.take(min(room, share, _FRAME), _preparer_of)
                self._undecoded -= len(jobs)
                return jobs
        return []

    async def _decode_alone(self, job: Job) -> None:
        task = asyncio.current_task()
        self._take_frame([job])
        job.decoder = task
        try:
            await self._decode_frame([job])
        except asyncio.CancelledError:
            # Of its own timer, or of its caller?
            if job.decoder is not None or task is None or task.uncancel() > 0:
                raise
        finally:
            job.decoder = None

    def _take_frame(self, jobs: list[Job]) -> None:
        self._frames += 1
        self._decoding += len(jobs)

    async def _decode_frame(self, jobs: list[Job]) -> None:
        start = self._clock()
        images = [job.image for job in jobs if job.image is not None]
        found: Sequence[PreparedImage | Exception]
        try:
            found = await self._decoders.prepare(jobs[0].task.served.preparer, images)
        except Exception as error:  # noqa: BLE001 - it belongs to these requests
            found = [error] * len(jobs)
        finally:
            self._frames -= 1
            self._decoding -= len(jobs)
        seconds = self._clock() - start
        self._decode_each_s += 0.1 * (seconds / len(jobs) - self._decode_each_s)
        for job, result in zip(jobs, found, strict=True):
            job.image, job.prepare_s = None, seconds
            if job.future.done():
                continue
            if isinstance(result, Exception):
                job.future.set_exception(result)
            else:
                job.prepared = result
                self._make_ready(job)
        self._pump_decoding()

    # --------------------------------------------------------------------------------- batches

    def _make_ready(self, job: Job) -> None:
        self._ready[job.lane].push(job)
        if self._hold is not None and len(self._ready[Lane.CLASSIFY]) >= self._hold.target:
            self._end_hold()
        self._pump_batches()

    def _pump_batches(self) -> None:
        while not self._computing and self._hold is None:
            lane = self._next_lane()
            if lane is None:
                return
            if lane is Lane.CLASSIFY and self._begin_hold():
                return
            if batch := self._next_batch(lane):
                self._begin_batch(lane, batch)

    def _next_lane(self) -> Lane | None:
        if self._since_background >= _BACKGROUND_EVERY - 1 and self._ready[Lane.BACKGROUND]:
            return Lane.BACKGROUND
        for lane, queue in self._ready.items():
            if queue:
                return lane
        return None

    def _begin_hold(self) -> bool:
        """Waits for more images where that pays: on a busy server, for those just answered.

        Callers that were just answered tend to come back at once; a batch without them would make
        them wait for it, and the next batch as well. The wait is as long as a batch takes before
        its first image and no longer than the limit: an image that comes in time saves a batch of
        its own, one that does not costs at most that much. Where waits gained little of late, only
        every sixteenth chance is taken, to see whether they do again.
        """
        longest_s = self._limits.max_batch_wait_s
        if self._held or self._clock() - self._last_end >= longest_s:
            return False
        count = len(self._ready[Lane.CLASSIFY])
        target = min(self._expected, self._limits.max_batch_size)
        longest_s = min(longest_s, self._cost[Lane.CLASSIFY].fixed_s)
        if count >= target or self._clock() - self._last_end >= longest_s:
            return False
        self._chances += 1
        if self._gain < _WORTH_A_WAIT and self._chances % _PROBE_EVERY:
            return False
        timer = asyncio.get_running_loop().call_later(longest_s, self._hold_over)
        self._hold = _Hold(target=target, count=count, timer=timer)
        return True

    def _end_hold(self) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.timer.cancel()
            gained = len(self._ready[Lane.CLASSIFY]) - hold.count
            self._gain += 0.2 * (gained - self._gain)
            self._held = True

    def _hold_over(self) -> None:
        self._end_hold()
        self._pump_batches()

    def _next_batch(self, lane: Lane) -> list[Job]:
        limits = self._limits
        size = limits.max_batch_size if lane is Lane.CLASSIFY else limits.small_batch_size
        batch = self._ready[lane].take(size, _task_of)
        now = self._clock()
        for job in batch:
            if job.deadline <= now:
                self._expire(job)
        return [job for job in batch if not job.future.done()]

    def _begin_batch(self, lane: Lane, batch: list[Job]) -> None:
        start = self._clock()
        self._computing, self._held = True, False
        self._computing_until = start + self._cost[lane].seconds(len(batch))
        self._since_background = 0 if lane is Lane.BACKGROUND else self._since_background + 1
        if expired := sum(job.deadline <= start for job in batch):
            self._monitor.expired_computed(expired)
        prepared = [job.prepared for job in batch if job.prepared is not None]
        done = functools.partial(self._end_batch, lane, batch, start)
        self._compute(batch[0].task, prepared, done)

    def _end_batch(
        self,
        lane: Lane,
        batch: list[Job],
        start: float,
        values: Sequence[Answer] | None,
        error: Exception | None,
    ) -> None:
        end = self._clock()
        seconds = end - start
        self._computing, self._computing_until = False, end
        if error is None and (values is None or len(values) != len(batch)):
            error = RuntimeError(f"{len(values or ())} results for {len(batch)} images")
        if error is not None:
            for job in batch:
                _fail(job, error)
        else:
            assert values is not None
            self._cost[lane].observe(len(batch), seconds)
            self._monitor.batch(len(batch), seconds, lane.value)
            for job in batch:
                self._delay[lane].observe(
                    end, actual_s=end - job.arrived, predicted_s=job.predicted_s
                )
            for job, value in zip(batch, values, strict=True):
                if not job.future.done():
                    job.future.set_result(
                        Outcome(
                            value=value,
                            prepare_s=job.prepare_s,
                            queue_s=max(0.0, start - job.arrived - job.prepare_s),
                            compute_s=seconds,
                            batch_size=len(batch),
                        )
                    )
        if lane is Lane.CLASSIFY:
            self._expected, self._last_end = len(batch) + len(self._ready[lane]), end
        self._pump_batches()
        self._pump_decoding()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hold:
    """A batch that waits for more images.

    Attributes:
        target: Number of images at which it goes.
        count: Number of images when it began to wait.
        timer: Ends the wait.
    """

    target: int
    count: int
    timer: asyncio.TimerHandle


def _too_late(waited_s: float) -> ExpiredError:
    return ExpiredError(f"no answer within {waited_s:.3g} s; allow more time or try again later")


def _caller_of(job: Job) -> str:
    return job.caller


def _task_of(job: Job) -> object:
    return job.task


def _preparer_of(job: Job) -> object:
    return job.task.served.preparer


def _fail(job: Job, error: Exception) -> None:
    if not job.future.done():
        job.future.set_exception(error)
