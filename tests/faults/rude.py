"""Callers without manners: half-open, slow, and gone without a word, on bare connections.

    python -m tests.faults.rude 127.0.0.1:50051 --count 1000 --at-once 16 --seed 4 --longest-s 0.1

They live in a process of their own, whose end closes whatever they forget to. It prints a line for
every 100 callers, and in the end as JSON for each kind how it ended how often.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
import grpc.aio
from hpack import Encoder

from ibinn.client import wire
from tests.faults import calls
from tests.fuzz.http2 import frame, grpc_statuses, prefixed
from tests.service.stub import png

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _WINDOW = 0, 1, 3, 4, 8
_END_STREAM, _END_HEADERS = 1, 4
_CANCEL = struct.pack(">I", 8)
_PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The server, and what chance decides.

    Attributes:
        host: Where it is; likewise `port`.
        longest_s: Longest pause before leaving: decoding, waiting and computing lie within it.
        rng: Decides how long.
    """

    host: str
    port: int
    longest_s: float
    rng: random.Random

    async def pause(self) -> None:
        await asyncio.sleep(self.rng.uniform(0, self.longest_s))


@dataclass(frozen=True, slots=True)
class Wire:
    """A bare connection that its owner leaves abruptly or in order."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Leaves with RST: what is under way in either direction is lost."""
        found = self.writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def status(self) -> str:
        """The status of the first call that the server ends."""
        heard = b""
        async with asyncio.timeout(_PATIENCE_S):
            while not (found := grpc_statuses(heard)):
                piece = await self.reader.read(65536)
                if not piece:
                    return "closed"
                heard += piece
        return found[0]


@contextlib.asynccontextmanager
async def connected(peer: Peer) -> AsyncIterator[Wire]:
    """A connection without a word on it yet."""
    reader, writer = await asyncio.open_connection(peer.host, peer.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def opening(window_bytes: int = 65535) -> bytes:
    """What a connection begins with.

    Args:
        window_bytes: How much of an answer the server may send before it is asked for more.
    """
    return PREFACE + frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, window_bytes))


def headers(path: str, *, stream: int = 1, more: Sequence[tuple[str, str]] = ()) -> bytes:
    """The first frame of a call."""
    fields = [
        *((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")),
        *(("content-type", "application/grpc"), ("te", "trailers"), *more),
    ]
    return frame(_HEADERS, _END_HEADERS, stream, Encoder().encode(fields, huffman=False))


def request(path: str, message: bytes) -> bytes:
    """A whole call."""
    return headers(path) + frame(_DATA, _END_STREAM, 1, prefixed(message))


def _image(peer: Peer) -> bytes:
    """Small ones and some whose decoding takes longer."""
    side = 900 if peer.rng.random() < 0.2 else 8
    return png(peer.rng.randrange(256), width=side, height=side)


# ------------------------------------------------------------------------------------ half-open


async def says_nothing(peer: Peer) -> str:
    """Connects, and that is all."""
    async with connected(peer):
        await peer.pause()
    return "left"


async def says_half_the_preface(peer: Peer) -> str:
    async with connected(peer) as wire_:
        await wire_.send(PREFACE[:12])
        await peer.pause()
    return "left"


async def begins_a_call_without_its_message(peer: Peer) -> str:
    async with connected(peer) as wire_:
        await wire_.send(opening() + headers(wire.CLASSIFY))
        await peer.pause()
        wire_.reset()
    return "left"


async def sends_half_a_message(peer: Peer) -> str:
    async with connected(peer) as wire_:
        body = prefixed(wire.classify_bytes(_image(peer)))
        await wire_.send(opening() + headers(wire.CLASSIFY) + frame(_DATA, 0, 1, body[:-9]))
        await peer.pause()
        wire_.reset()
    return "left"


async def closes_its_side_within_a_message(peer: Peer) -> str:
    async with connected(peer) as wire_:
        body = prefixed(wire.classify_bytes(_image(peer)))
        await wire_.send(opening() + headers(wire.CLASSIFY) + frame(_DATA, 0, 1, body[:-9]))
        wire_.writer.write_eof()
        async with asyncio.timeout(_PATIENCE_S):
            while await wire_.reader.read(65536):
                pass
    return "closed"


# ----------------------------------------------------------------------------------------- slow


async def sends_a_byte_at_a_time(peer: Peer) -> str:
    """And gets its answer."""
    async with connected(peer) as wire_:
        found = wire_.writer.get_extra_info("socket")
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in opening() + request(wire.CLASSIFY, wire.classify_bytes(png(3))):
            wire_.writer.write(bytes((byte,)))
            await asyncio.sleep(0.0005)
        return await wire_.status()


async def reads_a_stream_slowly(peer: Peer) -> str:
    """Lets the server send a few bytes of its answers at a time, and gets them all."""
    images = [png(value) for value in range(6)]
    messages = b"".join(
        prefixed(wire.stream_bytes([image], timeout_s=_PATIENCE_S)) for image in images
    )
    async with connected(peer) as wire_:
        await wire_.send(opening(64) + headers(wire.CLASSIFY_STREAM))
        await wire_.send(frame(_DATA, _END_STREAM, 1, messages))
        status = asyncio.create_task(wire_.status())
        more = frame(_WINDOW, 0, 1, struct.pack(">I", 512))
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not status.done():
                    with contextlib.suppress(OSError):
                        await wire_.send(more)
                    await asyncio.sleep(0.005)
            return await status
        finally:
            status.cancel()
            await asyncio.gather(status, return_exceptions=True)


# ------------------------------------------------------------------------------------------ gone


async def vanishes_while_it_is_served(peer: Peer) -> str:
    """RST while its image is decoded, waits or is computed."""
    async with connected(peer) as wire_:
        path = peer.rng.choice((wire.CLASSIFY, wire.EXPLAIN))
        await wire_.send(opening() + request(path, wire.classify_bytes(_image(peer))))
        await peer.pause()
        wire_.reset()
    return "left"


async def resets_its_call(peer: Peer) -> str:
    """RST_STREAM: the connection stays, the call does not."""
    async with connected(peer) as wire_:
        await wire_.send(opening() + request(wire.CLASSIFY, wire.classify_bytes(_image(peer))))
        await peer.pause()
        await wire_.send(frame(_RESET, 0, 1, _CANCEL))
    return "left"


async def vanishes_within_its_answer(peer: Peer) -> str:
    """Takes a few bytes of an answer, then RST."""
    async with connected(peer) as wire_:
        await wire_.send(opening(16) + request(wire.EXPLAIN, wire.explain_bytes(_image(peer))))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                while grpc_statuses(await wire_.reader.read(65536)):
                    pass
        wire_.reset()
    return "left"


async def vanishes_from_a_stream(peer: Peer) -> str:
    """RST while some images of a stream are answered and some not."""
    async with connected(peer) as wire_:
        body = b"".join(
            prefixed(wire.stream_bytes([_image(peer)], timeout_s=_PATIENCE_S)) for _ in range(6)
        )
        await wire_.send(opening(peer.rng.choice((16, 65535))) + headers(wire.CLASSIFY_STREAM))
        for start in range(0, len(body), 16384):
            await wire_.send(frame(_DATA, 0, 1, body[start : start + 16384]))
        await peer.pause()
        wire_.reset()
    return "left"


async def cancels(peer: Peer) -> str:
    """A gRPC client that changes its mind, or has little time."""
    async with grpc.aio.insecure_channel(
        f"{peer.host}:{peer.port}", options=calls.OWN_CONNECTION
    ) as channel:
        timeout_s = peer.rng.choice((_PATIENCE_S, peer.longest_s / 2))
        call = channel.unary_unary(wire.CLASSIFY)(
            wire.classify_bytes(_image(peer)), timeout=timeout_s
        )
        await peer.pause()
        call.cancel()
        code = await call.code()
        return str(code.name)


RUDE: dict[str, Callable[[Peer], Awaitable[str]]] = {
    act.__name__.replace("_", " "): act
    for act in (
        *(says_nothing, says_half_the_preface, begins_a_call_without_its_message),
        *(sends_half_a_message, closes_its_side_within_a_message, sends_a_byte_at_a_time),
        *(reads_a_stream_slowly, vanishes_while_it_is_served, resets_its_call),
        *(vanishes_within_its_answer, vanishes_from_a_stream, cancels),
    )
}
"""What callers do, by its name."""

SERVED = ("sends a byte at a time", "reads a stream slowly")
"""Those that only take their time and must be answered."""


async def cycles(
    peer: Peer, count: int, *, at_once: int, told: Callable[[int], None] = lambda done: None
) -> dict[str, Counter[str]]:
    """Every act in turn, until there were so many.

    Args:
        peer: The server.
        count: How many.
        at_once: At most so many at a time.
        told: Hears how many are done.

    Returns:
        For each act how it ended how often.
    """
    ends: dict[str, Counter[str]] = {name: Counter() for name in RUDE}
    names = list(itertools.islice(itertools.cycle(RUDE), count))
    done = 0

    async def work() -> None:
        nonlocal done
        while names:
            name = names.pop()
            try:
                end = await RUDE[name](peer)
            except (OSError, TimeoutError) as error:
                end = type(error).__name__
            ends[name][end] += 1
            done += 1
            told(done)

    await asyncio.gather(*(work() for _ in range(at_once)))
    return ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--at-once", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--longest-s", type=float, required=True)
    options = parser.parse_args()
    host, _, port = options.target.rpartition(":")
    peer = Peer(
        host=host, port=int(port), longest_s=options.longest_s, rng=random.Random(options.seed)
    )

    def told(done: int) -> None:
        if done % 100 == 0:
            print(done, flush=True)

    print(json.dumps(asyncio.run(cycles(peer, options.count, at_once=options.at_once, told=told))))


if __name__ == "__main__":
    main()
