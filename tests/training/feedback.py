"""Exports of feedback as a service writes them, of images that a test makes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

from PIL import Image

from ibinn import feedback_export
from ibinn.feedback_export import ExportInfo, Filters, LabelledImage, Statement
from ibinn.records import AnswerDigest, FeedbackOutcome, Selection, Truth
from ibinn.types import Verdict, Versions
from training.image_set import Pixels, image_id

START = datetime(2027, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What somebody says of an image: a class's name or another truth."""

    truth: str | Truth
    source: str = "anna"
    caller: str = "inspection"
    selection: Selection | None = Selection.ALL
    sampling_probability: float | None = None

    def truth_value(self) -> Truth:
        return Truth.of_class(self.truth) if isinstance(self.truth, str) else self.truth


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer with what was said about it."""

    pixels: Pixels
    said: Sequence[Said]
    answer: str = "bolt"
    confidence: float = 0.5
    verdict: Verdict = Verdict.NOT_FLAGGED
    group: str = ""
    kept: bool = True
    weights: str = "w" * 64


@dataclass(slots=True)
class Exporter:
    """Collects answers and writes them as an export."""

    answers: list[Answered] = field(default_factory=list)

    def add(self, pixels: Pixels, *said: Said, **about: object) -> None:
        self.answers.append(Answered(pixels=pixels, said=said, **about))  # type: ignore[arg-type]

    def write(self, folder: Path) -> Path:
        stored: dict[str, bytes] = {}
        lines = []
        for number, answered in enumerate(self.answers):
            data = png(answered.pixels)
            key = hashlib.sha256(data).hexdigest()
            if answered.kept:
                stored[key] = data
            lines.append(_line(number, answered, key))
        feedback_export.write(
            folder,
            lines,
            stored=stored.get,
            info=lambda count: ExportInfo(
                created_time=START,
                software="0",
                sequence=len(lines) * 2,
                hash="e" * 64,
                count=count,
                filters=Filters(),
            ),
        )
        return folder


def png(pixels: Pixels) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _line(number: int, answered: Answered, key: str) -> LabelledImage:
    time = START + timedelta(minutes=number)
    return LabelledImage(
        answer=AnswerDigest(
            record_id=f"r{number:05d}",
            received_time=time,
            versions=Versions(
                weights=answered.weights,
                calibration="c" * 64,
                policy="p" * 64,
                taxonomy="1",
                software="0",
            ),
            class_name=answered.answer,
            confidence=answered.confidence,
            verdict=answered.verdict,
            action=None,
            sha256_bytes=key,
            sha256_pixels=image_id(answered.pixels),
            p_value=0.5,
            group_id=answered.group,
        ),
        caller="camera",
        image=f"images/{key[:2]}/{key}" if answered.kept else None,
        statements=tuple(
            Statement(
                feedback_id=f"f{number}-{place}",
                time=time + timedelta(seconds=1 + place),
                source=said.source,
                caller=said.caller,
                truth=said.truth_value(),
                saw_answer=None,
                reaction=None,
                selection=said.selection,
                sampling_probability=said.sampling_probability,
                labelled_time=None,
                outcome=FeedbackOutcome.FIRST,
                comment="",
            )
            for place, said in enumerate(answered.said)
        ),
    )
