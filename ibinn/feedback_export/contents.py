"""What an export of feedback holds, and which truth holds where several were stated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ibinn.records import AnswerDigest, FeedbackOutcome, Reaction, Selection, Truth

FORMAT_VERSION = 1
INFO_FILE = "export.json"
LINES_FILE = "feedback.jsonl"
IMAGES_FOLDER = "images"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What somebody said about an image.

    Attributes:
        feedback_id: Its name.
        time: When it was recorded.
        source: Person, device or process that says so, as the caller names it.
        caller: Who sent it, as the server knows it.
        truth: What is true.
        saw_answer: Whether the person saw the answer before; None: not known.
        reaction: What the person did with it; None: not said.
        selection: Why the image was selected for labelling; None: not said.
        sampling_probability: Chance in (0, 1] of that; None: not said.
        labelled_time: When the truth was found; None: not said.
        outcome: What it was beside those before it.
        comment: Free text.
    """

    feedback_id: str
    time: datetime
    source: str
    caller: str
    truth: Truth
    saw_answer: bool | None
    reaction: Reaction | None
    selection: Selection | None
    sampling_probability: float | None
    labelled_time: datetime | None
    outcome: FeedbackOutcome
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """An answered image with what was said about it.

    Attributes:
        answer: In short.
        caller: Who asked; empty where the answer's record was lost.
        image: Its file under the export's folder; None: it is not kept.
        statements: At least one, in the order in which they were recorded.
    """

    answer: AnswerDigest
    caller: str
    image: str | None
    statements: tuple[Statement, ...]

    @property
    def record_id(self) -> str:
        """The answer's name."""
        return self.answer.record_id

    @property
    def truth(self) -> Truth | None:
        """What holds; None where sources disagree."""
        return held_truth(self.statements)

    @property
    def conflict(self) -> bool:
        """Whether sources disagree."""
        return self.truth is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which answers are exported.

    Attributes:
        since: Received from then on; None: from the first.
        until: Received before; None: up to the last.
        model: The first 12 digits of the digests of weights and calibration with a hyphen between,
            as in the metrics; empty: of all models.
    """

    since: datetime | None = None
    until: datetime | None = None
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportInfo:
    """What an export is of.

    Attributes:
        created_time: When it was made.
        software: Version of `ibinn` that made it.
        sequence: The ledger's last entry at that time; 0: it was empty.
        hash: Of that entry.
        count: Number of answers in it.
        filters: Which answers.
        format_version: Of the export.
    """

    created_time: datetime
    software: str
    sequence: int
    hash: str
    count: int
    filters: Filters
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """An export that was read and checked.

    Attributes:
        folder: Where it lies.
        info: What it is of.
        images: Answered images with what was said, in the order of the first statements.
    """

    folder: Path
    info: ExportInfo
    images: tuple[LabelledImage, ...]

    def path(self, image: LabelledImage) -> Path | None:
        """The file of an image; None: it is not kept."""
        return None if image.image is None else self.folder / image.image


def held_truth(statements: Sequence[Statement]) -> Truth | None:
    """What holds by the last statement of each source; None where they disagree."""
    last = {statement.source: statement.truth for statement in statements}
    truths = set(last.values())
    return truths.pop() if len(truths) == 1 else None


def image_path(sha256: str) -> str:
    """Where an image lies under the export's folder."""
    return f"{IMAGES_FOLDER}/{sha256[:2]}/{sha256}"
