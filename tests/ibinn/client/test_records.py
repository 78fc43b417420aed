"""What a client says and asks about answers on record, and what comes back, is whole."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from ibinn import errors
from ibinn.client import AsyncClient, Client, Erased, Retry, content, record_id_in, truth_of
from ibinn.records import (
    OUT_OF_SCOPE,
    UNREADABLE,
    Acknowledgement,
    Entry,
    EntryKind,
    ErasureEntry,
    FeedbackOutcome,
    ImageState,
    Provenance,
    Reaction,
    Selection,
    Truth,
)
from ibinn.v1 import admin_service_pb2 as admin
from ibinn.v1 import classification_service_pb2 as service
from ibinn.v1 import record_pb2
from service.converters import records as bodies
from tests.ibinn import ledgers
from tests.ibinn.answers import make_prediction
from tests.ibinn.client.fake import Code, Fail, Fake, answer_to, of, serving
from tests.ibinn.client.test_admin import told

QUICK = Retry(base_s=0.001, max_s=0.002)
PROVENANCE = Provenance(
    source="inspector",
    saw_answer=False,
    reaction=Reaction.OVERRULED,
    selection=Selection.RANDOM,
    sampling_probability=0.25,
)
KEPT = service.SubmitFeedbackResponse(
    feedback_id="f", outcome="FEEDBACK_OUTCOME_CORRECTED", revision=3, record_known=False
)


async def in_threads(fake: Fake, ask: Callable[[Client], Any]) -> Any:
    def run() -> Any:
        with Client(fake.target, retry=QUICK) as client:
            return ask(client)

    return await asyncio.to_thread(run)


async def in_asyncio(fake: Fake, ask: Callable[[AsyncClient], Any]) -> Any:
    async with AsyncClient(fake.target, retry=QUICK) as client:
        return await ask(client)


BOTH = pytest.mark.parametrize("asked", [in_threads, in_asyncio])


def record_message(**changes: Any) -> record_pb2.Record:
    found = ledgers.record()
    message = record_pb2.Record(
        entry=bodies.entry_message(found.entry),
        feedback=[bodies.feedback_message(each) for each in found.feedback],
        image_state=record_pb2.IMAGE_STATE_KEPT,
    )
    for name, value in changes.items():
        setattr(message, name, value)
    return message


# --------------------------------------------------------------------------------------- feedback


@BOTH
async def test_a_statement_about_an_answer_carries_its_record_id_and_receipt(asked: Any) -> None:
    labelled = datetime(2026, 2, 3, tzinfo=UTC)
    async with serving(Fake(replies=[KEPT])) as fake:
        found = await asked(
            fake,
            lambda client: client.submit_feedback(
                ledgers.prediction(),
                "dog",
                provenance=PROVENANCE,
                feedback_id="mine",
                labelled_time=labelled,
                comment="why",
                request_id="r-1",
            ),
        )
    assert found == Acknowledgement(
        feedback_id="f", outcome=FeedbackOutcome.CORRECTED, revision=3, record_known=False
    )
    (attempt,) = fake.attempts
    statement = bodies.feedback_of(attempt.request)
    assert (statement.record_id, statement.receipt) == (ledgers.RECORD_ID, ledgers.TOKEN)
    assert (statement.truth, statement.provenance) == (Truth.of_class("dog"), PROVENANCE)
    assert (statement.feedback_id, statement.labelled_time) == ("mine", labelled)
    assert (statement.comment, attempt.request.request_id) == ("why", "r-1")
    assert attempt.metadata["x-request-id"] == "r-1"


@BOTH
async def test_what_is_not_said_is_not_sent(asked: Any) -> None:
    async with serving(Fake(replies=[KEPT])) as fake:
        await asked(
            fake, lambda client: client.submit_feedback("a" * 32, "cat", provenance="line-3")
        )
    statement = bodies.feedback_of(fake.attempts[0].request)
    assert statement.provenance == Provenance(source="line-3")
    assert (statement.record_id, statement.receipt, statement.labelled_time) == ("a" * 32, "", None)


@BOTH
async def test_all_attempts_of_a_statement_have_one_id_and_no_two_statements_share_one(
    asked: Any,
) -> None:
    replies = [Fail(Code.UNAVAILABLE, retry_after_s=0.0), Fail(Code.UNAVAILABLE), KEPT, KEPT]
    async with serving(Fake(replies=list(replies))) as fake:
        for _ in range(2):
            await asked(fake, lambda client: client.submit_feedback("a" * 32, "x", provenance="p"))
    ids = [attempt.request.feedback_id for attempt in fake.attempts]
    assert len(ids) == 4
    assert ids[0] == ids[1] == ids[2] != ids[3]
    assert all(ids)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("cat", Truth.of_class("cat")),
        ("out-of-scope", OUT_OF_SCOPE),
        ("out_of_scope", OUT_OF_SCOPE),
        ("unreadable", UNREADABLE),
        (Truth.of_class("unreadable"), Truth.of_class("unreadable")),
    ],
)
def test_a_truth_is_said_in_a_word(said: Truth | str, meant: Truth) -> None:
    assert truth_of(said) == meant


@pytest.mark.parametrize(
    ("about", "truth", "more", "message"),
    [
        (make_prediction(), "cat", {}, "no record id"),
        ("a" * 32, "", {}, "expected the name of a class"),
        ("a" * 32, "cat", {"labelled_time": datetime(2026, 1, 1)}, "no time zone"),
    ],
)
async def test_what_cannot_be_meant_is_not_even_sent(
    about: Any, truth: str, more: Any, message: str
) -> None:
    async with serving() as fake:
        with pytest.raises(errors.RequestError, match=message):
            await in_threads(
                fake,
                lambda client: client.submit_feedback(about, truth, provenance="p", **more),
            )
    assert fake.attempts == []


async def test_a_statement_about_an_unknown_answer_is_not_repeated() -> None:
    async with serving(Fake(replies=[Fail(Code.NOT_FOUND)])) as fake:
        with pytest.raises(errors.NotFoundError):
            await in_threads(fake, lambda c: c.submit_feedback("a" * 32, "x", provenance="p"))
    assert len(fake.attempts) == 1


# ---------------------------------------------------------------------------------------- records


@BOTH
async def test_a_record_comes_through_whole(asked: Any) -> None:
    reply = service.GetRecordResponse(record=record_message(image=ledgers.IMAGE))
    async with serving(Fake(replies=[Fail(Code.UNAVAILABLE), reply])) as fake:
        found = await asked(
            fake, lambda client: client.get_record(ledgers.RECORD_ID, include_image=True)
        )
    assert found == ledgers.record(image=ledgers.IMAGE)
    request = fake.attempts[-1].request
    assert (request.record_id, request.include_image) == (ledgers.RECORD_ID, True)


async def test_a_record_is_read_from_the_bytes_that_are_hashed() -> None:
    message = record_message(image_state=record_pb2.IMAGE_STATE_ERASED)
    message.answer.caller = "somebody else"
    async with serving(Fake(replies=[service.GetRecordResponse(record=message)])) as fake:
        found = await in_threads(fake, lambda client: client.get_record(ledgers.RECORD_ID))
    assert (found.answer.caller, found.image, found.image_state) == (
        "line-3",
        None,
        ImageState.ERASED,
    )


@pytest.mark.parametrize("kind", list(EntryKind))
def test_the_content_of_every_kind_of_entry_is_read(kind: EntryKind) -> None:
    for entry, made in zip(ledgers.ledger(), ledgers.CONTENTS, strict=True):
        if entry.kind is kind:
            assert content(entry) == made
            assert record_id_in(entry) in (entry.record_id, None)
            assert (record_id_in(entry) is None) is isinstance(made, ErasureEntry)


@pytest.mark.parametrize("body", [b"\xff", b"", record_pb2.GuaranteeEntry().SerializeToString()])
@pytest.mark.parametrize("kind", [EntryKind.ANSWER, EntryKind.FEEDBACK, EntryKind.GUARANTEE])
def test_a_body_that_does_not_read_is_told_of(kind: EntryKind, body: bytes) -> None:
    entry = dataclasses.replace(ledgers.ledger()[0], kind=kind, body=body)
    with pytest.raises(errors.LedgerError, match="entry 1 of the ledger does not read"):
        content(entry)


def pages(entries: list[Entry], *, size: int, growing: int = 0) -> Callable[[Any], Any]:
    """A ledger that grows by some entries with every call."""
    calls = 0

    def reply(request: service.ListEntriesRequest) -> service.ListEntriesResponse:
        nonlocal calls
        there = entries[: len(entries) - growing + calls]
        calls += 1
        wanted = [entry for entry in there if entry.sequence > request.after_sequence][:size]
        return service.ListEntriesResponse(
            entries=[bodies.entry_message(entry) for entry in wanted],
            head_sequence=there[-1].sequence if there else 0,
            head_hash=there[-1].hash if there else "",
        )

    return reply


async def every_entry(client: AsyncClient) -> list[Entry]:
    return [entry async for entry in client.entries(page_size=7, kinds=[EntryKind.ANSWER])]


@pytest.mark.parametrize("size", [1, 2, 4, 5, 9])
async def test_all_entries_are_read_page_by_page_and_as_they_are(size: int) -> None:
    ledger = ledgers.ledger()
    for ask in (
        lambda fake: in_threads(
            fake, lambda client: list(client.entries(page_size=7, kinds=[EntryKind.ANSWER]))
        ),
        lambda fake: in_asyncio(fake, every_entry),
    ):
        async with serving(Fake(replies=[pages(ledger, size=size)] * 9)) as fake:
            assert await ask(fake) == ledger
        assert len(fake.attempts) == -(-len(ledger) // size)
        request = fake.attempts[-1].request
        assert (request.page_size, list(request.kinds)) == (7, [record_pb2.ENTRY_KIND_ANSWER])


async def test_reading_ends_at_the_head_that_there_was_when_it_began() -> None:
    reply = pages(ledgers.ledger(), size=1, growing=3)
    async with serving(Fake(replies=[reply] * 9)) as fake:
        found = await in_threads(fake, lambda client: list(client.entries()))
    assert [entry.sequence for entry in found] == [1, 2]


async def test_an_empty_ledger_has_no_entries() -> None:
    async with serving(Fake(replies=[pages([], size=1)])) as fake:
        assert await in_threads(fake, lambda client: list(client.entries())) == []


async def test_a_ledger_whose_end_is_missing_ends() -> None:
    short = service.ListEntriesResponse(head_sequence=9, head_hash="a" * 64)
    async with serving(Fake(replies=[short])) as fake:
        assert await in_threads(fake, lambda client: list(client.entries())) == []


# ----------------------------------------------------------------------------- answers and orders


async def test_the_group_goes_with_every_image() -> None:
    async with serving() as fake, AsyncClient(fake.target) as client:
        await client.classify(b"x", group_id="lot-1")
        with pytest.raises(errors.RemoteError):  # the fake explains nothing
            await client.explain(b"x", group_id="lot-2")
    assert fake.attempts[0].request.group_id == "lot-1"


async def test_images_of_a_stream_have_one_group_or_each_its_own() -> None:
    for group_id, expected in (
        ("lot-1", ["lot-1"] * 3),
        (lambda index: f"lot-{index}", ["lot-0", "lot-1", "lot-2"]),
        ("", [""] * 3),
    ):
        groups: list[str] = []

        async def note(requests: Any, _: int) -> Any:
            async for message in requests:
                for request in message.requests:
                    groups.append(request.group_id)  # noqa: B023
                    yield of(answer_to(request))

        async with serving(Fake(stream=note)) as fake:
            with Client(fake.target) as client:
                many = client.classify_many([b"a", b"b", b"c"], group_id=group_id)
                await asyncio.to_thread(list, many)
            async with AsyncClient(fake.target) as client:
                async for _ in client.classify_many([b"a", b"b", b"c"], group_id=group_id):
                    pass
        assert groups == expected * 2


async def test_an_acknowledgement_and_an_erasure_are_each_one_call_that_is_not_repeated() -> None:
    async with serving(Fake(replies=[admin.EraseImageResponse(found=True, records=2)])) as fake:
        found = await told(fake, lambda client: client.erase_image("a" * 32, "asked for"))
        await told(fake, lambda client: client.acknowledge_drift("seen"))
        assert found == Erased(found=True, records=2)
        for order in (
            lambda client: client.erase_image("a" * 32, "asked for"),
            lambda client: client.acknowledge_drift("seen"),
        ):
            fake.replies.append(Fail(Code.UNAVAILABLE))
            with pytest.raises(errors.UnavailableError):
                await told(fake, order)
    erase = admin.EraseImageRequest(record_id="a" * 32, reason="asked for")
    acknowledge = admin.AcknowledgeDriftRequest(reason="seen")
    assert [attempt.request for attempt in fake.attempts] == [erase, acknowledge] * 2
