"""Many images over one call: read ahead within a window, answered as they are ready.

The window counts images read and not yet handed to gRPC as results. While it is full no message
is read, so gRPC's flow control holds the sender, and a slow reader holds nothing but its window.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from ibinn.errors import NotServingError

Q = TypeVar("Q")
R = TypeVar("R")


async def answered(
    messages: AsyncIterator[list[Q]],
    answer: Callable[[int, Q], Awaitable[R]],
    *,
    window: int,
    stop: asyncio.Event,
) -> AsyncIterator[list[R]]:
    """Results of all requests, in groups, each group what was ready when the last one had left.

    Args:
        messages: Groups of requests. A group is taken as a whole, so that up to a group more
            than the window may be unanswered.
        answer: Makes one result of a request and its position; it does not raise for what is
            wrong with one request.
        window: Number of unanswered requests at which reading pauses.
        stop: Once set, nothing more is read; what was read is answered.

    Raises:
        NotServingError: It was stopped before the requests ended; what was read is answered.
        Exception: What `messages` or `answer` raises; what is unanswered is given up.
    """
    tasks: set[asyncio.Task[R]] = set()
    ready: list[R] = []
    changed = asyncio.Event()
    reading, stopped = True, False
    failure: BaseException | None = None
    position = 0

    def finished(task: asyncio.Task[R]) -> None:
        nonlocal failure
        tasks.discard(task)
        changed.set()
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            failure = failure or error
        else:
            ready.append(task.result())

    async def read() -> None:
        nonlocal position, reading, stopped, failure
        try:
            async for group in messages:
                for request in group:
                    task = asyncio.create_task(_run(answer, position, request))
                    position += 1
                    tasks.add(task)
                    task.add_done_callback(finished)
                while len(tasks) + len(ready) >= window and failure is None:
                    changed.clear()
                    await changed.wait()
        except asyncio.CancelledError:
            stopped = True
        except Exception as error:  # noqa: BLE001 - raised again below, by the one who waits
            failure = failure or error
        finally:
            reading = False
            changed.set()

    async def heed() -> None:
        await stop.wait()
        reader.cancel()

    reader = asyncio.create_task(read(), name="ibinn-stream-read")
    heeding = asyncio.create_task(heed(), name="ibinn-stream-stop")
    try:
        while reading or tasks or ready:
            if failure is not None:
                raise failure
            if ready:
                group, ready[:] = list(ready), []
                yield group
                changed.set()  # there is room again
                # Lets results that are ready at the same time leave together.
                await asyncio.sleep(0)
            else:
                changed.clear()
                if not (ready or failure) and (reading or tasks):
                    await changed.wait()
        if failure is not None:
            raise failure
        if stopped:
            raise NotServingError("the server is stopping; send the other images to another one")
    finally:
        heeding.cancel()
        reader.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(reader, heeding, *tasks, return_exceptions=True)


async def _run(answer: Callable[[int, Q], Awaitable[R]], position: int, request: Q) -> R:
    return await answer(position, request)
