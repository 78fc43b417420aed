"""Many images over one stream, for asyncio; see `ibinn.client.streams`."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Coroutine, Iterable
from typing import Any

import grpc
import grpc.aio

from ibinn.client.calls import new_request_id
from ibinn.client.ledger import Answered
from ibinn.client.payload import Payload
from ibinn.client.plans import GOODBYE_S, Event, Message, Opener, Plan, Source
from ibinn.errors import RemoteError
from ibinn.v1 import classification_service_pb2 as service

_CORE_FAILED = "Internal error from Core"
_STATUS_S = 2.0


class _Stream:
    """One call, read by a task of its own."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._id = new_request_id()
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._call = opener.begin(self._outgoing(), self._id)
        self._ending = _Ending(self._call)
        self._reader = asyncio.create_task(self._read(), name="ibinn-stream-read")

    def send(self, message: service.ClassifyStreamRequest) -> None:
        self._messages.put_nowait(message)

    async def event(self) -> Event:
        """What the server sent next."""
        try:
            silence_s = self._opener.silence_s
            async with asyncio.timeout(None if math.isinf(silence_s) else silence_s):
                return await self._events.get()
        except TimeoutError:
            return self._opener.silent(self._id)

    async def close(self, *, finished: bool) -> None:
        """Ends the call: in peace if everything was answered, else by cancelling it."""
        self._messages.put_nowait(None)
        if finished:
            await asyncio.wait({self._reader}, timeout=GOODBYE_S)
        self._call.cancel()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _outgoing(self) -> AsyncIterator[service.ClassifyStreamRequest]:
        while (message := await self._messages.get()) is not None:
            yield message

    async def _read(self) -> None:
        try:
            async for response in self._call:
                self._events.put_nowait(response)
        except grpc.aio.AioRpcError:
            ending = await self._ending.error()
            if ending.code() is grpc.StatusCode.OK:
                self._events.put_nowait(self._opener.ended(self._id))
            else:
                self._events.put_nowait(self._opener.failure(ending, self._id))
        else:
            self._events.put_nowait(self._opener.ended(self._id))


class _Ending:
    """What a call really ended with.

    Where sending meets the end of a call, grpc.aio puts a failure of its own in the place of the
    server's status, after it or before it (grpc issue 36066).
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._first: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._note)

    async def error(self) -> grpc.aio.AioRpcError:
        """The server's status; gRPC's failure, if none comes."""
        found = self._first
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STATUS_S):
                while found is None or found.details() == _CORE_FAILED:
                    await asyncio.sleep(0.001)
                    found = _error_of(self._call)
        return found or _error_of(self._call)

    def _note(self, call: Any) -> None:
        self._first = self._first or _error_of(call)


def _error_of(call: Any) -> grpc.aio.AioRpcError:
    """The status that a call has now that it is done."""
    return grpc.aio.AioRpcError(
        _at_once(call.code()),
        _at_once(call.initial_metadata()),
        _at_once(call.trailing_metadata()),
        _at_once(call.details()),
    )


def _at_once(answer: Coroutine[Any, Any, Any]) -> Any:
    """What a call that is done answers: without waiting."""
    try:
        answer.send(None)
    except StopIteration as end:
        return end.value
    answer.close()
    raise RuntimeError("gRPC tells of the end of a call before its status is known")


async def answered(
    plan: Plan, images: Iterable[Payload] | AsyncIterable[Payload]
) -> AsyncGenerator[Answered, None]:
    """Results as the ledger lets them out; see `ibinn.client.streams.answered`."""
    ledger = plan.ledger
    source = _sources(plan, images)
    stream: _Stream | None = None
    taking: asyncio.Task[Source | None] | None = None
    event: asyncio.Task[Event] | None = None
    more = True
    finished = False
    try:
        while True:
            while (found := ledger.take()) is not None:
                yield found
            if taking is None and more and ledger.has_room:
                taking = asyncio.create_task(_next(source))
                await asyncio.sleep(0)  # an image that is at hand needs no waiting
            if taking is not None and taking.done():
                more = plan.add(taking.result())
                taking = None
            elif taking is None and not more and ledger.is_settled:
                finished = True
                return
            at_hand = taking is None and more and ledger.has_room
            for message in ledger.outgoing(incomplete=not at_hand):
                stream = stream or _Stream(plan.opener)
                stream.send(message)
            if stream is not None and event is None and ledger.under_way:
                event = asyncio.create_task(stream.event())
            if not at_hand:
                await _first(taking, event, pause_s=ledger.pause_s)
            if event is not None and event.done():
                what, event = event.result(), None
                if isinstance(what, RemoteError):
                    assert stream is not None
                    await stream.close(finished=False)
                    stream = None
                    ledger.broken(what)
                else:
                    ledger.answered(what)
    finally:
        for task in (taking, event):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if stream is not None:
            await stream.close(finished=finished)


async def _sources(
    plan: Plan, images: Iterable[Payload] | AsyncIterable[Payload]
) -> AsyncIterator[Source]:
    index = 0
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield plan.source(index, image)
            index += 1
    else:
        for index, image in enumerate(images):
            yield plan.source(index, image)


async def _next(source: AsyncIterator[Source]) -> Source | None:
    return await anext(source, None)


async def _first(*tasks: asyncio.Task[Any] | None, pause_s: float) -> None:
    """Waits for the first of some tasks, or for the end of a pause."""
    pending = {task for task in tasks if task is not None}
    if pending:
        await asyncio.wait(pending, timeout=pause_s or None, return_when=asyncio.FIRST_COMPLETED)
    else:
        await asyncio.sleep(pause_s)
