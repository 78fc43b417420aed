"""What every call of the service passes, once and in one order.

    who calls -> may it -> does the message keep the contract's rules -> its share -> the handler

and on the way out: counted, timed, logged, and every exception made into a status with details.
Handlers are wrapped when the server is put together, so that a call costs no look-up.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from ibinn.errors import RequestError
from service import logs, rules
from service.access import Access, tls
from service.call import Call, Caller, Route
from service.monitoring import Monitor
from service.status import failure

_log = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class Border:
    """Wraps the methods of services.

    Args:
        access: Says who calls and what they may do.
        monitor: Counts calls and rejections.
        certificates: Whether callers show certificates, whose names then count.
    """

    def __init__(self, *, access: Access, monitor: Monitor, certificates: bool = False) -> None:
        self._access = access
        self._certificates = certificates
        self._monitor = monitor
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def until_idle(self) -> None:
        """Waits until no call is in flight."""
        await self._idle.wait()

    def handler(self, service_name: str, routes: Sequence[Route]) -> grpc.GenericRpcHandler:
        """What gRPC asks for the methods of one service."""
        handlers = {}
        for route in routes:
            # Bytes come in and go out: a message that cannot be parsed is the caller's fault and
            # gets a status like any other, which gRPC's own deserializing would not give it.
            if route.stream is not None:
                handlers[route.method] = grpc.stream_stream_rpc_method_handler(
                    self._guarded_stream(route)
                )
            else:
                handlers[route.method] = grpc.unary_unary_rpc_method_handler(
                    self._guarded_unary(route)
                )
        return grpc.method_handlers_generic_handler(service_name, handlers)

    def _guarded_unary(self, route: Route) -> Callable[..., Any]:
        handle = route.unary
        assert handle is not None

        async def guarded(raw: bytes, context: grpc.aio.ServicerContext) -> bytes:
            start = time.monotonic()
            self._enter()
            code = grpc.StatusCode.OK
            request_id = ""
            try:
                call = self._call(route, context)
                request_id = call.request_id
                message = parse(route.request, raw)
                if named := getattr(message, "request_id", ""):
                    call = _renamed(call, named)
                    request_id = named
                context.set_trailing_metadata(((REQUEST_ID, request_id),))
                logs.bind(request_id, route.method)
                if route.images:
                    call.charge(route.images)
                response = await handle(message, call)
                answer: bytes = response.SerializeToString()
                return answer
            except asyncio.CancelledError:
                # gRPC cancels the call when its caller hangs up or has waited long enough.
                code = self._given_up(context)
                raise
            except Exception as error:  # noqa: BLE001 - the border: nothing may leave unmapped
                told = self._failed(route, error, request_id)
                code = told.code
            finally:
                self._leave()
                self._monitor.request(route.method, code.name, time.monotonic() - start)
            await context.abort(told.code, told.message, told.trailing_metadata(request_id))

        return guarded

    def _guarded_stream(self, route: Route) -> Callable[..., Any]:
        handle = route.stream
        assert handle is not None

        async def guarded(
            raws: AsyncIterator[bytes], context: grpc.aio.ServicerContext
        ) -> AsyncIterator[bytes]:
            start = time.monotonic()
            self._enter()
            code = grpc.StatusCode.OK
            request_id = ""
            try:
                call = self._call(route, context)
                request_id = call.request_id
                logs.bind(request_id, route.method)
                await context.send_initial_metadata(((REQUEST_ID, request_id),))
                messages = (parse(route.request, raw) async for raw in raws)
                async for response in handle(messages, call):
                    yield response.SerializeToString()
                return
            except (asyncio.CancelledError, GeneratorExit):
                code = self._given_up(context)
                raise
            except Exception as error:  # noqa: BLE001 - the border: nothing may leave unmapped
                told = self._failed(route, error, request_id)
                code = told.code
            finally:
                self._leave()
                self._monitor.request(route.method, code.name, time.monotonic() - start)
            await context.abort(told.code, told.message, told.trailing_metadata(request_id))

        return guarded

    def _call(self, route: Route, context: grpc.aio.ServicerContext) -> Call:
        metadata = context.invocation_metadata() or ()
        names = tls.certificate_names(context.auth_context()) if self._certificates else ()
        caller = self._access.identify(metadata, context.peer(), names)
        if route.role is not None:
            self._access.require(caller, route.role)
        remaining_s = context.time_remaining()
        return Call(
            method=route.method,
            request_id=_named(metadata) or uuid.uuid4().hex,
            caller=caller,
            deadline=math.inf if remaining_s is None else time.monotonic() + remaining_s,
            charge=self._charge(caller),
        )

    def _charge(self, caller: Caller) -> Callable[[int], None]:
        def charge(images: int) -> None:
            self._access.charge(caller, images)

        return charge

    def _given_up(self, context: grpc.aio.ServicerContext) -> grpc.StatusCode:
        expired = context.time_remaining() == 0
        self._monitor.rejection("EXPIRED" if expired else "CANCELLED")
        return grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED

    def _failed(self, route: Route, error: Exception, request_id: str) -> Any:
        told = failure(error, request_id=request_id)
        self._monitor.rejection(told.reason)
        if told.incident_id is not None:
            _log.error("incident %s in %s", told.incident_id, route.method, exc_info=error)
        elif _log.isEnabledFor(logging.DEBUG):
            _log.debug("%s refused: %s (%s)", route.method, told.message, told.reason)
        return told

    def _enter(self) -> None:
        self._in_flight += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()


def parse(kind: type[Any], raw: bytes) -> Message:
    """The message in bytes off the wire, held against the contract's rules.

    Raises:
        RequestError: The bytes are no such message, or a field breaks a rule.
    """
    try:
        message: Message = kind.FromString(raw)
    except DecodeError as error:
        raise RequestError(
            f"the {len(raw)} bytes received are not a message {kind.DESCRIPTOR.full_name}; send "
            "one made from this server's .proto files",
            field="",
        ) from error
    rules.check(message)
    return message


def _named(metadata: Sequence[tuple[str, Any]]) -> str:
    for key, value in metadata:
        if key == REQUEST_ID:
            if isinstance(value, str) and _REQUEST_ID.fullmatch(value):
                return value
            raise RequestError(
                f"metadata {REQUEST_ID} is not a request id; expected up to 64 letters, digits, "
                "dots, colons, hyphens and underscores",
                field=REQUEST_ID,
            )
    return ""


def _renamed(call: Call, request_id: str) -> Call:
    return Call(
        method=call.method,
        request_id=request_id,
        caller=call.caller,
        deadline=call.deadline,
        charge=call.charge,
    )
