"""What every call of the service passes, once and in one order.

    who calls -> may it -> does the message keep the contract's rules -> its share -> the handler

and on the way out: counted, timed, logged, and every exception made into a status with details.
Handlers are wrapped when the server is put together, so that a call costs no look-up.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from ibinn.errors import ExpiredError, RequestError
from service import logs, rules, traces
from service.access import Access, tls
from service.access.gate import Gate
from service.call import Call, Caller, Route
from service.monitoring import Monitor
from service.status import Failure, failure
from service.traces import Tracer

_log = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
_ANYBODY = Caller(name="", roles=frozenset())
"""Who calls a method that needs no role, such as a probe of readiness."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class Border:
    """Wraps the methods of services.

    Args:
        access: Says who calls and what they may do.
        monitor: Counts calls and rejections.
        tracer: Makes a span of each call.
        patience_s: Longest time for the message of a unary call to come.
        certificates: Whether callers show certificates, whose names then count.
    """

    def __init__(
        self,
        *,
        access: Access,
        monitor: Monitor,
        tracer: Tracer,
        patience_s: float,
        certificates: bool = False,
    ) -> None:
        self.access = access
        self.patience_s = patience_s
        self.monitor = monitor
        self.tracer = tracer
        self.certificates = certificates
        self.refusals = logs.Refusals(_log)
        self._in_flight = 0
        self._last_entry = -math.inf
        self._idle = asyncio.Event()
        self._idle.set()

    async def until_idle(self) -> None:
        """Waits until no call is in flight."""
        await self._idle.wait()

    async def until_quiet(self, seconds: float) -> None:
        """Waits until no call is in flight and none has come for so long."""
        while (rest_s := self._last_entry + seconds - time.monotonic()) > 0:
            await asyncio.sleep(rest_s)
            await self._idle.wait()

    def handler(self, service_name: str, routes: Sequence[Route]) -> grpc.GenericRpcHandler:
        """What gRPC asks for the methods of one service."""
        # Bytes come in and go out: a message that cannot be parsed is the caller's fault and gets a
        # status like any other, which gRPC's own deserializing would not give it.
        unary, streams = {}, {}
        for route in routes:
            path = f"{service_name}/{route.method}"
            if route.stream is not None:
                streams[route.method] = self._guarded_stream(route, path)
            else:
                unary[route.method] = self._guarded_unary(route, path)
        return Gate(
            access=self.access,
            patience_s=self.patience_s,
            service_name=service_name,
            unary=unary,
            streams=streams,
        )

    def _guarded_unary(self, route: Route, path: str) -> Callable[..., Any]:
        handle = route.unary
        assert handle is not None

        async def guarded(raw: bytes | None, context: grpc.aio.ServicerContext) -> bytes:
            passage = self._enter(route, path, context)
            with passage.span as span:
                try:
                    passage.begin(span)
                    if raw is None:
                        raise ExpiredError(
                            f"the call's message did not arrive within {self.patience_s:g} s; "
                            "send it at once"
                        )
                    message = parse(route.request, raw)
                    call = passage.named(message)
                    if route.images:
                        call.charge(route.images)
                    response = await handle(message, call)
                    answer: bytes = response.SerializeToString()
                    return answer
                except asyncio.CancelledError:
                    # gRPC cancels a call when its caller hangs up or has waited long enough.
                    passage.given_up()
                    raise
                except Exception as error:  # noqa: BLE001 - the border: nothing leaves unmapped
                    told = passage.failed(error)
                finally:
                    passage.end(span)
            await _abort(context, told, passage.request_id)

        return guarded

    def _guarded_stream(self, route: Route, path: str) -> Callable[..., Any]:
        handle = route.stream
        assert handle is not None

        async def guarded(
            raws: AsyncIterator[bytes], context: grpc.aio.ServicerContext
        ) -> AsyncIterator[bytes]:
            passage = self._enter(route, path, context)
            with passage.span as span:
                try:
                    passage.begin(span)
                    call = passage.named(None)
                    await context.send_initial_metadata(((REQUEST_ID, call.request_id),))
                    messages = (parse(route.request, raw) async for raw in raws)
                    async for response in handle(messages, call):
                        yield response.SerializeToString()
                    return
                except (asyncio.CancelledError, GeneratorExit):
                    passage.given_up()
                    raise
                except Exception as error:  # noqa: BLE001 - the border: nothing leaves unmapped
                    told = passage.failed(error)
                finally:
                    passage.end(span)
            await _abort(context, told, passage.request_id)

        return guarded

    def _enter(self, route: Route, path: str, context: grpc.aio.ServicerContext) -> _Passage:
        self._in_flight += 1
        self._last_entry = time.monotonic()
        self._idle.clear()
        return _Passage(self, route, path, context)

    def leave(self) -> None:
        """A call has ended."""
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()


class _Passage:
    """One call on its way through the border."""

    __slots__ = (
        "_border",
        "_caller",
        "_code",
        "_context",
        "_metadata",
        "_reason",
        "_route",
        "_start",
        "request_id",
        "span",
    )

    def __init__(
        self, border: Border, route: Route, path: str, context: grpc.aio.ServicerContext
    ) -> None:
        self._border = border
        self._route = route
        self._context = context
        self._start = time.monotonic()
        self._code = grpc.StatusCode.OK
        self._reason = ""
        self.request_id = ""
        self._metadata = context.invocation_metadata() or ()
        self.span = border.tracer.span(path, self._metadata)

    def begin(self, span: traces.Span) -> None:
        """Who calls, and may they."""
        border, context, metadata = self._border, self._context, self._metadata
        traces.enter(span)
        self.request_id = _named(metadata)
        if self._route.role is None:
            self._caller = _ANYBODY
            return
        names = tls.certificate_names(context.auth_context()) if border.certificates else ()
        self._caller = border.access.identify(metadata, context.peer(), names)
        border.access.require(self._caller, self._route.role)

    def named(self, message: Any) -> Call:
        """The call under the name that its message gives it, or metadata, or this server."""
        self.request_id = getattr(message, "request_id", "") or self.request_id or uuid.uuid4().hex
        logs.bind(self.request_id, self._route.method)
        remaining_s = self._context.time_remaining()
        return Call(
            method=self._route.method,
            request_id=self.request_id,
            caller=self._caller,
            deadline=math.inf if remaining_s is None else self._start + remaining_s,
            charge=functools.partial(self._border.access.charge, self._caller),
        )

    def given_up(self) -> None:
        """The caller does not wait any more."""
        expired = self._context.time_remaining() == 0
        self._code = grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED
        self._reason = "EXPIRED" if expired else "CANCELLED"

    def failed(self, error: Exception) -> Failure:
        """What to tell the caller about an exception."""
        if not self.request_id:
            self.request_id = uuid.uuid4().hex
        # A call that is refused at the door was not named yet.
        logs.bind(self.request_id, self._route.method)
        told = failure(error, request_id=self.request_id)
        self._code, self._reason = told.code, told.reason
        if told.incident_id is not None:
            self._border.refusals.broke(
                error,
                status=told.code.name,
                incident_id=told.incident_id,
                seconds=time.monotonic() - self._start,
            )
        return told

    def end(self, span: traces.Span) -> None:
        """Counts, logs, lets go."""
        border, seconds, code = self._border, time.monotonic() - self._start, self._code.name
        border.leave()
        border.monitor.request(self._route.method, code, seconds)
        span.named(self.request_id)
        span.ended(code, self._reason)
        if self._reason:
            border.monitor.rejection(self._reason)
            if self._reason != "INTERNAL":
                border.refusals.refused(status=code, reason=self._reason, seconds=seconds)


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


async def _abort(context: grpc.aio.ServicerContext, told: Failure, request_id: str) -> NoReturn:
    await context.abort(told.code, told.message, told.trailing_metadata(request_id))
    raise AssertionError("abort raises")
