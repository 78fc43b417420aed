"""Sends messages with several images over streams, one stream for each connection."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from ibinn.client import wire
from ibinn.load_test.report import NO_ANSWER, OK, Tally
from ibinn.load_test.unary import Finished
from ibinn.load_test.work import StreamWork

_GRACE_S = 1.0
"""Time beyond the deadline for the last statuses to come in."""

_OVER = (grpc.RpcError, asyncio.InvalidStateError)
"""What writing to a call raises that has ended."""


@dataclass(slots=True, kw_only=True)
class _Message:
    """A message that was sent or waits to be.

    Attributes:
        data: Serialised.
        intended: When it should have been sent.
        unanswered: Positions of its images that have no result yet.
        finished: Told once all have one.
        answered: Whether every result so far is an answer.
    """

    data: bytes
    intended: float
    unanswered: set[int]
    finished: Finished | None
    answered: bool = True


class StreamSender:
    """Writes messages to streams, over several channels in turn.

    Args:
        channels: To the server.
        work: What to send.
        deadline_s: Time for each image; written in the messages.
        metadata: Sent with each stream.
        tally: Takes down what happens.
    """

    def __init__(
        self,
        channels: Sequence[grpc.aio.Channel],
        work: StreamWork,
        *,
        deadline_s: float,
        metadata: tuple[tuple[str, str], ...],
        tally: Tally,
    ) -> None:
        def opener(channel: grpc.aio.Channel) -> Callable[[], _Stream]:
            method = channel.stream_stream(work.path)
            return lambda: _Stream(method(metadata=metadata), work.images_per_message, tally)

        self._lanes = [_Lane(opener(channel), deadline_s=deadline_s) for channel in channels]
        self._turn: Iterator[_Lane] = itertools.cycle(self._lanes)
        self._data = itertools.cycle(work.messages)
        self._images = work.images_per_message
        self._tally = tally

    def send(self, intended: float, finished: Finished | None = None) -> None:
        """Sends the next message, which should have been sent at `intended`.

        If the server holds the stream back, the message waits here; that is latency, not lag.
        """
        self._tally.send(intended, time.monotonic(), self._images)
        message = _Message(
            data=next(self._data),
            intended=intended,
            unanswered=set(range(self._images)),
            finished=finished,
        )
        next(self._turn).messages.put_nowait(message)

    async def finish(self) -> None:
        """Waits for the results still to come, as long as the deadline."""
        await asyncio.gather(*(lane.finish() for lane in self._lanes))


class _Lane:
    """The messages of one connection, in order; a stream that ends is opened anew."""

    def __init__(self, open_stream: Callable[[], _Stream], *, deadline_s: float) -> None:
        self.messages: asyncio.Queue[_Message | None] = asyncio.Queue()
        self._open = open_stream
        self._patience_s = deadline_s + _GRACE_S
        self._stream: _Stream | None = None
        self._writing = asyncio.create_task(self._write())

    async def finish(self) -> None:
        self.messages.put_nowait(None)
        try:
            async with asyncio.timeout(self._patience_s):
                await self._writing
                if self._stream is not None:
                    await self._stream.finish()
        except TimeoutError:
            await self._give_up()

    async def _write(self) -> None:
        while (message := await self.messages.get()) is not None:
            if self._stream is None or self._stream.ended:
                self._stream = self._open()
            await self._stream.write(message)

    async def _give_up(self) -> None:
        stream = self._open() if self._stream is None else self._stream
        while not self.messages.empty():
            if (message := self.messages.get_nowait()) is not None:
                stream.expect(message)
        await stream.cancel()


@dataclass(slots=True, eq=False)
class _Stream:
    """One call and the messages sent over it."""

    call: Any
    images_per_message: int
    tally: Tally
    _ended_with: str | None = None
    _messages: dict[int, _Message] = field(default_factory=dict)
    _count: int = 0
    _reading: asyncio.Task[None] = field(init=False)

    def __post_init__(self) -> None:
        self._reading = asyncio.create_task(self._read())

    @property
    def ended(self) -> bool:
        """Whether the server ended it."""
        return self._ended_with is not None

    def expect(self, message: _Message) -> None:
        """Results of this message are to come, at the positions after those before it."""
        self._messages[self._count] = message
        self._count += 1

    async def write(self, message: _Message) -> None:
        """Sends a message as soon as the server takes it."""
        self.expect(message)
        try:
            await self.call.write(message.data)
        except _OVER:
            await self._reading  # the reader knows how it ended
        self._settle_rest()

    async def finish(self) -> None:
        """Says that no more is sent and waits for the results still to come."""
        with contextlib.suppress(*_OVER):
            await self.call.done_writing()
        await self._reading

    async def cancel(self) -> None:
        """Ends the call; images without a result get none."""
        self.call.cancel()
        self._reading.cancel()
        await asyncio.wait([self._reading])
        self._ended_with = NO_ANSWER
        self._settle_rest()

    async def _read(self) -> None:
        try:
            while (data := await self.call.read()) is not grpc.aio.EOF:
                for index, code in wire.stream_results(data):
                    number, position = divmod(index, self.images_per_message)
                    self._settle(number, position, code)
        except grpc.RpcError:
            pass  # its status is asked for below
        code = (await self.call.code()).name
        self._ended_with = NO_ANSWER if code == OK else code
        self._settle_rest()

    def _settle_rest(self) -> None:
        if self._ended_with is not None:
            for number, message in list(self._messages.items()):
                for position in list(message.unanswered):
                    self._settle(number, position, self._ended_with)

    def _settle(self, number: int, position: int, code: str) -> None:
        message = self._messages.get(number)
        if message is None or position not in message.unanswered:
            return
        message.unanswered.discard(position)
        message.answered &= code == OK
        self.tally.settle(message.intended, time.monotonic(), code)
        if not message.unanswered:
            del self._messages[number]
            if message.finished is not None:
                message.finished(message.answered)
