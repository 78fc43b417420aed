"""Requests that wait together are computed together; what is not worth computing is not."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest

from ibinn.errors import ExpiredError
from service.batcher import Batcher


class Compute:
    """Doubles its items once the gate is open; remembers every batch."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, key: str, items: Sequence[int]) -> list[int]:
        self.batches.append((key, list(items)))
        await self.gate.wait()
        if key == "broken":
            raise ValueError("broken")
        return [2 * item for item in items]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def submit(
    batcher: Batcher[str, int, int], key: str, item: int, *, deadline: float = math.inf
) -> asyncio.Task[int]:
    async def value() -> int:
        return (await batcher.submit(key, item, deadline=deadline)).value

    return asyncio.create_task(value())


async def spin() -> None:
    """Lets every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_lone_item_is_computed_at_once() -> None:
    compute = Compute()
    outcome = await Batcher(compute, max_batch_size=4).submit("a", 21, deadline=math.inf)
    assert (outcome.value, outcome.batch_size) == (42, 1)


async def test_items_that_wait_together_are_computed_together() -> None:
    compute = Compute()
    batcher = Batcher(compute, max_batch_size=4)
    compute.gate.clear()
    first = submit(batcher, "a", 0)
    await spin()
    others = [submit(batcher, "a", item) for item in range(1, 10)]
    await spin()
    assert batcher.waiting == 9
    compute.gate.set()
    assert await asyncio.gather(first, *others) == [2 * item for item in range(10)]
    assert [items for _, items in compute.batches] == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9]]


async def test_items_of_different_kinds_do_not_share_a_batch_and_the_oldest_goes_first() -> None:
    compute = Compute()
    batcher = Batcher(compute, max_batch_size=4)
    compute.gate.clear()
    tasks = [submit(batcher, "a", 0)]
    await spin()
    tasks += [submit(batcher, key, item) for item, key in enumerate("bababa", start=1)]
    await spin()
    compute.gate.set()
    await asyncio.gather(*tasks)
    assert compute.batches == [("a", [0]), ("b", [1, 3, 5]), ("a", [2, 4, 6])]


async def test_expired_item_is_not_computed() -> None:
    compute, clock = Compute(), Clock()
    batcher = Batcher(compute, max_batch_size=4, clock=clock)
    compute.gate.clear()
    first = submit(batcher, "a", 0)
    await spin()
    late, patient = submit(batcher, "a", 1, deadline=5), submit(batcher, "a", 2, deadline=50)
    await spin()
    clock.now = 5.0
    compute.gate.set()
    assert await asyncio.gather(first, patient) == [0, 4]
    with pytest.raises(ExpiredError, match=r"5\.00 s in the queue"):
        await late
    assert compute.batches == [("a", [0]), ("a", [2])]


async def test_cancelled_item_leaves_the_queue_at_once() -> None:
    compute = Compute()
    batcher = Batcher(compute, max_batch_size=4)
    compute.gate.clear()
    first = submit(batcher, "a", 0)
    await spin()
    second = submit(batcher, "a", 1)
    await spin()
    second.cancel()
    await spin()
    assert batcher.waiting == 0
    compute.gate.set()
    await first
    assert compute.batches == [("a", [0])]


async def test_item_cancelled_while_it_is_computed_does_not_disturb_its_batch() -> None:
    compute = Compute()
    batcher = Batcher(compute, max_batch_size=4)
    compute.gate.clear()
    tasks = [submit(batcher, "a", item) for item in range(3)]
    await spin()
    tasks[1].cancel()
    await spin()
    compute.gate.set()
    assert await tasks[0] == 0
    assert await tasks[2] == 4
    assert tasks[1].cancelled()


async def test_failure_reaches_every_item_of_its_batch_and_no_other() -> None:
    batcher = Batcher(Compute(), max_batch_size=4)
    broken = [submit(batcher, "broken", item) for item in range(2)]
    whole = submit(batcher, "a", 1)
    for task in broken:
        with pytest.raises(ValueError, match="broken"):
            await task
    assert await whole == 2


async def test_compute_that_returns_too_few_results_fails_its_items() -> None:
    async def compute(key: str, items: Sequence[int]) -> list[int]:
        return []

    with pytest.raises(RuntimeError, match="0 results for 1 items"):
        await Batcher(compute, max_batch_size=4).submit("a", 1, deadline=math.inf)


async def test_batches_are_reported_with_size_and_time() -> None:
    clock, reported = Clock(), []

    async def compute(key: str, items: Sequence[int]) -> list[int]:
        clock.now += 2.0
        return list(items)

    batcher = Batcher(
        compute,
        max_batch_size=4,
        clock=clock,
        on_batch=lambda size, seconds: reported.append((size, seconds)),
    )
    await asyncio.gather(*(submit(batcher, "a", item) for item in range(6)))
    assert reported == [(4, 2.0), (2, 2.0)]
    assert batcher.seconds_for(8) == 4.0


async def test_waiting_time_is_measured() -> None:
    clock = Clock()

    async def compute(key: str, items: Sequence[int]) -> list[int]:
        clock.now += 2.0
        return list(items)

    batcher = Batcher(compute, max_batch_size=1, clock=clock)
    outcomes = await asyncio.gather(
        *(batcher.submit("a", item, deadline=math.inf) for item in range(3))
    )
    assert [outcome.queue_s for outcome in outcomes] == [0.0, 2.0, 4.0]
    assert [outcome.compute_s for outcome in outcomes] == [2.0, 2.0, 2.0]
