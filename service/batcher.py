"""Requests that wait together are computed together.

While one batch is being computed, requests queue; when it is done, the oldest one and every
other request of its kind, up to the batch limit, make the next batch. An idle server therefore
computes a lone request at once, and a busy one fills its batches, without a timer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ibinn.errors import ExpiredError

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[R]):
    """What became of one item.

    Attributes:
        value: The item's result.
        queue_s: Seconds it waited for its batch.
        compute_s: Seconds its batch took.
        batch_size: Number of items in its batch.
    """

    value: R
    queue_s: float
    compute_s: float
    batch_size: int


@dataclass(slots=True, kw_only=True, eq=False)
class _Entry(Generic[K, T, R]):
    key: K
    item: T
    deadline: float
    since: float
    future: asyncio.Future[Outcome[R]]


class Batcher(Generic[K, T, R]):
    """Joins items of equal key into batches; one batch is computed at a time.

    Args:
        compute: Maps a key and its items to as many results, in order. An exception is the
            result of every item in the batch.
        max_batch_size: Largest number of items in a batch.
        on_batch: Called with size and seconds of each computed batch.
        clock: Monotonic seconds.

    The queue itself has no limit: the caller bounds the number of items that it submits
    (`service.predictor` counts them from before the image is decoded).
    """

    def __init__(
        self,
        compute: Callable[[K, Sequence[T]], Awaitable[Sequence[R]]],
        *,
        max_batch_size: int,
        on_batch: Callable[[int, float], None] = lambda size, seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._compute = compute
        self._max_batch_size = max_batch_size
        self._on_batch = on_batch
        self._clock = clock
        self._waiting: list[_Entry[K, T, R]] = []
        self._pump: asyncio.Task[None] | None = None
        self._last_compute_s = 0.0

    @property
    def waiting(self) -> int:
        """Number of items that are in no batch yet."""
        return len(self._waiting)

    def seconds_for(self, items: int) -> float:
        """Estimated seconds to compute that many items, from the last batch."""
        return self._last_compute_s * items / self._max_batch_size

    async def submit(self, key: K, item: T, *, deadline: float) -> Outcome[R]:
        """Waits for the item's result.

        A caller that is cancelled while the item waits takes it out of the queue.

        Args:
            key: Items of equal key may share a batch.
            item: What to compute.
            deadline: The clock's time after which the item is not worth computing.

        Raises:
            ExpiredError: The deadline passed before the item's batch was made.
        """
        future: asyncio.Future[Outcome[R]] = asyncio.get_running_loop().create_future()
        entry = _Entry(key=key, item=item, deadline=deadline, since=self._clock(), future=future)
        self._waiting.append(entry)
        if self._pump is None:
            self._pump = asyncio.create_task(self._run(), name="ibinn-batcher")
        try:
            return await future
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)

    async def _run(self) -> None:
        try:
            while batch := self._next_batch():
                await self._compute_batch(batch)
        finally:
            self._pump = None

    def _next_batch(self) -> list[_Entry[K, T, R]]:
        self._drop_expired()
        if not self._waiting:
            return []
        key = self._waiting[0].key
        batch = [entry for entry in self._waiting if entry.key == key][: self._max_batch_size]
        chosen = set(map(id, batch))
        self._waiting = [entry for entry in self._waiting if id(entry) not in chosen]
        return batch

    def _drop_expired(self) -> None:
        now = self._clock()
        for entry in self._waiting:
            if entry.deadline <= now and not entry.future.done():
                waited_s = now - entry.since
                entry.future.set_exception(
                    ExpiredError(
                        f"the time for this request ran out after {waited_s:.2f} s in the "
                        "queue; the image was not computed"
                    )
                )
        self._waiting = [entry for entry in self._waiting if not entry.future.done()]

    async def _compute_batch(self, batch: list[_Entry[K, T, R]]) -> None:
        start = self._clock()
        try:
            values = await self._compute(batch[0].key, [entry.item for entry in batch])
            if len(values) != len(batch):
                raise RuntimeError(f"{len(values)} results for {len(batch)} items")
        except Exception as error:  # noqa: BLE001 - it belongs to the requests, not to the loop
            for entry in batch:
                if not entry.future.done():
                    entry.future.set_exception(error)
            return
        compute_s = self._clock() - start
        self._last_compute_s = compute_s
        self._on_batch(len(batch), compute_s)
        for entry, value in zip(batch, values, strict=True):
            if not entry.future.done():
                entry.future.set_result(
                    Outcome(
                        value=value,
                        queue_s=start - entry.since,
                        compute_s=compute_s,
                        batch_size=len(batch),
                    )
                )
