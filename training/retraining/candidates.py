"""What an export says, one value per labelled image, and nothing that retraining does not read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ibinn.records import Selection, Truth, TruthKind
from ibinn.types import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What somebody said about an image.

    Attributes:
        time: When it was recorded.
        source: Who said so.
        truth: What.
        selection: Why the image was selected for labelling; None: not said.
        sampling_probability: Chance in (0, 1] of that; None: not known.
    """

    time: datetime
    source: str
    truth: Truth
    selection: Selection | None = None
    sampling_probability: float | None = None

    @property
    def weight(self) -> float | None:
        """1 / sampling probability; None where the chance is not known."""
        if self.sampling_probability is not None:
            return 1.0 / self.sampling_probability
        return 1.0 if self.selection is Selection.ALL else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An answered image with at least one statement about it.

    Attributes:
        record_id: The answer's name.
        time: When the image came.
        id: sha256 (hex) of the decoded pixels.
        group: The caller's name for what images belong together; empty where there is none.
        path: The image's file; None: it was not kept.
        statements: In the order of their recording.
        answer: The most probable class.
        confidence: Its calibrated probability.
        verdict: What the tests said.
        weights: Digest of the weights that answered.
    """

    record_id: str
    time: datetime
    id: str
    group: str
    path: Path | None
    statements: tuple[Statement, ...]
    answer: str
    confidence: float
    verdict: Verdict
    weights: str

    def last_by_source(self) -> dict[str, Statement]:
        """What each source says now: its last statement."""
        return {statement.source: statement for statement in self.statements}


def sources_of(candidates: Iterable[Candidate]) -> tuple[str, ...]:
    """Everybody who says something, sorted."""
    return tuple(sorted({s.source for c in candidates for s in c.statements}))


def is_class(truth: Truth) -> bool:
    """Whether a truth is a class, known or not."""
    return truth.kind is TruthKind.CLASS
