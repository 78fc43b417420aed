"""What is looked at of an answer to notice drift: a few numbers, never the image or the truth.

Shapes: N images, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ibinn.errors import DataError
from ibinn.types import Action, Prediction, Verdict

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observation:
    """One answer.

    Attributes:
        score: Score of the combined test, high = unusual, finite.
        p_value: Its p-value in (0, 1].
        class_index: The most probable class.
        confidence: Its calibrated probability.
        accepted: Whether the answer is acted on: not UNKNOWN and, under a policy, ACCEPT.
        probabilities: Calibrated posterior (K,), or None if it was not kept.
    """

    score: float
    p_value: float
    class_index: int
    confidence: float
    accepted: bool
    probabilities: FloatArray | None = None

    @classmethod
    def of(cls, prediction: Prediction) -> Observation | None:
        """What is looked at of an answer; None where it was not assessed.

        An answer that was not assessed has no score. Leaving it out keeps the tests valid, and
        makes them blind to a growing share of such answers: count them beside.
        """
        combined = prediction.combined
        if combined is None or combined.p_value is None or not math.isfinite(combined.statistic):
            return None
        probabilities = np.empty(len(prediction.classes))
        for entry in prediction.classes:
            probabilities[entry.index] = entry.probability
        decision = prediction.decision
        return cls(
            score=combined.statistic,
            p_value=combined.p_value,
            class_index=prediction.top.index,
            confidence=prediction.top.probability,
            accepted=prediction.verdict in (Verdict.NOT_FLAGGED, Verdict.AMBIGUOUS)
            and (decision is None or decision.action is Action.ACCEPT),
            probabilities=probabilities,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observations:
    """Many answers, in the order in which they were given.

    Attributes:
        score: As in `Observation`, (N,) each.
        p_value: Likewise.
        class_index: Likewise.
        confidence: Likewise.
        accepted: Likewise.
        probabilities: (N, K), or None if they were not kept.

    Raises:
        DataError: Arrays of different lengths.
    """

    score: FloatArray
    p_value: FloatArray
    class_index: IntArray
    confidence: FloatArray
    accepted: BoolArray
    probabilities: FloatArray | None = None

    def __post_init__(self) -> None:
        lengths = {
            "score": len(self.score),
            "p_value": len(self.p_value),
            "class_index": len(self.class_index),
            "confidence": len(self.confidence),
            "accepted": len(self.accepted),
        }
        if self.probabilities is not None:
            lengths["probabilities"] = len(self.probabilities)
        if len(set(lengths.values())) > 1:
            raise DataError(f"observations have lengths {lengths}; expected one entry per image")

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def of(cls, observations: Sequence[Observation]) -> Observations:
        """Side by side; the posteriors are kept where every observation has one."""
        kept = [o.probabilities for o in observations if o.probabilities is not None]
        return cls(
            score=np.array([o.score for o in observations], dtype=np.float64),
            p_value=np.array([o.p_value for o in observations], dtype=np.float64),
            class_index=np.array([o.class_index for o in observations], dtype=np.int64),
            confidence=np.array([o.confidence for o in observations], dtype=np.float64),
            accepted=np.array([o.accepted for o in observations], dtype=np.bool_),
            probabilities=np.stack(kept) if kept and len(kept) == len(observations) else None,
        )

    def subset(self, index: IntArray | BoolArray | slice) -> Observations:
        """The answers at these positions, or where this mask is true."""
        return Observations(
            score=self.score[index],
            p_value=self.p_value[index],
            class_index=self.class_index[index],
            confidence=self.confidence[index],
            accepted=self.accepted[index],
            probabilities=None if self.probabilities is None else self.probabilities[index],
        )
