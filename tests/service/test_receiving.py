"""Calls whose message does not come: they end, and stand in nobody's way."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

from hpack import Encoder

from ibinn.client import wire
from tests.fuzz.http2 import frame, grpc_statuses
from tests.service.running import PATIENCE_S, running

_HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", wire.CLASSIFY),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


@contextlib.asynccontextmanager
async def _begun(target: str, frames: bytes) -> AsyncIterator[asyncio.StreamReader]:
    """A connection with these frames on it."""
    host, _, port = target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frames)
        yield reader
    finally:
        writer.close()


async def _statuses(reader: asyncio.StreamReader, *, count: int) -> list[str]:
    """What the server ends so many calls with."""
    heard = b""
    async with asyncio.timeout(PATIENCE_S):
        while len(found := grpc_statuses(heard)) < count:
            heard += await reader.read(65536)
    return found


async def test_a_call_without_its_message_ends_in_time() -> None:
    encoder = Encoder()
    nothing = frame(1, 4, 1, encoder.encode(_HEADERS, huffman=False))
    half = frame(1, 4, 3, encoder.encode(_HEADERS, huffman=False))
    half += frame(0, 0, 3, struct.pack(">BI", 0, 1000) + bytes(500))
    async with running(request_timeout_s=0.2) as run:
        async with _begun(run.addresses.grpc, nothing + half) as reader:
            assert await _statuses(reader, count=2) == ["4", "4"]
        ended = run.metric("ibinn_requests_total", method="Classify", code="DEADLINE_EXCEEDED")
        assert ended == 2


async def test_a_call_that_ends_before_its_message_is_refused() -> None:
    async with running() as run:
        over = frame(1, 5, 1, Encoder().encode(_HEADERS, huffman=False))
        async with _begun(run.addresses.grpc, over) as reader:
            assert await _statuses(reader, count=1) == ["3"]


async def test_a_stopping_server_does_not_wait_for_a_message() -> None:
    encoder = Encoder()
    nothing = frame(1, 4, 1, encoder.encode(_HEADERS, huffman=False))
    over = frame(1, 5, 3, encoder.encode(_HEADERS, huffman=False))
    async with running() as run, _begun(run.addresses.grpc, nothing + over) as reader:
        # The second call's end says that the first one has come in as well.
        assert await _statuses(reader, count=1) == ["3"]
        async with asyncio.timeout(5):  # of the 25 s of a drain
            await run.server.stop()
