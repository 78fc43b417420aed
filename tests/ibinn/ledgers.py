"""A ledger with an entry of every kind, as a server would keep it, for tests that need none."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

from ibinn.chain import GENESIS, own_hash
from ibinn.records import (
    OUT_OF_SCOPE,
    AnswerDigest,
    AnswerEntry,
    Entry,
    EntryKind,
    ErasureEntry,
    FeedbackEntry,
    FeedbackOutcome,
    GuaranteeEntry,
    ImageKept,
    ImageState,
    Provenance,
    Reaction,
    Record,
    Selection,
    Truth,
)
from ibinn.types import Action, Decision, Guarantee, Prediction, Receipt, ServerTiming
from service.converters import records as bodies
from tests.ibinn.answers import make_prediction

TIME = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
RECORD_ID = "0123456789abcdef" * 2
TOKEN = "receipt-of-the-answer"
IMAGE = b"the image"

Content = AnswerEntry | FeedbackEntry | ErasureEntry | GuaranteeEntry


def prediction(record_id: str = RECORD_ID, **changes: Any) -> Prediction:
    made = make_prediction()
    receipt = Receipt(
        record_id=record_id,
        received_time=TIME,
        timing=ServerTiming(
            prepare_s=0.001, queue_s=0.002, compute_s=0.003, total_s=0.007, batch_size=4
        ),
        request_id="request-1",
        group_id="lot-7",
        token=TOKEN,
    )
    assert made.conformal is not None
    given: dict[str, Any] = {
        "receipt": receipt,
        "guarantee": Guarantee.SUSPENDED,
        "guarantee_reason": "the p-values drift",
        "conformal_sets": (made.conformal,),
        "decision": Decision(
            action=Action.ACCEPT, class_name="cat", rule="cost", reason="why", expected_cost=0.1
        ),
    }
    return dataclasses.replace(made, **{**given, **changes})


def answer(record_id: str = RECORD_ID, **changes: Any) -> AnswerEntry:
    return AnswerEntry(
        prediction=prediction(record_id, **changes),
        caller="line-3",
        method="Classify",
        group_id="lot-7",
        bundle="2026-01",
        server="host-1",
        image_kept=ImageKept.SAMPLED,
    )


def statement(truth: Truth, **changes: Any) -> FeedbackEntry:
    given: dict[str, Any] = {
        "feedback_id": "f-1",
        "record_id": RECORD_ID,
        "truth": truth,
        "provenance": Provenance(
            source="inspector",
            saw_answer=False,
            reaction=Reaction.OVERRULED,
            selection=Selection.RANDOM,
            sampling_probability=0.25,
        ),
        "labelled_time": TIME + timedelta(days=1),
        "comment": "blurred\x1b[31m",
        "caller": "desk",
        "outcome": FeedbackOutcome.FIRST,
        "revision": 1,
        "answer": AnswerDigest.of(prediction()),
        "record_known": True,
    }
    return FeedbackEntry(**{**given, **changes})


CONTENTS: tuple[Content, ...] = (
    answer(),
    statement(Truth.of_class("dog")),
    statement(
        OUT_OF_SCOPE,
        feedback_id="f-2",
        provenance=Provenance(source="press"),
        labelled_time=None,
        outcome=FeedbackOutcome.CONFLICTING,
        revision=2,
        comment="",
        record_known=False,
    ),
    ErasureEntry(sha256_bytes="00" * 32, caller="operator", reason="asked for", found=True),
    GuaranteeEntry(
        calibration="0f" * 32,
        guarantee=Guarantee.SUSPENDED,
        reason="the p-values drift",
        detector="p_values",
        caller="",
    ),
)


def ledger(contents: tuple[Content, ...] = CONTENTS) -> list[Entry]:
    """A sound chain of these contents."""
    entries: list[Entry] = []
    previous = GENESIS
    for number, content in enumerate(contents, start=1):
        kind, record_id, body = _kept(content)
        entry = Entry(
            sequence=number,
            kind=kind,
            record_id=record_id,
            time=TIME + timedelta(seconds=number),
            body=body,
            previous_hash=previous,
            hash="",
        )
        entry = dataclasses.replace(entry, hash=own_hash(entry))
        entries.append(entry)
        previous = entry.hash
    return entries


def record(**changes: Any) -> Record:
    feedback = tuple(each for each in CONTENTS if isinstance(each, FeedbackEntry))
    given: dict[str, Any] = {
        "entry": ledger()[0],
        "answer": answer(),
        "feedback": feedback,
        "image_state": ImageState.KEPT,
    }
    return Record(**{**given, **changes})


def _kept(content: Content) -> tuple[EntryKind, str, bytes]:
    match content:
        case AnswerEntry(prediction=made):
            assert made.receipt is not None
            return EntryKind.ANSWER, made.receipt.record_id, bodies.answer_body(content)
        case FeedbackEntry(record_id=record_id):
            return EntryKind.FEEDBACK, record_id, bodies.feedback_body(content)
        case ErasureEntry():
            return EntryKind.ERASURE, RECORD_ID, bodies.erasure_body(content)
        case GuaranteeEntry():
            return EntryKind.GUARANTEE, "", bodies.guarantee_body(content)
