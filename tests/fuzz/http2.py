"""Bytes on a bare connection that are nearly HTTP/2 and nearly gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import struct
import time
import zlib
from collections.abc import Callable, Sequence

from hpack import Decoder, Encoder, HPACKError

from ibinn.v1 import classification_service_pb2 as service
from tests.fuzz import message_mutations, seeds
from tests.fuzz.calls import AUTHORIZATION, OURS
from tests.fuzz.judging import Finding, Tally

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _PRIORITY, _RESET, _SETTINGS, _PUSH, _PING, _GOAWAY, _WINDOW, _CONTINUE = range(10)
_END_STREAM, _END_HEADERS = 1, 4
_SILENCE_S = 0.5

STATUSES = frozenset({"0", "2", "3", "4", "5", "7", "8", "9", "12", "13", "14", "16"})
"""The documented ones, and what gRPC itself says of bytes that never reach the service:
UNIMPLEMENTED of paths and encodings that do not exist, UNKNOWN of a path that is no text, INTERNAL
of frames that cannot be taken apart."""

Headers = list[tuple[str, str | bytes]]


async def converse(address: str, seed: int, number: int, tally: Tally) -> float:
    """Opens a connection, sends mutated bytes, hears what comes, closes; the seconds it took."""
    name = f"http2-{seed}-{number}"
    rng = random.Random(name)
    data = conversation(rng)
    host, _, port = address.rpartition(":")
    start = time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
    except OSError as error:
        tally.findings.append(Finding(name=name, what=f"no connection: {error}", data=data))
        return 0.0
    answer = b""
    try:
        with contextlib.suppress(OSError):
            writer.write(data)
            await writer.drain()
            if rng.random() < 0.5:
                writer.write_eof()
            answer = await heard(reader)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    took_s = time.perf_counter() - start
    tally.inputs += 1
    statuses = grpc_statuses(answer)
    tally.statuses.update(f"grpc-status {status}" for status in statuses)
    if not statuses:
        tally.statuses["no grpc-status"] += 1
    for status in statuses:
        if status not in STATUSES:
            tally.findings.append(
                Finding(name=name, what=f"a stream ended with grpc-status {status}", data=data)
            )
    return took_s


async def heard(reader: asyncio.StreamReader) -> bytes:
    """What the server sends until it has ended the stream, or closes, or says nothing more."""
    answer = bytearray()
    with contextlib.suppress(TimeoutError, OSError):
        while piece := await asyncio.wait_for(reader.read(65536), _SILENCE_S):
            answer += piece
            if any(kind in (_RESET, _GOAWAY) for kind, _, _ in _frames(answer)) or (
                grpc_statuses(bytes(answer))
            ):
                break
    return bytes(answer)


def conversation(rng: random.Random) -> bytes:
    """A call as bytes, damaged in one of many ways."""
    request = service.ClassifyRequest(image=rng.choice(seeds.images())).SerializeToString()
    headers: Headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", f"{OURS}Classify"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        AUTHORIZATION,
    ]
    return rng.choice(_DAMAGES)(rng, headers, request)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def prefixed(message: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """A message as gRPC lays it into DATA frames."""
    return struct.pack(">BI", compressed, len(message) if length is None else length) + message


def call(headers: Headers, body: bytes, *, between: bytes = b"") -> bytes:
    """A connection with one call on it, as bytes.

    Args:
        headers: Of the call.
        body: Its messages, each behind its prefix.
        between: Frames between headers and body.
    """
    block = Encoder().encode(headers, huffman=False)
    pieces = [body[i : i + 16384] for i in range(0, max(len(body), 1), 16384)]
    return b"".join(
        (
            _PREFACE,
            frame(_SETTINGS, 0, 0, b""),
            frame(_HEADERS, _END_HEADERS, 1, block),
            between,
            *(frame(_DATA, 0, 1, piece) for piece in pieces),
            frame(_DATA, _END_STREAM, 1, b""),
        )
    )


def _any_bytes(rng: random.Random, headers: Headers, request: bytes) -> bytes:
    data = bytearray(call(headers, prefixed(request)))
    for _ in range(rng.choice((1, 2, 5, 50))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _no_http2(rng: random.Random, headers: Headers, request: bytes) -> bytes:
    return rng.choice(
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\0\x01", rng.randbytes(300), b"")
    )


def _cut_off(rng: random.Random, headers: Headers, request: bytes) -> bytes:
    data = call(headers, prefixed(request))
    return data[: rng.randrange(len(data))]


def _wrong_prefix(rng: random.Random, headers: Headers, request: bytes) -> bytes:
    length = rng.choice((0, 1, max(0, len(request) - 1), len(request) + 1, 2**31 - 1, 2**32 - 1))
    body = prefixed(request, compressed=rng.choice((0, 1, 2, 255)), length=length)
    return call(headers, body * rng.choice((1, 1, 2)))


def _compressed(rng: random.Random, headers: Headers, request: bytes) -> bytes:
    """Compressed messages: sound, damaged, of another kind than said, and bombs."""
    encoding = rng.choice(("gzip", "deflate", "identity", "br", "snappy", ""))
    message = rng.choice((request, bytes(2**20), bytes(2**24), b"\x0a" + b"\xff" * 2**20))
    pack: Callable[[bytes], bytes] = rng.choice((gzip.compress, zlib.compress))
    packed = pack(message)
    if rng.random() < 0.3:
        packed = message_mutations.mutated(packed, rng, [packed])
    body = prefixed(packed, compressed=rng.choice((1, 1, 1, 0)))
    return call([*headers, ("grpc-encoding", encoding)], body)


def _headers(rng: random.Random, headers: Headers, request: bytes) -> bytes:
    """Headers that are missing, twice there, odd or too many."""
    headers = list(headers)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(headers))
        match rng.randrange(4):
            case 0:
                del headers[at]
            case 1:
                headers.insert(rng.randrange(len(headers)), headers[at])
            case 2:
                headers[at] = (headers[at][0], rng.choice(_ODD_VALUES))
            case _:
                headers.append((rng.choice(_ODD_NAMES), rng.choice(_ODD_VALUES)))
        if not headers:
            break
    return call(headers, prefixed(request))


_ODD_NAMES = (
    *("grpc-timeout", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "content-length"),
    *("x-request-id", "authorization", "traceparent", "grpc-status", ":path", "x-bin", "X-Upper"),
    *("grpc-previous-rpc-attempts", "grpc-trace-bin", "connection", "host", "user-agent", ""),
)
_ODD_VALUES = (
    *("", "1n", "0S", "99999999H", "-1S", "1X", "999999999999999999H", "\0", "\r\nx: y", "gzip"),
    *("/", "//", "/a/b/c", "/ibinn.v1.ClassificationService/", "/x.Y/Z", "%ff", "é", "a" * 5000),
    *("application/grpc+json", "application/grpc;x", "text/html", "GET", "a" * 20_000, "!!!"),
)


def _odd_frames(rng: random.Random, headers: Headers, request: bytes) -> bytes:
    """Frames that HTTP/2 knows, where they should not be or as they should not be."""
    odd = b"".join(
        frame(
            rng.randrange(12),
            rng.randrange(256),
            rng.choice((0, 1, 1, 2, 3, 2**31 - 1)),
            rng.randbytes(rng.choice((0, 1, 4, 5, 6, 8, 9, 100))),
        )
        for _ in range(rng.choice((1, 2, 20)))
    )
    return call(headers, prefixed(request), between=odd)


def _floods(rng: random.Random, headers: Headers, request: bytes) -> bytes:
    """Many cheap frames that cost the other side something."""
    count = 500
    block = Encoder().encode(headers, huffman=False)
    odd = rng.choice(
        (
            frame(_PING, 0, 0, bytes(8)) * count,
            frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, 0)) * count,
            b"".join(
                frame(_HEADERS, _END_HEADERS, stream, block)
                + frame(_RESET, 0, stream, struct.pack(">I", 8))
                for stream in range(3, 3 + 2 * count, 2)
            ),
            frame(_HEADERS, 0, 3, block) + frame(_CONTINUE, 0, 3, b"") * count,
            frame(_DATA, 0, 1, b"") * count,
            frame(_WINDOW, 0, 0, struct.pack(">I", 2**31 - 1)) * 2,
        )
    )
    return call(headers, prefixed(request), between=odd)


def _mutated_message(rng: random.Random, headers: Headers, request: bytes) -> bytes:
    return call(headers, prefixed(message_mutations.mutated(request, rng, [request])))


_DAMAGES: Sequence[Callable[[random.Random, Headers, bytes], bytes]] = (
    *(_any_bytes, _any_bytes, _no_http2, _cut_off, _wrong_prefix, _compressed, _compressed),
    *(_headers, _headers, _odd_frames, _floods, _mutated_message),
)


def grpc_statuses(heard: bytes) -> list[str]:
    """Every grpc-status in what a server sent."""
    found = []
    decoder = Decoder()
    for kind, flags, payload in _frames(heard):
        if kind == _HEADERS and flags & _END_HEADERS:
            try:
                headers = decoder.decode(payload)
            except HPACKError:
                return found
            found += [str(value) for name, value in headers if name == "grpc-status"]
    return found


def _frames(heard: bytes | bytearray) -> list[tuple[int, int, bytes]]:
    frames, position = [], 0
    while position + 9 <= len(heard):
        length = int.from_bytes(heard[position : position + 3], "big")
        end = position + 9 + length
        if end > len(heard):
            break
        kind, flags = heard[position + 3], heard[position + 4]
        frames.append((kind, flags, bytes(heard[position + 9 : end])))
        position = end
    return frames
