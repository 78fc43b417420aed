"""Many images over one stream: the messages between a `Ledger` and a server."""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import grpc
import grpc.aio

from ibinn.client.calls import Caller, new_request_id
from ibinn.client.failures import remote_error
from ibinn.client.ledger import Answered, Ledger
from ibinn.client.payload import Payload, to_bytes
from ibinn.client.requests import classify_request
from ibinn.errors import DeadlineError, ImageError, RemoteError, UnavailableError
from ibinn.types import AnswerOptions
from ibinn.v1 import classification_service_pb2 as service

_GRACE_S = 5.0
"""Beyond an image's time, for its way there and back."""
_GOODBYE_S = 5.0
"""For the server to end a stream whose images are all answered."""

Source = service.ClassifyRequest | ImageError
Event = service.ClassifyStreamResponse | RemoteError
Message = service.ClassifyStreamRequest | None  # None: no more will follow


@dataclass(frozen=True, slots=True, kw_only=True)
class Opener:
    """Opens streams of one client, each under a name of its own.

    Attributes:
        caller: The client's.
        method: ``ClassifyStream`` of its stub.
        timeout_s: Time of each image; None: no end.
    """

    caller: Caller
    method: Any
    timeout_s: float | None

    @property
    def silence_s(self) -> float:
        """Time without any answer after which the server is given up; may be infinite."""
        return math.inf if self.timeout_s is None else self.timeout_s + _GRACE_S

    def begin(self, messages: object, request_id: str) -> Any:
        """A call of gRPC that sends `messages`."""
        connection = self.caller.connection
        return self.method(
            messages,
            metadata=connection.metadata(request_id),
            wait_for_ready=connection.wait_for_ready,
        )

    def failure(self, error: Any, request_id: str) -> RemoteError:
        """The exception for a stream that broke."""
        target = self.caller.connection.target
        return remote_error(error, target=target, timeout_s=self.timeout_s, request_id=request_id)

    def silent(self, request_id: str) -> RemoteError:
        """The exception for a server that gave no sign for too long."""
        return DeadlineError(
            f"no answer from {self.caller.connection.target} within {self.silence_s} s; give the "
            "images a larger timeout_s",
            code=grpc.StatusCode.DEADLINE_EXCEEDED.name,
            request_id=request_id,
        )

    def ended(self, request_id: str) -> RemoteError:
        """The exception for a stream that the server ended without need."""
        return UnavailableError(
            f"{self.caller.connection.target} ended the stream before every image was answered",
            code=grpc.StatusCode.UNAVAILABLE.name,
            request_id=request_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one stream of images is to be; used once.

    Attributes:
        opener: Opens it.
        ledger: Keeps its state.
        model: The model that must answer; empty: the server's default.
        options: How much the answers tell.
    """

    opener: Opener
    ledger: Ledger
    model: str
    options: AnswerOptions

    @classmethod
    def of(
        cls,
        caller: Caller,
        method: Any,
        *,
        model: str,
        options: AnswerOptions,
        timeout_s: float | None,
        window: int,
        per_message: int,
        in_order: bool,
    ) -> Self:
        """A plan of the options of `Client.classify_many`.

        Raises:
            ConfigError: `window` or `per_message` is out of range.
        """
        timeout_s = caller.timeout_s if timeout_s is None else timeout_s
        ledger = Ledger(
            window=window,
            per_message=per_message,
            in_order=in_order,
            retry=caller.retry,
            budget=caller.budget,
            longest_wait_s=timeout_s,
        )
        opener = Opener(caller=caller, method=method, timeout_s=timeout_s)
        return cls(opener=opener, ledger=ledger, model=model, options=options)

    def source(self, image: Payload) -> Source:
        """The request for an image, or why it cannot be sent."""
        try:
            encoded = to_bytes(image)
        except ImageError as error:
            return error
        return classify_request(
            encoded,
            request_id=new_request_id(),
            model=self.model,
            options=self.options,
            timeout_s=self.opener.timeout_s,
        )


class _Stream:
    """One call, read by a thread of its own."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._id = new_request_id()
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._sign = time.monotonic()  # of life, of either side
        self._call = opener.begin(iter(self._messages.get, None), self._id)
        self._reader = threading.Thread(target=self._read, name="ibinn-stream-read", daemon=True)
        self._reader.start()

    def send(self, message: service.ClassifyStreamRequest) -> None:
        self._messages.put(message)
        self._sign = time.monotonic()

    def event(self, *, wait_s: float | None) -> Event | None:
        """What the server sent next; None: nothing within this time (None: until it is silent)."""
        silent_at = self._sign + self._opener.silence_s
        until = min(silent_at, math.inf if wait_s is None else time.monotonic() + wait_s)
        timeout_s = None if math.isinf(until) else max(0.0, until - time.monotonic())
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return self._opener.silent(self._id) if until == silent_at else None
        self._sign = time.monotonic()
        return event

    def close(self, *, finished: bool) -> None:
        """Ends the call: in peace if everything was answered, else by cancelling it."""
        self._messages.put(None)
        if finished:
            self._reader.join(_GOODBYE_S)
        self._call.cancel()  # without effect on a call that has ended

    def _read(self) -> None:
        try:
            for response in self._call:
                self._events.put(response)
        except grpc.RpcError as error:
            self._events.put(self._opener.failure(error, self._id))
        else:
            self._events.put(self._opener.ended(self._id))


def answered(plan: Plan, images: Iterable[Payload]) -> Iterator[Answered]:
    """Results as the ledger lets them out; images are taken and sent by the thread that iterates.

    Raises:
        RemoteError: No stream to the server can be had any more.
    """
    ledger = plan.ledger
    source = map(plan.source, images)
    stream: _Stream | None = None
    more = True
    finished = False
    try:
        while True:
            while (found := ledger.take()) is not None:
                yield found
            taking = more and ledger.has_room
            if taking:
                more = _add(ledger, next(source, None))
            elif ledger.is_settled:
                finished = True
                return
            for message in ledger.outgoing(incomplete=not taking):
                stream = stream or _Stream(plan.opener)
                stream.send(message)
            if stream is None or not ledger.under_way:
                if not taking:
                    time.sleep(ledger.pause_s)
                continue
            event = stream.event(wait_s=0.0 if taking else ledger.pause_s or None)
            if isinstance(event, RemoteError):
                stream.close(finished=False)
                stream = None
                ledger.broken(event)
            elif event is not None:
                ledger.answered(event)
    finally:
        if stream is not None:
            stream.close(finished=finished)


class _AsyncStream:
    """One call, read by a task of its own."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._id = new_request_id()
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._call = opener.begin(self._outgoing(), self._id)
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
            await asyncio.wait({self._reader}, timeout=_GOODBYE_S)
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
        except grpc.aio.AioRpcError as error:
            self._events.put_nowait(self._opener.failure(error, self._id))
        else:
            self._events.put_nowait(self._opener.ended(self._id))


async def answered_async(
    plan: Plan, images: Iterable[Payload] | AsyncIterable[Payload]
) -> AsyncGenerator[Answered, None]:
    """Results as the ledger lets them out; see `answered`."""
    ledger = plan.ledger
    source = _sources(plan, images)
    stream: _AsyncStream | None = None
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
                more = _add(ledger, taking.result())
                taking = None
            elif taking is None and not more and ledger.is_settled:
                finished = True
                return
            at_hand = taking is None and more and ledger.has_room
            for message in ledger.outgoing(incomplete=not at_hand):
                stream = stream or _AsyncStream(plan.opener)
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
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield plan.source(image)
    else:
        for image in images:
            yield plan.source(image)


async def _next(source: AsyncIterator[Source]) -> Source | None:
    return await anext(source, None)


async def _first(*tasks: asyncio.Task[Any] | None, pause_s: float) -> None:
    """Waits for the first of some tasks, or for the end of a pause."""
    pending = {task for task in tasks if task is not None}
    if pending:
        await asyncio.wait(pending, timeout=pause_s or None, return_when=asyncio.FIRST_COMPLETED)
    else:
        await asyncio.sleep(pause_s)


def _add(ledger: Ledger, image: Source | None) -> bool:
    """Adds the next image; whether there was one."""
    if isinstance(image, ImageError):
        ledger.add_failure(image)
    elif image is not None:
        ledger.add(image)
    return image is not None
