"""From a failed call, or an image that a stream could not answer, to the exception raised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from ibinn import errors

REQUEST_ID_KEY = "x-request-id"

_BY_CODE: dict[grpc.StatusCode, type[errors.RemoteError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidImageError,
    grpc.StatusCode.NOT_FOUND: errors.NotFoundError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.OverloadedError,
    grpc.StatusCode.UNAVAILABLE: errors.UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineError,
    grpc.StatusCode.FAILED_PRECONDITION: errors.PreconditionError,
    grpc.StatusCode.UNAUTHENTICATED: errors.NotAuthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: errors.NotAllowedError,
}
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_DETAILS_KEY = "grpc-status-details-bin"
_MESSAGE_TOO_LARGE = "message larger than max"
"""gRPC refuses a message of more bytes than the server takes with RESOURCE_EXHAUSTED and these
words, before the server's own limit can speak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Details:
    """What the google.rpc details of a status say."""

    retry_after_s: float | None = None
    reason: str = ""
    request_id: str = ""
    reasons: tuple[str, ...] = ()


def remote_error(
    error: Any, *, target: str, timeout_s: float | None, request_id: str = ""
) -> errors.RemoteError:
    """The exception for a failed call.

    Args:
        error: A `grpc.RpcError` of a finished call.
        target: The server's address, for messages.
        timeout_s: The time that the call was given.
        request_id: The name that the call was given.
    """
    code: grpc.StatusCode = error.code()
    message: str = error.details() or code.name
    status = _status(error)
    from_ibinn = status is not None
    details = _details(status) if status is not None else _Details()
    kind = _BY_CODE.get(code, errors.InternalServerError)
    if not from_ibinn:
        if is_message_too_large(code, message):
            kind = errors.InvalidImageError
            message = (
                f"the server at {target} does not take a request of this size ({message}); "
                "send a smaller image"
            )
        elif code is grpc.StatusCode.UNAVAILABLE:
            message = (
                f"no answer from {target}: {message}; check the address, or start a server there "
                "with ibinn-serve"
            )
        elif code is grpc.StatusCode.CANCELLED:
            # Not by this side, or nobody would be told: gRPC ends so what a server that closes had
            # received and not begun.
            kind = errors.UnavailableError
            message = f"the server at {target} closed before it took the call on; ask again"
        elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
            message = (
                f"no answer from {target} within {timeout_s} s; give the call a larger timeout_s"
            )
        elif code is grpc.StatusCode.UNIMPLEMENTED:
            message = f"the server at {target} does not offer this call: {message}"
    return _exception(kind, code, message, details, request_id=_named(error) or request_id)


def image_error(status: status_pb2.Status, *, request_id: str) -> errors.RemoteError:
    """The exception for an image of a stream that has no answer.

    Args:
        status: What the server says of it.
        request_id: The image's request.
    """
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    kind = _BY_CODE.get(code, errors.InternalServerError)
    message = status.message or code.name
    return _exception(kind, code, message, _details(status), request_id=request_id)


def is_message_too_large(code: grpc.StatusCode, message: str) -> bool:
    """Whether a status says that gRPC itself refused a message for its size."""
    return code is grpc.StatusCode.RESOURCE_EXHAUSTED and _MESSAGE_TOO_LARGE in message


def _exception(
    kind: type[errors.RemoteError],
    code: grpc.StatusCode,
    message: str,
    details: _Details,
    *,
    request_id: str,
) -> errors.RemoteError:
    return kind(
        message,
        code=code.name,
        retry_after_s=details.retry_after_s,
        reason=details.reason,
        request_id=details.request_id or request_id,
        reasons=details.reasons,
    )


def _named(error: Any) -> str:
    """The request's name in the metadata that a call began or ended with."""
    for metadata in (error.initial_metadata(), error.trailing_metadata()):
        for key, value in metadata or ():
            if key == REQUEST_ID_KEY:
                return str(value)
    return ""


def _status(error: Any) -> status_pb2.Status | None:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:  # not of our server; the code and the message remain
                return None
    return None


def _details(status: status_pb2.Status) -> _Details:
    retry_after_s: float | None = None
    reason, request_id = "", ""
    reasons: list[str] = []
    retry = error_details_pb2.RetryInfo()
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.RequestInfo()
    precondition = error_details_pb2.PreconditionFailure()
    for detail in status.details:
        if detail.Unpack(retry):
            retry_after_s = float(retry.retry_delay.ToTimedelta().total_seconds())
        elif detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(request):
            request_id = request.request_id
        elif detail.Unpack(precondition):
            reasons += [violation.description for violation in precondition.violations]
    return _Details(
        retry_after_s=retry_after_s, reason=reason, request_id=request_id, reasons=tuple(reasons)
    )
