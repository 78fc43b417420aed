"""The one thread that runs the networks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

R = TypeVar("R")
Done = Callable[[Any, Exception | None], None]
"""Called in the event loop with the result, or with None and the exception."""


NICENESS = 4
"""Of the threads that compute. Where cores are short, the event loop goes first: it takes little,
and what it does late makes every answer late and every refusal too."""


def _yield_to_others() -> None:
    """Lowers the priority of this thread, and of those that it starts, on Linux."""
    if hasattr(os, "setpriority") and sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


class Worker:
    """Runs functions one after another in a thread of its own.

    It hands a result to a callback in the event loop, in one step: an executor's futures take
    three, which is much beside a small network.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def begin(self, done: Done, function: Callable[..., Any], *arguments: Any) -> None:
        """Runs a function; called from the event loop."""
        loop = asyncio.get_running_loop()

        def run() -> None:
            result, failure = None, None
            try:
                result = function(*arguments)
            except Exception as error:  # noqa: BLE001 - it belongs to whoever asked
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(done, result, failure)

        if self._thread is None:
            # A daemon: a network that hangs must not keep a stopped server alive.
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._queue.put(run)

    async def run(self, function: Callable[..., R], *arguments: Any) -> R:
        """Runs a function and waits for its result.

        Raises:
            Exception: What it raises.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()

        def done(result: R, failure: Exception | None) -> None:
            if future.done():
                return
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(result)

        self.begin(done, function, *arguments)
        return await future

    def close(self) -> None:
        """Lets the thread end once it has run what was begun."""
        self._queue.put(None)

    def _work(self) -> None:
        _yield_to_others()
        while (run := self._queue.get()) is not None:
            run()
