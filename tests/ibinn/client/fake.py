"""A server that answers as a test tells it, on a free port: statuses, details, silence."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from ibinn.v1 import admin_service_pb2 as admin
from ibinn.v1 import classification_service_pb2 as service
from service import converters
from tests.service.stub import make_prediction

Code = grpc.StatusCode


@dataclass(frozen=True, slots=True)
class Fail:
    """A status to end a call or an image with."""

    code: grpc.StatusCode
    message: str = "told to fail"
    retry_after_s: float | None = None
    reason: str = "SCRIPTED"
    request_id: str = ""
    more: tuple[Message, ...] = ()
    bare: bool = False  # without details, as gRPC or a proxy would

    def status(self) -> Status:
        details: list[Message] = [ErrorInfo(domain="ibinn", reason=self.reason), *self.more]
        if self.request_id:
            details.append(RequestInfo(request_id=self.request_id))
        if self.retry_after_s is not None:
            delay = Duration()
            delay.FromNanoseconds(round(self.retry_after_s * 1e9))
            details.append(RetryInfo(retry_delay=delay))
        status = Status(code=self.code.value[0], message=self.message)
        for detail in details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        return status

    async def end(self, context: grpc.aio.ServicerContext) -> None:
        trailing = (
            () if self.bare else (("grpc-status-details-bin", self.status().SerializeToString()),)
        )
        await context.abort(self.code, self.message, trailing)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call as it arrived."""

    method: str
    request: Any
    metadata: dict[str, str]
    peer: str
    at: float
    left_s: float | None


Reply = Message | Fail | Callable[[Any], Any] | None
Streaming = Callable[[AsyncIterator[Any], int], AsyncIterator[Any]]


@dataclass(slots=True)
class Fake:
    """What the server is to do, and what it saw.

    Attributes:
        replies: What each next call is answered with: a message, a failure, or None for never.
            Once they are used up, every call is answered.
        stream: Handles each ClassifyStream, told how many there were before; an exception `Ended`
            ends it with a failure.
        attempts: Every call so far.
    """

    target: str = ""
    replies: list[Reply] = field(default_factory=list)
    stream: Streaming | None = None
    attempts: list[Attempt] = field(default_factory=list)
    open_streams: int = 0

    @property
    def waits_s(self) -> list[float]:
        """Time between one attempt and the next."""
        times = [attempt.at for attempt in self.attempts]
        return [later - sooner for sooner, later in itertools.pairwise(times)]


class Ended(Exception):  # noqa: N818 - not an error of the test
    """Ends a stream with a failure."""

    def __init__(self, fail: Fail) -> None:
        super().__init__(fail.message)
        self.fail = fail


def answer_to(request: service.ClassifyRequest, **changes: Any) -> service.ClassifyResult:
    """The result of one image of a stream; its record id holds the image's bytes."""
    result = service.ClassifyResult(request_id=request.request_id)
    converters.fill(result.classification, make_prediction(**changes), service.AnswerOptions())
    result.classification.record_id = request.image.hex()
    result.classification.request_id = request.request_id
    return result


def refusal_of(request: service.ClassifyRequest, fail: Fail) -> service.ClassifyResult:
    """The failure of one image of a stream."""
    return service.ClassifyResult(request_id=request.request_id, error=fail.status())


def of(*results: service.ClassifyResult) -> service.ClassifyStreamResponse:
    return service.ClassifyStreamResponse(results=results)


async def answer_all(requests: AsyncIterator[Any], _: int) -> AsyncIterator[Any]:
    """A stream that answers every image as it comes."""
    async for message in requests:
        yield of(*(answer_to(request) for request in message.requests))


_UNARY: dict[str, tuple[type[Any], Callable[[Any], Message]]] = {
    "ibinn.v1.ClassificationService/Classify": (
        service.ClassifyRequest,
        lambda request: service.ClassifyResponse(classification=answer_to(request).classification),
    ),
    "ibinn.v1.ClassificationService/GetModel": (
        service.GetModelRequest,
        lambda _: service.GetModelResponse(model={"name": "fake"}, mode="MODE_NORMAL"),
    ),
    **{
        f"ibinn.v1.AdminService/{name}": (
            getattr(admin, f"{name}Request"),
            lambda _, name=name: getattr(admin, f"{name}Response")(state={"mode": 1}),
        )
        for name in ("Reload", "Rollback", "SetShadow", "SetMode", "AcknowledgeDrift")
    },
    "ibinn.v1.AdminService/EraseImage": (
        admin.EraseImageRequest,
        lambda _: admin.EraseImageResponse(),
    ),
    **{
        f"ibinn.v1.ClassificationService/{name}": (
            getattr(service, f"{name}Request"),
            lambda _, name=name: getattr(service, f"{name}Response")(),
        )
        for name in ("SubmitFeedback", "GetRecord", "ListEntries")
    },
    "ibinn.v1.AdminService/GetStatus": (
        admin.GetStatusRequest,
        lambda _: admin.GetStatusResponse(state={"mode": 1}),
    ),
}


class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, fake: Fake) -> None:
        self._fake = fake

    def service(self, details: Any) -> Any:
        path = details.method.removeprefix("/")
        if path == "ibinn.v1.ClassificationService/ClassifyStream":
            return grpc.stream_stream_rpc_method_handler(
                self._stream,
                request_deserializer=service.ClassifyStreamRequest.FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
        if path not in _UNARY:
            return None
        kind, default = _UNARY[path]
        return grpc.unary_unary_rpc_method_handler(
            self._unary(path.rpartition("/")[2], default),
            request_deserializer=kind.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _unary(self, method: str, default: Any) -> Callable[[Any, Any], Awaitable[Any]]:
        async def handle(request: Any, context: grpc.aio.ServicerContext) -> Any:
            self._note(method, request, context)
            reply = self._fake.replies.pop(0) if self._fake.replies else default
            if reply is None:
                await asyncio.Event().wait()
            if isinstance(reply, Fail):
                await reply.end(context)
            return reply(request) if callable(reply) else reply

        return handle

    async def _stream(
        self, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Any]:
        before = sum(attempt.method == "ClassifyStream" for attempt in self._fake.attempts)
        self._note("ClassifyStream", None, context)
        self._fake.open_streams += 1
        handle = self._fake.stream or answer_all
        try:
            async for response in handle(requests, before):
                yield response
        except Ended as ended:
            await ended.fail.end(context)
        finally:
            self._fake.open_streams -= 1

    def _note(self, method: str, request: Any, context: grpc.aio.ServicerContext) -> None:
        left = context.time_remaining()
        self._fake.attempts.append(
            Attempt(
                method=method,
                request=request,
                metadata={str(key): value for key, value in context.invocation_metadata()},
                peer=context.peer(),
                at=asyncio.get_running_loop().time(),
                left_s=left,
            )
        )


@contextlib.asynccontextmanager
async def serving(
    fake: Fake | None = None,
    *,
    port: int = 0,
    credentials: grpc.ServerCredentials | None = None,
    **options: int,
) -> AsyncIterator[Fake]:
    """A started server; stopped at the end.

    Args:
        options: Of gRPC, without ``grpc.``.
    """
    fake = fake or Fake()
    server = grpc.aio.server(options=[(f"grpc.{key}", value) for key, value in options.items()])
    server.add_generic_rpc_handlers((Handler(fake),))
    address = f"127.0.0.1:{port}"
    found = (
        server.add_insecure_port(address)
        if credentials is None
        else server.add_secure_port(address, credentials)
    )
    await server.start()
    fake.target = f"127.0.0.1:{found}"
    try:
        yield fake
    finally:
        await server.stop(grace=None)
