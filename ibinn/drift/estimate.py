"""What an estimate of accuracy without labels says, and what a method has to answer.

Shapes: N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ibinn.drift.observation import FloatArray, Observations
from ibinn.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyEstimate:
    """Expected accuracy of accepted answers, if only the images changed.

    Attributes:
        expected_correct: Expected number of right ones among the accepted; additive over windows.
        accepted: Number of accepted answers.
        count: Number of answers.
    """

    expected_correct: float
    accepted: int
    count: int

    @property
    def accuracy(self) -> float | None:
        """expected_correct / accepted, or None where none was accepted."""
        return self.expected_correct / self.accepted if self.accepted else None

    @property
    def coverage(self) -> float | None:
        """accepted / count, or None without answers."""
        return self.accepted / self.count if self.count else None


class Estimator(Protocol):
    """A fitted method."""

    def estimate(self, observations: Observations) -> AccuracyEstimate:
        """Of the accepted among these images, which are judged together as one window.

        Raises:
            DataError: The method needs posteriors, and the observations hold none.
        """
        ...


def summed(chances: FloatArray, observations: Observations) -> AccuracyEstimate:
    """From the chance of each accepted image to be answered rightly."""
    return AccuracyEstimate(
        expected_correct=float(chances.sum()),
        accepted=int(observations.accepted.sum()),
        count=len(observations),
    )


def posteriors(observations: Observations) -> FloatArray:
    """Posteriors (N, K).

    Raises:
        DataError: They were not kept.
    """
    if observations.probabilities is None:
        raise DataError("observations hold no posteriors; keep them, or use another method")
    return observations.probabilities
