"""What every call of the service passes: timing, counting, and errors made into statuses."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from service.monitoring import Monitor
from service.status import failure

_log = logging.getLogger(__name__)

Handler = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


class Border(grpc.aio.ServerInterceptor):
    """Wraps the unary methods of one service; others pass untouched.

    Args:
        service_name: Full name of the service to guard.
        monitor: Counts calls and rejections.
    """

    def __init__(self, *, service_name: str, monitor: Monitor) -> None:
        self._prefix = f"/{service_name}/"
        self._monitor = monitor
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def until_idle(self) -> None:
        """Waits until no call is in flight."""
        await self._idle.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Wraps the method's handler if it belongs to the service."""
        handler = await continuation(handler_call_details)
        path: str = handler_call_details.method
        if handler is None or not path.startswith(self._prefix):
            return handler
        return grpc.unary_unary_rpc_method_handler(
            self._guarded(path.removeprefix(self._prefix), handler.unary_unary),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _guarded(self, method: str, handle: Handler) -> Handler:
        async def guarded(request: Any, context: grpc.aio.ServicerContext) -> Any:
            start = time.monotonic()
            self._enter()
            code = grpc.StatusCode.OK
            try:
                return await handle(request, context)
            except asyncio.CancelledError:
                # gRPC cancels the call when its caller hangs up or has waited long enough.
                expired = context.time_remaining() == 0
                code = grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED
                self._monitor.rejection("EXPIRED" if expired else "CANCELLED")
                raise
            except Exception as error:  # noqa: BLE001 - the border: nothing may leave unmapped
                told = failure(error)
                code = told.code
                self._monitor.rejection(told.reason)
                if told.incident_id is not None:
                    _log.exception("incident %s in %s", told.incident_id, method)
            finally:
                self._leave()
                self._monitor.request(method, code.name, time.monotonic() - start)
            await context.abort(told.code, told.message, told.trailing_metadata())

        return guarded

    def _enter(self) -> None:
        self._in_flight += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()
