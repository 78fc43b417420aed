"""Exports of feedback for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ibinn import feedback_export
from ibinn.feedback_export import ExportInfo, Filters, LabelledImage, Statement
from ibinn.records import AnswerDigest, FeedbackOutcome, Truth
from ibinn.types import Verdict
from tests.ibinn.answers import VERSIONS

SOME_TIME = datetime(2026, 3, 4, 5, 6, 7, 890_123, tzinfo=UTC)


def said(truth: str | Truth = "cat", *, source: str = "ann", **changes: Any) -> Statement:
    values: dict[str, Any] = {
        "feedback_id": "",
        "time": SOME_TIME,
        "source": source,
        "caller": "app",
        "truth": Truth.of_class(truth) if isinstance(truth, str) else truth,
        "saw_answer": None,
        "reaction": None,
        "selection": None,
        "sampling_probability": None,
        "labelled_time": None,
        "outcome": FeedbackOutcome.FIRST,
        "comment": "",
    }
    return Statement(**{**values, **changes})


def pixels(number: int) -> bytes:
    return f"image {number}".encode()


def sha256(number: int) -> str:
    return hashlib.sha256(pixels(number)).hexdigest()


def labelled(number: int, *statements: Statement, kept: bool = True) -> LabelledImage:
    return LabelledImage(
        answer=AnswerDigest(
            record_id=f"{number:032x}",
            received_time=SOME_TIME + timedelta(seconds=number),
            versions=VERSIONS,
            class_name="cat",
            confidence=0.1 + 0.2,
            verdict=Verdict.NOT_FLAGGED,
            action=None,
            sha256_bytes=sha256(number),
            sha256_pixels="cd" * 32,
            p_value=0.3,
        ),
        caller="app",
        image=feedback_export.image_path(sha256(number)) if kept else None,
        statements=statements or (said(),),
    )


def info(count: int) -> ExportInfo:
    return ExportInfo(
        created_time=SOME_TIME,
        software="1.2.3",
        sequence=7,
        hash="ef" * 32,
        count=count,
        filters=Filters(since=SOME_TIME),
    )


def write(folder: Path, images: Iterable[LabelledImage]) -> ExportInfo:
    kept = {sha256(number): pixels(number) for number in range(100)}
    return feedback_export.write(folder, images, stored=kept.get, info=info)
