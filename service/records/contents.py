"""What is handed to the records, and what they give back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from ibinn.records import (
    AnswerDigest,
    Entry,
    Feedback,
    FeedbackEntry,
    ImageKept,
    ImageState,
)
from ibinn.types import Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer that is about to leave.

    Attributes:
        image: Encoded bytes; None where pixels came.
        bundle: Name of the model's folder.
        prediction: The whole answer, with its receipt.
        caller: Who asked.
        method: By which call.
    """

    image: bytes | None
    bundle: str
    prediction: Prediction
    caller: str
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAnswer:
    """An answer to be appended to the ledger.

    Attributes:
        digest: The answer in short.
        caller: Who asked.
        method: By which call.
        image_kept: Why its image is kept; None: it is not.
        body: Makes the entry's body; called in the writer's thread.
    """

    digest: AnswerDigest
    caller: str
    method: str
    image_kept: ImageKept | None
    body: Callable[[], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A statement to be appended to the ledger.

    Attributes:
        statement: As it was sent.
        caller: Who sent it.
        digest: The answer as its receipt has it; used where its record is not known.
    """

    statement: Feedback
    caller: str
    digest: AnswerDigest | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """What the ledger holds about one answer.

    Attributes:
        entry: The answer's entry.
        feedback: What was said about it, in order.
        image_state: What became of its image.
        image: Its encoded bytes, where they were asked for and are kept.
    """

    entry: Entry
    feedback: tuple[FeedbackEntry, ...]
    image_state: ImageState
    image: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Entries of the ledger in order.

    Attributes:
        entries: Those asked for.
        head_sequence: The newest entry of all; 0 where there is none.
        head_hash: Its hash.
    """

    entries: tuple[Entry, ...]
    head_sequence: int
    head_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What an erasure did.

    Attributes:
        found: Whether there was an image.
        records: How many records had it.
    """

    found: bool
    records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """An answer that something was said about.

    Attributes:
        answer: In short, as its record or the receipt has it.
        caller: Who asked for it; None where its record was lost.
        image_state: What became of its image.
        feedback: What was said, in order.
        times: When each statement was recorded.
    """

    answer: AnswerDigest
    caller: str | None
    image_state: ImageState
    feedback: tuple[FeedbackEntry, ...]
    times: tuple[datetime, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """First labels with a class, of answers whose confidence is in one bin.

    Attributes:
        count: How many.
        correct: How many of the answers were right.
        confidence_sum: Sum of their confidences.
    """

    count: int
    correct: int
    confidence_sum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationTable:
    """How often a model was right, by its confidence.

    Attributes:
        bins: 15 of equal width, [low, high), the last one closed.
    """

    bins: tuple[CalibrationBin, ...]

    @property
    def count(self) -> int:
        """Number of labels."""
        return sum(found.count for found in self.bins)

    @property
    def top_label_ece(self) -> float | None:
        """sum over bins |correct - confidence sum| / count; None without labels."""
        if not self.count:
            return None
        gaps = (abs(found.correct - found.confidence_sum) for found in self.bins)
        return sum(gaps) / self.count
