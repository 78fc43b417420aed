"""Every status becomes its exception, with all that the server said of it."""

from __future__ import annotations

import grpc
import pytest
from google.rpc.error_details_pb2 import PreconditionFailure

from ibinn import errors
from ibinn.client import AsyncClient, Retry
from ibinn.client.failures import image_error
from tests.ibinn.client.fake import Code, Fail, Fake, serving
from tests.service.stub import png

KINDS = {
    Code.INVALID_ARGUMENT: errors.InvalidImageError,
    Code.NOT_FOUND: errors.NotFoundError,
    Code.RESOURCE_EXHAUSTED: errors.OverloadedError,
    Code.UNAVAILABLE: errors.UnavailableError,
    Code.DEADLINE_EXCEEDED: errors.DeadlineError,
    Code.FAILED_PRECONDITION: errors.PreconditionError,
    Code.UNAUTHENTICATED: errors.NotAuthenticatedError,
    Code.PERMISSION_DENIED: errors.NotAllowedError,
    Code.INTERNAL: errors.InternalServerError,
    Code.UNKNOWN: errors.InternalServerError,
    Code.DATA_LOSS: errors.InternalServerError,
}
CODES = pytest.mark.parametrize("code", KINDS, ids=lambda code: code.name)


async def raised(fail: Fail, *, request_id: str | None = None) -> errors.RemoteError:
    async with (
        serving(Fake(replies=[fail])) as fake,
        AsyncClient(fake.target, retry=Retry.none()) as client,
    ):
        with pytest.raises(errors.RemoteError) as caught:
            await client.classify(png(), request_id=request_id)
    return caught.value


@CODES
async def test_a_status_is_its_exception_for_a_call_and_for_an_image_of_a_stream(
    code: grpc.StatusCode,
) -> None:
    fail = Fail(code, "told so", reason="WHY", request_id="named-there", retry_after_s=1.5)
    for error in (await raised(fail), image_error(fail.status(), request_id="named-here")):
        assert type(error) is KINDS[code]
        assert str(error) == "told so"
        assert (error.code, error.reason, error.request_id) == (code.name, "WHY", "named-there")
        assert error.retry_after_s == 1.5


async def test_every_single_reason_is_there() -> None:
    violations = [
        PreconditionFailure.Violation(type="CANDIDATE", description=words)
        for words in ("accuracy 0.7 is below 0.8", "the signature is missing")
    ]
    fail = Fail(Code.FAILED_PRECONDITION, more=(PreconditionFailure(violations=violations),))
    error = await raised(fail)
    assert error.reasons == ("accuracy 0.7 is below 0.8", "the signature is missing")


async def test_a_request_has_its_name_also_where_the_server_says_none() -> None:
    assert (await raised(Fail(Code.INTERNAL), request_id="mine")).request_id == "mine"
    assert len((await raised(Fail(Code.INTERNAL))).request_id) == 32


async def test_statuses_that_are_not_the_servers_own_say_what_to_do() -> None:
    unavailable = await raised(Fail(Code.UNAVAILABLE, "connection refused", bare=True))
    assert "start a server there with ibinn-serve" in str(unavailable)
    late = await raised(Fail(Code.DEADLINE_EXCEEDED, "late", bare=True))
    assert "give the call a larger timeout_s" in str(late)
    assert (late.reason, late.reasons) == ("", ())
    closing = await raised(Fail(Code.CANCELLED, "CANCELLED", bare=True))
    assert isinstance(closing, errors.UnavailableError), "so that it is asked again"
    assert "closed before it took the call on" in str(closing)
    unknown = await raised(Fail(Code.UNIMPLEMENTED, "no such method", bare=True))
    assert "does not offer this call" in str(unknown)


def test_a_number_that_is_no_status_is_a_fault_of_the_server() -> None:
    from google.rpc.status_pb2 import Status

    error = image_error(Status(code=99, message="?"), request_id="r")
    assert (type(error), error.code) == (errors.InternalServerError, "UNKNOWN")
