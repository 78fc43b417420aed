"""From an exception to a gRPC status with details; the only place that knows which is which.

Details follow google.rpc: ErrorInfo always (with the incident id for a fault of ours), RequestInfo
with the request's id, BadRequest for a field at fault, PreconditionFailure with every reason a
candidate was refused, RetryInfo where another try makes sense.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    PreconditionFailure,
    RequestInfo,
    RetryInfo,
)
from google.rpc.status_pb2 import Status

from ibinn import errors

DOMAIN = "ibinn"
_NOT_SERVING_RETRY_S = 1.0

_CODES: tuple[tuple[type[Exception], grpc.StatusCode, str], ...] = (
    # The first match counts: subclasses stand before their bases.
    (errors.ImageTooLargeError, grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_TOO_LARGE"),
    (errors.ImageDecodeError, grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_UNREADABLE"),
    (errors.ImageError, grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_REFUSED"),
    (errors.RequestError, grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID"),
    (errors.UnauthenticatedError, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    (errors.ForbiddenError, grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN"),
    (errors.UnknownClassError, grpc.StatusCode.NOT_FOUND, "CLASS_UNKNOWN"),
    (errors.UnknownModelError, grpc.StatusCode.NOT_FOUND, "MODEL_UNKNOWN"),
    (errors.UnknownRecordError, grpc.StatusCode.NOT_FOUND, "RECORD_UNKNOWN"),
    (errors.CandidateRefusedError, grpc.StatusCode.FAILED_PRECONDITION, "CANDIDATE_REFUSED"),
    (errors.NotPossibleError, grpc.StatusCode.FAILED_PRECONDITION, "NOT_POSSIBLE"),
    (errors.NotExplainableError, grpc.StatusCode.FAILED_PRECONDITION, "NOT_EXPLAINABLE"),
    (errors.NotCalibratedError, grpc.StatusCode.FAILED_PRECONDITION, "NOT_CALIBRATED"),
    (errors.RateLimitedError, grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED"),
    (errors.QueueFullError, grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
    (errors.RecordsUnavailableError, grpc.StatusCode.UNAVAILABLE, "RECORDS_UNAVAILABLE"),
    (errors.NotServingError, grpc.StatusCode.UNAVAILABLE, "NOT_SERVING"),
    (errors.ExpiredError, grpc.StatusCode.DEADLINE_EXCEEDED, "EXPIRED"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What a caller is told instead of a result.

    Attributes:
        code: gRPC status.
        reason: Name of the cause, from a fixed set; label of the rejection counter.
        message: For people.
        details: google.rpc messages.
        incident_id: Given only where the fault is ours; stands in the log beside the trace.
    """

    code: grpc.StatusCode
    reason: str
    message: str
    details: tuple[Message, ...]
    incident_id: str | None = None

    def status(self) -> Status:
        """Code, message and details in one message, as a stream carries them for each image."""
        status = Status(code=self.code.value[0], message=self.message)
        for detail in self.details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        return status

    def trailing_metadata(self, request_id: str = "") -> tuple[tuple[str, str | bytes], ...]:
        """The details as gRPC carries them."""
        named = (("x-request-id", request_id),) if request_id else ()
        return (("grpc-status-details-bin", self.status().SerializeToString()), *named)


def failure(error: Exception, *, request_id: str = "") -> Failure:
    """What to tell the caller about an exception.

    An exception that is not one of the caller's or the load's is a fault of ours: the caller
    learns an incident id and nothing else.

    Args:
        error: What went wrong.
        request_id: The request's name, if it got one.
    """
    request = (RequestInfo(request_id=request_id),) if request_id else ()
    for kind, code, reason in _CODES:
        if isinstance(error, kind):
            info = ErrorInfo(domain=DOMAIN, reason=reason)
            details = (info, *request, *_details(error))
            return Failure(code=code, reason=reason, message=str(error), details=details)
    incident_id = uuid.uuid4().hex
    return Failure(
        code=grpc.StatusCode.INTERNAL,
        reason="INTERNAL",
        message=f"a fault of the server; incident {incident_id}: give this id to its operator",
        details=(
            ErrorInfo(domain=DOMAIN, reason="INTERNAL", metadata={"incident_id": incident_id}),
            *request,
        ),
        incident_id=incident_id,
    )


def _details(error: Exception) -> tuple[Message, ...]:
    match error:
        case errors.ImageError() | errors.RequestError():
            violation = BadRequest.FieldViolation(field=error.field, description=str(error))
            return (BadRequest(field_violations=[violation]),)
        case errors.UnknownClassError():
            violation = BadRequest.FieldViolation(field="classes", description=str(error))
            return (BadRequest(field_violations=[violation]),)
        case errors.CandidateRefusedError():
            reasons = [
                PreconditionFailure.Violation(type="CANDIDATE", description=reason)
                for reason in error.reasons
            ]
            return (PreconditionFailure(violations=reasons),)
        case errors.QueueFullError():
            return (_retry(error.retry_after_s),)
        case errors.NotServingError():
            return (_retry(_NOT_SERVING_RETRY_S),)
        case _:
            return ()


def _retry(seconds: float) -> RetryInfo:
    delay = Duration()
    delay.FromNanoseconds(round(seconds * 1e9))
    return RetryInfo(retry_delay=delay)
