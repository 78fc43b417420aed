"""Turns callers away at the door: before their message is read, or where none comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from service.access.access import Access

Unary = Callable[[bytes | None, Any], Awaitable[bytes]]
"""Takes the message, or None where it did not come in time."""


class Gate(grpc.GenericRpcHandler):
    """The handlers of a service, of which callers without a known token get only the refusal.

    gRPC reads the message of a unary call, however large and for however long, before its handler
    runs; so callers that nobody knows could fill the memory, and those that send half a message or
    none the number of calls that there may be. A handler of streams runs before anything is read.

    Args:
        access: Says who may enter.
        patience_s: Longest time for the message of a unary call to come.
        unary: The service's unary methods, by name; each refuses by itself who may not call.
        streams: Its methods of streams, by name.
        service_name: Full name of the service.
    """

    def __init__(
        self,
        *,
        access: Access,
        patience_s: float,
        service_name: str,
        unary: dict[str, Unary],
        streams: dict[str, Callable[..., Any]],
    ) -> None:
        self._access = access
        shared = {
            name: grpc.stream_stream_rpc_method_handler(stream) for name, stream in streams.items()
        }
        inside = {
            name: grpc.stream_unary_rpc_method_handler(_read(call, patience_s))
            for name, call in unary.items()
        }
        outside = {
            name: grpc.stream_unary_rpc_method_handler(_unread(call))
            for name, call in unary.items()
        }
        self._inside = grpc.method_handlers_generic_handler(service_name, {**shared, **inside})
        self._outside = grpc.method_handlers_generic_handler(service_name, {**shared, **outside})

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a call; None: not of this service."""
        found = self._inside.service(handler_call_details)
        if found is None or self._access.may_enter(handler_call_details.invocation_metadata or ()):
            return found
        return self._outside.service(handler_call_details)


def _read(call: Unary, patience_s: float) -> Callable[[Any, Any], Awaitable[bytes]]:
    """The same method as one of streams: it gets the first message."""

    async def read(messages: Any, context: Any) -> bytes:
        message: bytes | None
        try:
            async with asyncio.timeout(patience_s):
                message = await anext(messages, b"")
        except TimeoutError:
            message = None
        return await call(message, context)

    return read


def _unread(call: Unary) -> Callable[[Any, Any], Awaitable[bytes]]:
    """The same method as one of streams: it gets nothing, and what was sent stays unread."""

    async def unread(messages: Any, context: Any) -> bytes:
        return await call(b"", context)

    return unread
