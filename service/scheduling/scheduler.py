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
from typing import TYPE_CHECKING

from ibinn.errors import ExpiredError
from ibinn.types import Explanation, Prediction
from service.monitoring import Monitor
from service.scheduling.admission import Delay, Limits, cautious_s, full, predicted_wait_s
from service.scheduling.cost import BatchCost
from service.scheduling.hold import Holding
from service.scheduling.job import Job, Lane, Outcome, Task
from service.scheduling.lanes import Lanes

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
        self._lanes = Lanes()
        self._holding = Holding(longest_s=limits.max_batch_wait_s, most=limits.max_batch_size)
        self._pending: Counter[Lane] = Counter(dict.fromkeys(Lane, 0))
        self._cost = {lane: BatchCost() for lane in Lane}
        self._tasks: set[asyncio.Task[None]] = set()
        self._computing = False
        self._hold: asyncio.TimerHandle | None = None
        """Ends the wait of a batch for more images."""
        self._held, self._held_with = False, 0
        self._inside = 0
        self._frames = 0
        self._decoding = 0
        self._decode_each_s = 0.0
        self._computing_until = -math.inf
        self._since_background = 0
        # One lane does not tell of another: Explain waits for every Classify that comes later.
        self._delay = {lane: Delay() for lane in Lane}

    @property
    def pending(self) -> int:
        """Number of callers' images being decoded, waiting and being computed."""
        return self._pending[Lane.CLASSIFY] + self._pending[Lane.EXPLAIN]

    @property
    def waiting(self) -> int:
        """Number of callers' images that are in no batch yet and decoded."""
        return self._lanes.ready_up_to(Lane.EXPLAIN)

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
            elif self._frames or self._lanes.undecoded or self._room_ahead(job.lane) <= 0:
                self._lanes.push_encoded(job)
                self._pump_decoding()
            else:  # nobody to share a frame with: without a task of its own
                await self._decode_alone(job)
            return await job.future
        except BaseException:
            self._lanes.withdraw(job)
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
        lanes = self._lanes
        encoded = lanes.encoded_up_to(job.lane)
        small = job.lane is not Lane.CLASSIFY
        own = lanes.encoded[job.lane], lanes.ready[job.lane]
        return predicted_wait_s(
            ahead=encoded + self._decoding + lanes.ready_up_to(job.lane),
            own=lanes.waiting_of(job.lane, job.caller),
            callers=max(queue.callers for queue in own) + (0 if job.lane is Lane.CLASSIFY else 1),
            batch_size=self._limits.small_batch_size if small else self._limits.max_batch_size,
            cost=cost,
            running_s=max(0.0, self._computing_until - now),
            decode_s=self._decode_each_s * (encoded + 1) / max(1, self._decoders.slots),
        )

    def _make_room(self, job: Job) -> bool:
        """Gives up a waiting request for this one, if it is more entitled."""
        lanes = self._lanes
        victim: Job | None = None
        if job.lane is Lane.CLASSIFY:
            victim = lanes.newest_of_heaviest(Lane.EXPLAIN)
        if victim is None:
            heaviest = lanes.newest_of_heaviest(job.lane)
            if heaviest is not None:
                theirs = lanes.waiting_of(job.lane, heaviest.caller)
                if theirs > lanes.waiting_of(job.lane, job.caller) + 1:
                    victim = heaviest
        if victim is None:
            return False
        lanes.withdraw(victim)
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

    def _expire(self, job: Job) -> None:
        if job.decoder is not None:
            decoder, job.decoder = job.decoder, None
            decoder.cancel()
        now = self._clock()
        waited_s = now - job.arrived
        self._delay[job.lane].observe(now, actual_s=waited_s, predicted_s=job.predicted_s)
        waiting = self._lanes.withdraw(job)
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
        ready = self._lanes.ready_up_to(lane)
        return 2 * self._limits.max_batch_size - self._decoding - ready

    def _pump_decoding(self) -> None:
        while self._lanes.undecoded and self._frames < self._decoders.slots:
            if not (jobs := self._next_frame()):
                return
            self._take_frame(jobs)
            task = asyncio.create_task(self._decode_frame(jobs), name="ibinn-decode")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next_frame(self) -> list[Job]:
        for lane, queue in self._lanes.encoded.items():
            if queue and (room := self._room_ahead(lane)) > 0:
                share = math.ceil(len(queue) / self._decoders.slots)
                return self._lanes.take_encoded(lane, min(room, share, _FRAME))
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
        self._lanes.push_ready(job)
        if self._hold is not None and self._ready_to_classify >= self._holding.target:
            self._end_hold()
        self._pump_batches()

    @property
    def _ready_to_classify(self) -> int:
        return len(self._lanes.ready[Lane.CLASSIFY])

    def _pump_batches(self) -> None:
        while self._lanes.decoded and not self._computing and self._hold is None:
            lane = self._next_lane()
            if lane is Lane.CLASSIFY and self._begin_hold():
                return
            if batch := self._next_batch(lane):
                self._begin_batch(lane, batch)

    def _next_lane(self) -> Lane:
        ready = self._lanes.ready
        if self._since_background >= _BACKGROUND_EVERY - 1 and ready[Lane.BACKGROUND]:
            return Lane.BACKGROUND
        return next(lane for lane in Lane if ready[lane])

    def _begin_hold(self) -> bool:
        if self._held:
            return False
        ready = self._ready_to_classify
        wait_s = self._holding.wait_s(
            self._clock(), ready=ready, fixed_s=self._cost[Lane.CLASSIFY].fixed_s
        )
        if wait_s <= 0:
            return False
        self._held_with = ready
        self._hold = asyncio.get_running_loop().call_later(wait_s, self._hold_over)
        return True

    def _end_hold(self) -> None:
        if self._hold is not None:
            self._hold.cancel()
            self._hold, self._held = None, True
            self._holding.waited(self._ready_to_classify - self._held_with)

    def _hold_over(self) -> None:
        self._end_hold()
        self._pump_batches()

    def _next_batch(self, lane: Lane) -> list[Job]:
        limits = self._limits
        size = limits.max_batch_size if lane is Lane.CLASSIFY else limits.small_batch_size
        batch = self._lanes.take_ready(lane, size)
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
            self._holding.answered(end, answered=len(batch), ready=self._ready_to_classify)
        self._pump_batches()
        self._pump_decoding()


def _too_late(waited_s: float) -> ExpiredError:
    return ExpiredError(f"no answer within {waited_s:.3g} s; allow more time or try again later")


def _fail(job: Job, error: Exception) -> None:
    if not job.future.done():
        job.future.set_exception(error)
