"""Decoding in processes of its own: what an image does to a decoder stays there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ibinn.errors import ConfigError, ImageError, QueueFullError
from ibinn.images import PreparedImage
from service.decoding.faults import (
    DecoderEndedError,
    Fault,
    FaultCounter,
    blamed,
    stopping,
    was_cancelled,
)
from service.decoding.frames import MAX_IMAGES, Answer, Raised
from service.decoding.parent import DecoderProcess
from service.decoding.restarts import Restarts
from service.models.served import Preparer

_log = logging.getLogger(__name__)

_REQUEST_BYTES = 4 * 2**20
_BYTES_PER_PIXEL = 40
"""Most that decoding takes; measured: 35 for a WebP with alpha, 28 for a PNG with alpha."""
_SPARE_BYTES = 128 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Job:
    """Images that one process prepares at one time."""

    preparer: Preparer
    images: Sequence[bytes]
    answer: asyncio.Future[list[Answer]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class ProcessDecoders:
    """Decodes in child processes; `service.decoding.decoders.Decoders`.

    A process that ends or is too slow is replaced. The images it had are tried again one by one in
    another that serves nobody else, so that only the one at fault is refused; one that was too
    slow by itself is refused at once.

    Args:
        processes: How many.
        timeout_s: Longest time for one image.
        max_pixels: Most pixels of an image; with `max_bytes` it gives the memory of a process.
        max_bytes: Most encoded bytes of an image.
        monitor: Counts processes that ended.
    """

    def __init__(
        self,
        processes: int,
        *,
        timeout_s: float,
        max_pixels: int,
        max_bytes: int,
        monitor: FaultCounter,
    ) -> None:
        self._processes = processes
        self._timeout_s = timeout_s
        self._memory_bytes = _BYTES_PER_PIXEL * max_pixels + 4 * max_bytes + _SPARE_BYTES
        self._monitor = monitor
        self._restarts = Restarts(time.monotonic)
        self._slots: list[asyncio.Task[None]] = []
        self._living = 0
        self._waiting: deque[_Job] = deque()
        self._idle: list[asyncio.Future[_Job | None]] = []
        self._unanswered: set[asyncio.Future[list[Answer]]] = set()
        self._apart: set[asyncio.Task[list[PreparedImage | ImageError]]] = set()
        self._room_apart = asyncio.Semaphore(processes)

    @property
    def slots(self) -> int:
        """Number of processes."""
        return self._processes

    async def start(self) -> None:
        """Starts the processes.

        Raises:
            ConfigError: One did not start.
        """
        starting = [asyncio.create_task(self._started()) for _ in range(self._processes)]
        try:
            children = await asyncio.gather(*starting)
        except BaseException:
            for task in starting:
                task.cancel()
            for child in await asyncio.gather(*starting, return_exceptions=True):
                if isinstance(child, DecoderProcess):
                    await child.end()
            raise
        self._slots = [
            asyncio.create_task(self._slot(child), name=f"ibinn-decode-{number}")
            for number, child in enumerate(children)
        ]

    async def stop(self) -> None:
        """Ends the processes; calls that still wait raise NotServingError."""
        tasks = (*self._slots, *self._apart)
        self._slots = []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._waiting.clear()
        _fail(self._unanswered, stopping())

    async def prepare(
        self, preparer: Preparer, images: Sequence[bytes]
    ) -> list[PreparedImage | ImageError]:
        """The images as the network sees them, or why not, in order.

        Args:
            preparer: A value that can be hashed and pickled; a process unpickles it.
            images: Encoded bytes.

        Raises:
            QueueFullError: Too many processes ended of late; decoding rests.
            NotServingError: Not started, or stopped.
        """
        parts = list(_parts(images))
        if len(parts) == 1:  # the common case does without tasks
            return await self._prepare_part(preparer, parts[0])
        answers = await asyncio.gather(*(self._prepare_part(preparer, part) for part in parts))
        return [answer for part in answers for answer in part]

    async def _prepare_part(
        self, preparer: Preparer, images: Sequence[bytes]
    ) -> list[PreparedImage | ImageError]:
        try:
            return [self._told(answer) for answer in await self._ask(preparer, images)]
        except DecoderEndedError as error:
            if len(images) == 1 and error.fault is Fault.TIMEOUT:
                return [blamed(error.fault, timeout_s=self._timeout_s)]
        again = asyncio.create_task(self._prepare_apart(preparer, images))
        self._apart.add(again)
        again.add_done_callback(self._apart.discard)
        try:
            return await again
        except asyncio.CancelledError:
            if was_cancelled():
                raise
            raise stopping() from None  # `stop` cancelled it

    async def _ask(self, preparer: Preparer, images: Sequence[bytes]) -> list[Answer]:
        """What a process makes of the images.

        Raises:
            DecoderEndedError: It ended before it answered.
        """
        if not self._slots:
            raise stopping()
        if not self._living:
            self._check_rest()
        job = _Job(preparer=preparer, images=images)
        self._unanswered.add(job.answer)
        try:
            self._hand_over(job)
            return await job.answer
        finally:
            self._unanswered.discard(job.answer)

    def _hand_over(self, job: _Job) -> None:
        while self._idle:
            waiter = self._idle.pop()  # the last to be idle has the warmest caches
            if not waiter.done():
                waiter.set_result(job)
                return
        self._waiting.append(job)

    async def _prepare_apart(
        self, preparer: Preparer, images: Sequence[bytes]
    ) -> list[PreparedImage | ImageError]:
        """One by one in a process of their own, which is replaced after each that ends it."""
        answers: list[PreparedImage | ImageError] = []
        child: DecoderProcess | None = None
        async with self._room_apart:
            try:
                for image in images:
                    if child is None:
                        self._check_rest()
                        child = await self._replaced()
                    try:
                        (answer,) = await child.ask(preparer, (image,))
                        answers.append(self._told(answer))
                    except DecoderEndedError as error:
                        self._count(error)
                        answers.append(blamed(error.fault, timeout_s=self._timeout_s))
                        child = None
            finally:
                if child is not None:
                    await child.end()
        return answers

    def _told(self, answer: Answer) -> PreparedImage | ImageError:
        if isinstance(answer, Raised):
            _log.error("a decoder failed on an image: %s", answer.trace)
            self._monitor.decoder_fault(Fault.CRASH)
            return blamed(Fault.CRASH)
        return answer

    # ------------------------------------------------------------------------------ the slots

    async def _slot(self, child: DecoderProcess) -> None:
        """Keeps one process going and feeds it."""
        while True:
            self._living += 1
            try:
                await self._feed(child)
            finally:
                self._living -= 1
                await child.end()
            child = await self._replaced()

    async def _feed(self, child: DecoderProcess) -> None:
        """Gives a process work until it ends."""
        try:
            while (job := await self._next(child)) is not None:
                try:
                    answers = await child.ask(job.preparer, job.images)
                except DecoderEndedError as error:
                    _fail((job.answer,), error)
                    raise
                if not job.answer.done():  # its caller may have left
                    job.answer.set_result(answers)
            raise await child.why_ended()
        except DecoderEndedError as error:
            self._count(error)

    async def _next(self, child: DecoderProcess) -> _Job | None:
        """The next job, or None when the process has ended meanwhile."""
        if child.ended:
            return None
        while self._waiting:
            job = self._waiting.popleft()
            if not job.answer.done():
                return job
        waiter: asyncio.Future[_Job | None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        child.on_end = wake
        self._idle.append(waiter)
        return await waiter

    async def _replaced(self) -> DecoderProcess:
        while True:
            while (rest_s := self._restarts.rest_s()) > 0:
                if not self._living:
                    _fail((job.answer for job in self._waiting), self._rests(rest_s))
                    self._waiting.clear()
                await asyncio.sleep(rest_s)
            try:
                return await self._started()
            except ConfigError as error:
                _log.error("%s", error)
                self._restarts.ended()

    async def _started(self) -> DecoderProcess:
        return await DecoderProcess.start(
            timeout_s=self._timeout_s, memory_bytes=self._memory_bytes
        )

    def _count(self, error: DecoderEndedError) -> None:
        _log.warning("%s; it is replaced", error)
        self._monitor.decoder_fault(error.fault)
        self._restarts.ended()

    def _check_rest(self) -> None:
        if (rest_s := self._restarts.rest_s()) > 0:
            raise self._rests(rest_s)

    @staticmethod
    def _rests(rest_s: float) -> QueueFullError:
        return QueueFullError(
            f"too many images made decoders break down; decoding goes on in {rest_s:.1f} s; try "
            "again then",
            retry_after_s=rest_s,
        )


def _parts(images: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """The images in order, a few at a time."""
    start = size = 0
    for i, image in enumerate(images):
        if i - start == MAX_IMAGES or (i > start and size + len(image) > _REQUEST_BYTES):
            yield images[start:i]
            start, size = i, 0
        size += len(image)
    if images:
        yield images[start:]


def _fail(answers: Iterable[asyncio.Future[list[Answer]]], error: Exception) -> None:
    for answer in tuple(answers):
        if not answer.done():
            answer.set_exception(error)
