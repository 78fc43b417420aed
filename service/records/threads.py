"""Threads for calls that a database may hold up.

They are daemons, unlike those of `concurrent.futures`: a database that hangs must not keep the
process from ending.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

_T = TypeVar("_T")


class Threads:
    """A fixed number of daemon threads.

    Args:
        name: Of the threads.
        count: How many.
    """

    def __init__(self, name: str, count: int) -> None:
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._waiting = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{n}", daemon=True)
            for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, action: Callable[[], _T]) -> Future[_T]:
        """Calls it in one of the threads, unless it is cancelled before."""
        future: Future[_T] = Future()
        self._waiting.put((future, action))
        return future

    def stop(self, timeout_s: float) -> None:
        """Ends the threads after what waits, and waits for them for at most so long."""
        for _ in self._threads:
            self._waiting.put(None)
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while (found := self._waiting.get()) is not None:
            future, action = found
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = action()
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
                future.set_exception(error)
            else:
                future.set_result(result)
            # What was done must not live until the next call.
            del found, future, action
