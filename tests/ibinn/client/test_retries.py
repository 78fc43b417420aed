"""A failed call is tried again where that helps, never too early, too late or too often."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibinn import errors
from ibinn.client import AsyncClient, Client, Retry
from ibinn.client.retries import Attempts, Budget, may_be_repeated
from tests.ibinn.client.fake import Code, Fail, Fake, serving
from tests.service.stub import png

QUICK = Retry(base_s=0.001, max_s=0.002)


class Time:
    """A clock that goes when it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def overloaded(retry_after_s: float | None = None) -> errors.RemoteError:
    return errors.OverloadedError("full", code="RESOURCE_EXHAUSTED", retry_after_s=retry_after_s)


def attempts(retry: Retry, *, timeout_s: float | None = None, drawn: float = 1.0) -> Attempts:
    """Attempts whose own waits are this share of the longest."""
    return Attempts(
        retry,
        Budget(retry),
        timeout_s=timeout_s,
        clock=Time(),
        draw=lambda low, high: low + drawn * (high - low),
    )


def waits(found: Attempts, error: errors.RemoteError, count: int) -> list[float | None]:
    return [found.wait_s(error) for _ in range(count)]


def test_waits_double_up_to_the_longest_and_end_after_the_last_attempt() -> None:
    retry = Retry(attempts=6, base_s=1.0, max_s=6.0, budget=100.0)
    assert waits(attempts(retry), overloaded(), 6) == [1.0, 2.0, 4.0, 6.0, 6.0, None]
    assert waits(attempts(retry, drawn=0.0), overloaded(), 2) == [0.0, 0.0]


@given(
    asked=st.floats(0, 1e4),
    drawn=st.floats(0, 1),
    failed=st.integers(1, 5000),
    base_s=st.floats(0, 10),
)
def test_no_wait_is_shorter_than_the_server_asked_for(
    asked: float, drawn: float, failed: int, base_s: float
) -> None:
    retry = Retry(base_s=base_s, max_s=7.0)
    wait_s = retry.wait_s(failed, overloaded(asked), draw=lambda _, high: drawn * high)
    assert asked <= wait_s <= asked + 7.0


def test_there_is_no_wait_that_passes_the_deadline() -> None:
    retry = Retry(base_s=1.0)
    assert attempts(retry, timeout_s=2.5).wait_s(overloaded(1.0)) == 2.0
    assert attempts(retry, timeout_s=2.0).wait_s(overloaded(1.0)) is None
    assert attempts(retry, timeout_s=0.5).wait_s(overloaded()) is None


def test_budget_stops_retries_while_most_calls_fail_and_successes_fill_it_again() -> None:
    budget = Budget(Retry(budget=10.0, refill=0.5))
    assert [budget.failed() for _ in range(6)] == [True] * 4 + [False] * 2
    for _ in range(2):
        budget.succeeded()
    assert not budget.failed()
    for _ in range(100):
        budget.succeeded()
    assert [budget.failed() for _ in range(5)] == [True] * 4 + [False]


def test_budget_is_not_lost_between_threads() -> None:
    budget = Budget(Retry(budget=4000.0))
    threads = [
        threading.Thread(target=lambda: [budget.failed() for _ in range(250)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not budget.failed()  # 2,001 are gone
    assert Budget(Retry(budget=4000.0)).failed()


@pytest.mark.parametrize(
    "changes", [{"attempts": 0}, {"base_s": -1.0}, {"max_s": float("nan")}, {"budget": -0.1}]
)
def test_a_retry_that_makes_no_sense_is_a_config_error(changes: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigError, match=next(iter(changes))):
        Retry(**changes)


def test_only_refusals_and_missing_servers_are_repeated() -> None:
    repeated = {
        kind.__name__
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, errors.RemoteError)
        and may_be_repeated(kind("x", code="X"))
    }
    assert repeated == {"OverloadedError", "UnavailableError"}


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED])
async def test_a_call_that_was_turned_away_is_made_again_under_the_same_name(code: Code) -> None:
    async with (
        serving(Fake(replies=[Fail(code), Fail(code)])) as fake,
        AsyncClient(fake.target, retry=QUICK) as client,
    ):
        answer = await client.classify(png())
    assert answer.top.name == "dog"
    named = {attempt.metadata["x-request-id"] for attempt in fake.attempts}
    assert len(fake.attempts) == 3
    assert named == {attempt.request.request_id for attempt in fake.attempts}
    assert len(named) == 1


async def test_synchronous_calls_are_made_again_too() -> None:
    def ask() -> None:
        with Client(fake.target, retry=QUICK) as client:
            client.classify(png(), request_id="mine")
            client.model()

    async with serving(Fake(replies=[Fail(Code.UNAVAILABLE)])) as fake:
        await asyncio.to_thread(ask)
    methods = [attempt.method for attempt in fake.attempts]
    assert methods == ["Classify", "Classify", "GetModel"]
    assert [fake.attempts[i].request.request_id for i in (0, 1)] == ["mine", "mine"]


async def test_the_server_is_not_asked_earlier_than_it_says() -> None:
    refused = Fail(Code.RESOURCE_EXHAUSTED, retry_after_s=0.15)
    async with (
        serving(Fake(replies=[refused, refused])) as fake,
        AsyncClient(fake.target, retry=QUICK) as client,
    ):
        await client.classify(png())
    assert min(fake.waits_s) >= 0.15


async def test_a_wait_beyond_the_deadline_is_not_even_begun() -> None:
    refused = Fail(Code.RESOURCE_EXHAUSTED, retry_after_s=60.0)
    async with (
        serving(Fake(replies=[refused])) as fake,
        AsyncClient(fake.target, retry=QUICK, timeout_s=20.0) as client,
    ):
        async with asyncio.timeout(10):
            with pytest.raises(errors.OverloadedError) as caught:
                await client.classify(png())
    assert caught.value.retry_after_s == 60.0
    assert len(fake.attempts) == 1


async def test_all_attempts_together_have_the_time_of_the_call() -> None:
    refused = Fail(Code.UNAVAILABLE, retry_after_s=0.1)
    async with (
        serving(Fake(replies=[refused, refused, None])) as fake,
        AsyncClient(fake.target, retry=QUICK) as client,
    ):
        with pytest.raises(errors.DeadlineError, match=r"within 0\.6 s"):
            await client.classify(png(), timeout_s=0.6)
    left = [attempt.left_s for attempt in fake.attempts]
    assert len(left) == 3
    for found, least_passed in zip(left, (0.0, 0.1, 0.2), strict=True):
        assert found is not None
        assert found <= 0.6 - least_passed + 0.05  # gRPC rounds up


@pytest.mark.parametrize(
    "code",
    [code for code in grpc.StatusCode if code.name not in ("OK", "CANCELLED")],
)
async def test_every_other_failure_is_raised_at_once(code: grpc.StatusCode) -> None:
    async with (
        serving(Fake(replies=[Fail(code)] * 9)) as fake,
        AsyncClient(fake.target, retry=QUICK) as client,
    ):
        with pytest.raises(errors.RemoteError) as caught:
            await client.classify(png())
    repeated = code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED)
    assert len(fake.attempts) == (4 if repeated else 1)
    assert (caught.value.code, caught.value.reason) == (code.name, "SCRIPTED")


async def test_a_message_that_grpc_finds_too_large_is_not_sent_again() -> None:
    async with (
        serving(max_receive_message_length=1000) as fake,
        AsyncClient(fake.target, retry=QUICK) as client,
    ):
        with pytest.raises(errors.InvalidImageError, match="of this size"):
            await client.classify(bytes(2000))
    assert fake.attempts == []


async def test_retries_cannot_multiply_an_overload() -> None:
    replies = [Fail(Code.RESOURCE_EXHAUSTED)] * 1000
    retry = Retry(attempts=10, base_s=0.0, budget=10.0)
    async with (
        serving(Fake(replies=[*replies])) as fake,
        AsyncClient(fake.target, retry=retry) as client,
    ):
        for _ in range(100):
            with pytest.raises(errors.OverloadedError):
                await client.classify(png())
    assert len(fake.attempts) == 100 + 4


async def test_without_retries_every_failure_is_raised_at_once() -> None:
    async with (
        serving(Fake(replies=[Fail(Code.UNAVAILABLE)])) as fake,
        AsyncClient(fake.target, retry=Retry.none()) as client,
    ):
        with pytest.raises(errors.UnavailableError):
            await client.classify(png())
        await client.classify(png())


async def test_a_server_that_comes_back_is_found_within_the_call() -> None:
    async with serving() as fake:
        target = fake.target
    async with AsyncClient(target, timeout_s=30, retry=Retry(attempts=50, budget=100)) as client:
        call = asyncio.create_task(client.classify(png()))
        async with serving(port=int(target.rpartition(":")[2])):
            assert (await call).top.name == "dog"


async def test_calls_may_wait_for_a_server() -> None:
    async with serving() as fake:
        target = fake.target
    never = Retry.none()
    async with AsyncClient(target, timeout_s=30, retry=never, wait_for_ready=True) as client:
        call = asyncio.create_task(client.classify(png()))
        async with serving(port=int(target.rpartition(":")[2])):
            assert (await call).top.name == "dog"
