"""Many images over one call, from threads and from asyncio, when all is well and when it is not."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from ibinn import errors
from ibinn.client import Answered, AsyncClient, Client, Retry
from ibinn.types import AnswerOptions, Prediction, TestDetail
from ibinn.v1 import classification_service_pb2 as service
from tests.ibinn.client.fake import (
    Code,
    Ended,
    Fail,
    Fake,
    answer_all,
    answer_to,
    of,
    refusal_of,
    serving,
)

QUICK = Retry(base_s=0.001, max_s=0.002, budget=100.0)
IMAGES = [bytes([index]) for index in range(30)]
Many = Callable[..., Any]


async def in_threads(target: str, images: Iterable[Any], **options: Any) -> list[Answered]:
    """Everything that the synchronous client yields, as ready."""

    def ask() -> list[Answered]:
        with Client(target, retry=options.pop("retry", QUICK), **options.pop("client", {})) as one:
            return list(one.classify_as_ready(images, **options))

    return await asyncio.to_thread(ask)


async def in_asyncio(target: str, images: Iterable[Any], **options: Any) -> list[Answered]:
    """Everything that the asynchronous client yields, as ready."""
    retry = options.pop("retry", QUICK)
    async with AsyncClient(target, retry=retry, **options.pop("client", {})) as client:
        return [found async for found in client.classify_as_ready(images, **options)]


both = pytest.mark.parametrize("ask", [in_threads, in_asyncio])


def told(found: Iterable[Answered]) -> list[str]:
    """Each image's record id, in order of the images: the image itself."""
    by_index = sorted(found, key=lambda answered: answered.index)
    assert [answered.index for answered in by_index] == list(range(len(by_index)))
    return [record(answered.result) for answered in by_index]


def record(result: Any) -> str:
    if isinstance(result, Prediction):
        assert result.receipt is not None
        return result.receipt.record_id
    return type(result).__name__


ALL = [image.hex() for image in IMAGES]


@both
async def test_every_image_gets_its_answer_over_one_call(ask: Many) -> None:
    async with serving() as fake:
        found = await ask(fake.target, IMAGES)
    assert told(found) == ALL
    assert [attempt.method for attempt in fake.attempts] == ["ClassifyStream"]


@both
async def test_no_images_make_no_call(ask: Many) -> None:
    async with serving() as fake:
        assert await ask(fake.target, []) == []
    assert fake.attempts == []


async def backwards(requests: AsyncIterator[Any], _: int) -> AsyncIterator[Any]:
    """Answers in groups of four, the last one first."""
    group = []
    async for message in requests:
        group += message.requests
        while len(group) >= 4 or (group and group[-1].image == IMAGES[-1]):
            yield of(*(answer_to(request) for request in reversed(group[:4])))
            del group[:4]


async def test_answers_come_in_the_order_of_the_images_or_as_they_are_ready() -> None:
    def ask() -> None:
        with Client(fake.target) as client:
            in_order = client.classify_many(IMAGES, window=8, per_message=4)
            assert [record(result) for result in in_order] == ALL
            as_ready = [found.index for found in client.classify_as_ready(IMAGES, per_message=1)]
            assert as_ready[:8] == [3, 2, 1, 0, 7, 6, 5, 4]

    async with serving(Fake(stream=backwards)) as fake:
        await asyncio.to_thread(ask)
        async with AsyncClient(fake.target) as client:
            in_order = client.classify_many(IMAGES, window=8, per_message=4)
            assert [record(result) async for result in in_order] == ALL


@both
async def test_an_image_that_cannot_be_answered_has_its_error_and_the_others_go_on(
    ask: Many, tmp_path: Path
) -> None:
    async def handle(requests: AsyncIterator[Any], _: int) -> AsyncIterator[Any]:
        async for message in requests:
            for request in message.requests:
                bad = request.image == IMAGES[1]
                fail = Fail(Code.INVALID_ARGUMENT, "not an image", reason="IMAGE_UNREADABLE")
                yield of(refusal_of(request, fail) if bad else answer_to(request))

    async with serving(Fake(stream=handle)) as fake:
        found = await ask(fake.target, [IMAGES[0], IMAGES[1], tmp_path / "none.png", IMAGES[3]])
    assert told(found) == ["00", "InvalidImageError", "ImageError", "03"]
    (refused,) = [one.result for one in found if one.index == 1]
    assert isinstance(refused, errors.RemoteError)
    assert (refused.reason, refused.code) == ("IMAGE_UNREADABLE", "INVALID_ARGUMENT")
    assert refused.request_id


@both
async def test_images_are_taken_only_as_the_window_allows(ask: Many) -> None:
    taken, answered, most = 0, 0, 0

    def endless() -> Iterable[bytes]:
        nonlocal taken, most
        for index in range(200):
            taken += 1
            most = max(most, taken - answered)
            yield bytes([index])

    async def handle(requests: AsyncIterator[Any], _: int) -> AsyncIterator[Any]:
        nonlocal answered
        async for message in requests:
            yield of(*(answer_to(request) for request in message.requests))
            answered += len(message.requests)

    async with serving(Fake(stream=handle)) as fake:
        assert len(await ask(fake.target, endless(), window=5, per_message=2)) == 200
    assert most <= 5 + 2  # a count here lags behind by one message


@both
async def test_a_broken_stream_goes_on_with_the_unanswered_images(ask: Many) -> None:
    seen: list[list[bytes]] = []

    async def handle(requests: AsyncIterator[Any], before: int) -> AsyncIterator[Any]:
        seen.append([])
        async for message in requests:
            seen[-1] += [request.image for request in message.requests]
            if before < 2 and len(seen[-1]) > 5:
                raise Ended(Fail(Code.UNAVAILABLE, "stopping", retry_after_s=0.05))
            yield of(*(answer_to(request) for request in message.requests))

    async with serving(Fake(stream=handle)) as fake:
        found = await ask(fake.target, IMAGES, per_message=1, window=10)
    assert told(found) == ALL
    assert len(fake.attempts) == 3
    assert min(fake.waits_s) >= 0.05
    assert seen[1][0] == IMAGES[5]
    assert len({attempt.metadata["x-request-id"] for attempt in fake.attempts}) == 3


@both
async def test_a_stream_that_ends_too_early_is_a_broken_one(ask: Many) -> None:
    async def handle(requests: AsyncIterator[Any], before: int) -> AsyncIterator[Any]:
        async for message in requests:
            yield of(*(answer_to(request) for request in message.requests))
            if before == 0:
                return

    async with serving(Fake(stream=handle)) as fake:
        assert told(await ask(fake.target, IMAGES, per_message=2)) == ALL
    assert len(fake.attempts) == 2


@both
async def test_a_server_that_is_lost_for_good_ends_the_iteration(ask: Many) -> None:
    async def handle(requests: AsyncIterator[Any], before: int) -> AsyncIterator[Any]:
        raise Ended(Fail(Code.UNAVAILABLE))
        yield

    async with serving(Fake(stream=handle)) as fake:
        with pytest.raises(errors.UnavailableError):
            await ask(fake.target, IMAGES)
    assert len(fake.attempts) == QUICK.attempts
    with pytest.raises(errors.UnavailableError, match="no answer from"):
        await ask(fake.target, IMAGES)


@both
async def test_a_refused_call_is_not_repeated(ask: Many) -> None:
    async def handle(requests: AsyncIterator[Any], before: int) -> AsyncIterator[Any]:
        raise Ended(Fail(Code.UNAUTHENTICATED, "no token", reason="UNAUTHENTICATED"))
        yield

    async with serving(Fake(stream=handle)) as fake:
        with pytest.raises(errors.NotAuthenticatedError, match="no token"):
            await ask(fake.target, IMAGES)
    assert len(fake.attempts) == 1


@both
async def test_refused_images_are_sent_again_when_the_server_said(ask: Many) -> None:
    refused: dict[bytes, float] = {}
    early: list[bytes] = []

    async def handle(requests: AsyncIterator[Any], _: int) -> AsyncIterator[Any]:
        clock = asyncio.get_running_loop().time
        async for message in requests:
            for request in message.requests:
                if request.image[0] % 3 or request.image in refused:
                    if clock() < refused.get(request.image, 0.0) + 0.02:
                        early.append(request.image)
                    yield of(answer_to(request))
                else:
                    refused[request.image] = clock()
                    fail = Fail(Code.RESOURCE_EXHAUSTED, retry_after_s=0.02)
                    yield of(refusal_of(request, fail))

    async with serving(Fake(stream=handle)) as fake:
        assert told(await ask(fake.target, IMAGES, per_message=3)) == ALL
    assert len(refused) == 10
    assert early == []


@both
async def test_an_image_too_large_for_the_server_costs_only_itself(ask: Many) -> None:
    images = [b"a", bytes(5000), b"b", bytes(4000), b"c"]
    async with serving(max_receive_message_length=2000) as fake:
        found = await ask(fake.target, images, per_message=3)
    assert told(found) == ["61", "InvalidImageError", "62", "InvalidImageError", "63"]


@both
async def test_a_silent_server_is_given_up(ask: Many, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handle(requests: AsyncIterator[Any], _: int) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield

    monkeypatch.setattr("ibinn.client.plans._GRACE_S", 0.05)
    async with serving(Fake(stream=handle)) as fake:
        with pytest.raises(errors.DeadlineError, match="no answer from"):
            await ask(fake.target, IMAGES, timeout_s=0.1)


@both
async def test_model_options_and_time_go_with_every_image(ask: Many) -> None:
    seen: list[Any] = []

    async def handle(requests: AsyncIterator[Any], _: int) -> AsyncIterator[Any]:
        async for message in requests:
            seen.extend(message.requests)
            yield of(*(answer_to(request) for request in message.requests))

    options = AnswerOptions(top_classes=2, tests=TestDetail.FLAGGED)
    async with serving(Fake(stream=handle)) as fake:
        client = {"model": "abcdef12", "options": options, "timeout_s": 7.5, "token": "t0"}
        await ask(fake.target, IMAGES, client=client)
    assert {request.model for request in seen} == {"abcdef12"}
    assert {request.timeout.ToTimedelta().total_seconds() for request in seen} == {7.5}
    assert {request.options.top_classes for request in seen} == {2}
    assert {request.options.tests for request in seen} == {service.TEST_DETAIL_FLAGGED}
    assert len({request.request_id for request in seen}) == len(IMAGES)
    assert fake.attempts[0].metadata["authorization"] == "Bearer t0"


async def test_whoever_stops_early_ends_the_call() -> None:
    def ask() -> None:
        with Client(fake.target) as client:
            results = client.classify_many(itertools.repeat(b"x"), window=4)
            for _ in range(10):
                next(results)
            del results
            client.model()

    async with serving(Fake(stream=answer_all)) as fake:
        await asyncio.to_thread(ask)
        async with AsyncClient(fake.target) as client:
            async with aclosing(client.classify_many(itertools.repeat(b"x"), window=4)) as results:
                for _ in range(10):
                    await anext(results)
            await client.model()
        async with asyncio.timeout(10):
            while fake.open_streams:
                await asyncio.sleep(0.01)


async def test_images_may_come_from_an_asynchronous_iterator_as_slowly_as_they_like() -> None:
    answered = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield IMAGES[0]
        await answered.wait()  # the next one comes only after the first one's answer
        yield IMAGES[1]

    async with serving() as fake, AsyncClient(fake.target) as client:
        found = []
        async with asyncio.timeout(20):
            async for result in client.classify_many(slow(), window=50, per_message=8):
                found.append(record(result))
                answered.set()
    assert found == ALL[:2]


async def test_an_error_of_the_callers_iterator_is_the_callers() -> None:
    def broken() -> Iterable[bytes]:
        yield IMAGES[0]
        raise ZeroDivisionError

    async with serving() as fake:
        with pytest.raises(ZeroDivisionError):
            await in_asyncio(fake.target, broken())
        with pytest.raises(ZeroDivisionError):
            await in_threads(fake.target, broken())


async def test_several_streams_and_calls_share_a_client() -> None:
    async with serving() as fake, AsyncClient(fake.target) as client:

        async def many() -> list[str]:
            return [record(result) async for result in client.classify_many(IMAGES)]

        assert await asyncio.gather(many(), many(), many()) == [ALL] * 3
