"""Streams: every request gets its result, within a window, and a stream ends in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from ibinn.errors import NotServingError
from service.streaming import answered

PATIENCE_S = 30.0


class Network:
    """Answers with the request's square once its gate is open; counts what it is at."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.started: list[int] = []
        self.running = 0
        self.most = 0

    async def answer(self, index: int, request: int) -> tuple[int, int]:
        self.started.append(request)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
            if request < 0:
                raise ValueError(f"broken by {request}")
            return index, request * request
        finally:
            self.running -= 1


async def groups_of(*groups: list[int]) -> AsyncIterator[list[int]]:
    for group in groups:
        yield group


async def endless(started: list[int]) -> AsyncIterator[list[int]]:
    for number in range(1_000_000):
        started.append(number)
        yield [number]


async def all_of(results: AsyncIterator[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    return [result async for group in results for result in group]


async def test_every_request_gets_one_result_with_its_position() -> None:
    network = Network()
    groups = groups_of([1, 2, 3], [4], [5, 6])
    found = await all_of(answered(groups, network.answer, window=4, stop=asyncio.Event()))
    assert sorted(found) == [(i, (i + 1) ** 2) for i in range(6)]


async def test_results_that_are_ready_together_leave_together() -> None:
    network = Network()
    groups = groups_of(list(range(16)))
    sizes = [
        len(group)
        async for group in answered(groups, network.answer, window=64, stop=asyncio.Event())
    ]
    assert sum(sizes) == 16
    assert len(sizes) <= 3


async def test_no_more_is_read_than_the_window_holds_until_results_are_taken() -> None:
    network = Network()
    read: list[int] = []
    results = answered(endless(read), network.answer, window=8, stop=asyncio.Event())
    await anext(results)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(read) <= 8 + 8, "a reader that takes nothing holds a window and what it was given"
    await results.aclose()  # type: ignore[attr-defined]
    assert network.running == 0


async def test_a_slow_network_is_not_flooded() -> None:
    network = Network()
    network.gate.clear()
    read: list[int] = []
    task = asyncio.create_task(
        anext(answered(endless(read), network.answer, window=8, stop=asyncio.Event()))
    )
    for _ in range(100):
        await asyncio.sleep(0)
    assert network.running == 8
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_leaving_early_gives_up_what_is_unanswered() -> None:
    network = Network()
    network.gate.clear()
    task = asyncio.create_task(
        all_of(answered(groups_of([1, 2, 3]), network.answer, window=8, stop=asyncio.Event()))
    )
    async with asyncio.timeout(PATIENCE_S):
        while network.running < 3:
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert network.running == 0


async def test_a_stopping_server_answers_what_it_read_and_says_that_it_stops() -> None:
    network, stop = Network(), asyncio.Event()
    network.gate.clear()

    async def waiting_after_three() -> AsyncIterator[list[int]]:
        yield [1, 2, 3]
        await asyncio.Event().wait()

    found = []

    async def take() -> None:
        results = answered(waiting_after_three(), network.answer, window=8, stop=stop)
        async for group in results:
            found.extend(group)

    task = asyncio.create_task(take())
    async with asyncio.timeout(PATIENCE_S):
        while network.running < 3:
            await asyncio.sleep(0)
        stop.set()
        network.gate.set()
        with pytest.raises(NotServingError, match="stopping"):
            await task
    assert sorted(found) == [(0, 1), (1, 4), (2, 9)]


async def test_a_fault_of_reading_or_answering_ends_the_stream_with_it() -> None:
    async def torn() -> AsyncIterator[list[int]]:
        yield [1]
        raise ConnectionError("torn")

    with pytest.raises(ConnectionError, match="torn"):
        await all_of(answered(torn(), Network().answer, window=4, stop=asyncio.Event()))
    groups = groups_of([1, -1])
    with pytest.raises(ValueError, match="broken by -1"):
        await all_of(answered(groups, Network().answer, window=4, stop=asyncio.Event()))


async def test_an_empty_stream_ends_at_once() -> None:
    assert (
        await all_of(answered(groups_of(), Network().answer, window=4, stop=asyncio.Event())) == []
    )
