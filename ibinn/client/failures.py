"""From a failed call to the exception that `ibinn.client` raises."""

from __future__ import annotations

from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from ibinn import errors

_BY_CODE: dict[grpc.StatusCode, type[errors.RemoteError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidImageError,
    grpc.StatusCode.NOT_FOUND: errors.NotFoundError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.OverloadedError,
    grpc.StatusCode.UNAVAILABLE: errors.UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineError,
    grpc.StatusCode.FAILED_PRECONDITION: errors.PreconditionError,
}
_DETAILS_KEY = "grpc-status-details-bin"
_MESSAGE_TOO_LARGE = "message larger than max"
"""gRPC refuses a message of more bytes than the server takes with RESOURCE_EXHAUSTED and these
words, before the server's own limit can speak."""


def remote_error(error: Any, *, target: str, timeout_s: float | None) -> errors.RemoteError:
    """The exception for a failed call.

    Args:
        error: A `grpc.RpcError` of a finished call.
        target: The server's address, for messages.
        timeout_s: The time that the call was given.
    """
    code: grpc.StatusCode = error.code()
    message: str = error.details() or code.name
    details = _details(error)
    from_ibinn = details is not None
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _MESSAGE_TOO_LARGE in message:
        return errors.InvalidImageError(
            f"the server at {target} does not take a request of this size ({message}); "
            "send a smaller image",
            code=code.name,
        )
    if code is grpc.StatusCode.UNAVAILABLE and not from_ibinn:
        message = (
            f"no answer from {target}: {message}; check the address, or start a server there "
            "with ibinn-serve"
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and not from_ibinn:
        message = f"no answer from {target} within {timeout_s} s; give the call a larger timeout_s"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        message = f"the server at {target} does not offer this call: {message}"
    exception = _BY_CODE.get(code, errors.InternalServerError)
    return exception(message, code=code.name, retry_after_s=_retry_after_s(details))


def _details(error: Any) -> status_pb2.Status | None:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            return status_pb2.Status.FromString(value)
    return None


def _retry_after_s(status: status_pb2.Status | None) -> float | None:
    for detail in status.details if status is not None else ():
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(retry):
            return float(retry.retry_delay.ToTimedelta().total_seconds())
    return None
