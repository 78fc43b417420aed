"""A server of plain bytes for load tests: no model, no protobuf in unary calls."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from ibinn.client import wire
from ibinn.v1 import classification_service_pb2 as service

ECHO = "/tests.Echo/Echo"

Answer = Callable[[bytes, int, grpc.aio.ServicerContext], Awaitable[bytes]]
"""From request, its number from 0 and its context to the response."""


@dataclass(slots=True)
class Fake:
    address: str = ""
    requests: list[bytes] = field(default_factory=list)
    peers: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    in_flight: int = 0
    most_in_flight: int = 0
    streams: int = 0
    images: int = 0


async def echo(request: bytes, number: int, context: grpc.aio.ServicerContext) -> bytes:
    return request


@contextlib.asynccontextmanager
async def serving(
    answer: Answer = echo,
    *,
    refused: Callable[[int], int] = lambda image: 0,
    images_per_stream: int | None = None,
) -> AsyncIterator[Fake]:
    """A server that answers unary calls by `answer`, and images of streams with a status.

    Args:
        answer: Of unary calls.
        refused: gRPC's code for an image of a stream, by its number among all; -1: no result.
        images_per_stream: After as many images a stream ends with UNAVAILABLE.
    """
    fake = Fake()

    async def unary(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        number = len(fake.requests)
        fake.requests.append(request)
        fake.peers.add(context.peer())
        fake.tokens |= {v for k, v in context.invocation_metadata() if k == "authorization"}
        fake.in_flight += 1
        fake.most_in_flight = max(fake.most_in_flight, fake.in_flight)
        try:
            return await answer(request, number, context)
        finally:
            fake.in_flight -= 1

    async def stream(
        messages: AsyncIterator[service.ClassifyStreamRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[service.ClassifyStreamResponse]:
        fake.streams += 1
        fake.peers.add(context.peer())
        seen = 0
        async for message in messages:
            response = service.ClassifyStreamResponse()
            for _ in message.requests:
                code = refused(fake.images)
                if code >= 0:
                    result = response.results.add(index=seen)
                    if code:
                        result.error.code = code
                    else:
                        result.classification.SetInParent()
                seen += 1
                fake.images += 1
            yield response
            if images_per_stream is not None and seen >= images_per_stream:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "enough")

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_handler(ECHO, unary), _stream_handler(stream)))
    fake.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield fake
    finally:
        await server.stop(None)


def _handler(path: str, unary: Any) -> grpc.GenericRpcHandler:
    _, name, method = path.split("/")
    return grpc.method_handlers_generic_handler(
        name, {method: grpc.unary_unary_rpc_method_handler(unary)}
    )


def _stream_handler(stream: Any) -> grpc.GenericRpcHandler:
    _, name, method = wire.CLASSIFY_STREAM.split("/")
    handler = grpc.stream_stream_rpc_method_handler(
        stream,
        request_deserializer=service.ClassifyStreamRequest.FromString,
        response_serializer=service.ClassifyStreamResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(name, {method: handler})
