"""Answers and statements for tests, made up from a number."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from ibinn.records import (
    AnswerDigest,
    AnswerEntry,
    Feedback,
    ImageKept,
    Provenance,
    Truth,
)
from ibinn.types import Prediction, Receipt, ServerTiming
from service.converters import records as bodies
from service.records.contents import Answered, NewAnswer
from tests.service.stub import make_prediction

SOME_TIME = datetime(2026, 3, 4, 5, 6, 7, 890_123, tzinfo=UTC)
TIMING = ServerTiming(prepare_s=0.001, queue_s=0.0, compute_s=0.01, total_s=0.011, batch_size=1)


def record_id(number: int) -> str:
    return hashlib.sha256(f"record {number}".encode()).hexdigest()[:32]


def prediction(number: int, *, confidence: float | None = None, group_id: str = "") -> Prediction:
    """A cat, with a receipt; every number has an image of its own."""
    made = make_prediction()
    top, other = made.classes
    top = dataclasses.replace(top, name="cat", index=0)
    other = dataclasses.replace(other, name="dog", index=1)
    if confidence is not None:
        top = dataclasses.replace(top, probability=confidence)
    made = dataclasses.replace(made, classes=(top, other))
    sha256 = hashlib.sha256(image(number)).hexdigest()
    return dataclasses.replace(
        made,
        input=dataclasses.replace(made.input, sha256_bytes=sha256),
        receipt=Receipt(
            record_id=record_id(number),
            received_time=SOME_TIME + timedelta(seconds=number),
            timing=TIMING,
            group_id=group_id,
        ),
    )


def image(number: int) -> bytes:
    return f"image {number}".encode()


def answered(number: int, **changes: Any) -> Answered:
    return Answered(
        image=image(number),
        bundle="animals",
        prediction=prediction(number, **changes),
        caller="ann",
        method="Classify",
    )


def new_answer(number: int, *, kept: ImageKept | None = None, **changes: Any) -> NewAnswer:
    made = prediction(number, **changes)
    entry = AnswerEntry(
        prediction=made,
        caller="ann",
        method="Classify",
        group_id=made.receipt.group_id if made.receipt else "",
        bundle="animals",
        server="server-1",
        image_kept=kept,
    )
    return NewAnswer(
        digest=AnswerDigest.of(made),
        caller="ann",
        method="Classify",
        image_kept=kept,
        body=lambda: bodies.answer_body(entry),
    )


def statement(
    number: int, truth: str | Truth = "cat", *, source: str = "ann", **changes: Any
) -> Feedback:
    said = Truth.of_class(truth) if isinstance(truth, str) else truth
    return Feedback(
        record_id=record_id(number),
        truth=said,
        provenance=changes.pop("provenance", Provenance(source=source)),
        **changes,
    )
