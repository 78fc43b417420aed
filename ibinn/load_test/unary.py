"""Sends unary calls without a task for each."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import grpc.aio

from ibinn.load_test.report import OK, Tally
from ibinn.load_test.work import UnaryWork

Finished = Callable[[bool], None]
"""Told once a call is over, and whether it was answered."""


class UnarySender:
    """Calls one method, over several channels in turn.

    Args:
        channels: To the server.
        work: What to send.
        deadline_s: Given to each call.
        metadata: Sent with each call.
        tally: Takes down what happens.
    """

    def __init__(
        self,
        channels: Sequence[grpc.aio.Channel],
        work: UnaryWork,
        *,
        deadline_s: float,
        metadata: tuple[tuple[str, str], ...],
        tally: Tally,
    ) -> None:
        # Without serialisers gRPC passes bytes through in both directions.
        self._methods = itertools.cycle([channel.unary_unary(work.path) for channel in channels])
        self._requests = itertools.cycle(work.requests)
        self._deadline_s = deadline_s
        self._metadata = metadata
        self._tally = tally
        self._unanswered: set[Any] = set()
        self._idle = asyncio.Event()

    def send(self, intended: float, finished: Finished | None = None) -> None:
        """Sends the next request, which should have been sent at `intended`."""
        self._tally.send(intended, time.monotonic(), 1)
        method, request = next(self._methods), next(self._requests)
        call = method(request, timeout=self._deadline_s, metadata=self._metadata)
        self._unanswered.add(call)  # a call that nothing holds is cancelled
        self._idle.clear()
        call.add_done_callback(partial(self._settle, intended, finished))

    async def finish(self) -> None:
        """Waits for the calls under way; each ends at its deadline at the latest."""
        if self._unanswered:
            await self._idle.wait()

    def _settle(self, intended: float, finished: Finished | None, call: Any) -> None:
        now = time.monotonic()
        code: str = _result(call.code()).name
        self._tally.settle(intended, now, code)
        self._unanswered.discard(call)
        if not self._unanswered:
            self._idle.set()
        if finished is not None:
            finished(code == OK)


def _result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that has nothing to wait for, as the status of a finished call."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise RuntimeError("a finished call has no status yet")
