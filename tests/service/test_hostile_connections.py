"""Bytes that no client of gRPC sends: the server goes on, and its memory stays its own."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import zlib
from collections.abc import Callable

import grpc
import pytest

from ibinn.v1 import classification_service_pb2 as service
from tests.fuzz import http2, seeds
from tests.fuzz.calls import OURS
from tests.service.running import Running, running

GOOD = service.ClassifyRequest(image=seeds.good()).SerializeToString()


async def sent(server: Running, data: bytes) -> list[str]:
    """The grpc-status of every stream that the server ends on a connection with these bytes."""
    host, _, port = server.addresses.grpc.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
        return http2.grpc_statuses(await http2.heard(reader))
    finally:
        writer.close()


def call(path: str | bytes, body: bytes, **headers: str) -> bytes:
    """A call as bytes."""
    return http2.call(
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *((name.replace("_", "-"), value) for name, value in headers.items()),
        ],
        body,
    )


async def test_a_sound_call_byte_for_byte_is_answered() -> None:
    async with running() as server:
        assert await sent(server, call(f"{OURS}Classify", http2.prefixed(GOOD))) == ["0"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    "path", [b"/ibinn\xcev1.ClassificationService/Classify", b"\xff", b"/", b"/a", b"/a/b/c", b""]
)
async def test_a_path_that_is_none_does_not_end_the_server(path: bytes) -> None:
    async with running() as server:
        for _ in range(3):
            await sent(server, call(path, http2.prefixed(GOOD)))
        assert (await server.client.classify(seeds.good())).top.name == "dog"


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
async def test_the_limit_of_a_message_holds_for_what_is_in_it_when_it_is_unpacked(
    encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    async with running() as server:
        bomb = pack(service.ClassifyRequest(image=bytes(2**25)).SerializeToString())
        assert len(bomb) < 2**16  # what a connection takes before it is read
        data = call(f"{OURS}Classify", http2.prefixed(bomb, compressed=1), grpc_encoding=encoding)
        too_large = str(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
        assert await sent(server, data) == [too_large]
        packed = http2.prefixed(pack(GOOD), compressed=1)
        assert await sent(server, call(f"{OURS}Classify", packed, grpc_encoding=encoding)) == ["0"]
