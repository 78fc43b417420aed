"""How accurate are the accepted answers of late? Estimates without labels, and what they assume.

Estimand: the accuracy of accepted answers to images that show one of the classes (in-scope
images), with the coverage, the share of answers that were accepted. Every method gives each
accepted image a chance of being right, or a share of them, learned from calibration part B:

- **plain**: the calibrated confidence itself;
- **CBPE** (confidence-based performance estimation; Kivimäki et al. 2025): accuracy by confidence
  on accepted calibration images;
- **M-CBPE** (the same, with calibration re-weighted towards the recent images): see `MCbpe`;
- **ATC** (average thresholded confidence; Garg et al. 2022): the share whose negative entropy lies
  above the threshold that is right on calibration images.

All assume **covariate shift**: images may change, but among images that look alike to the model
(same confidence; for M-CBPE same confidence and score) the share of right answers stays. No label
is looked at, so a change of what is right for the same images (concept drift) moves none of them:
only labels show it. Images that show none of the classes count as if they did.

Shapes: N images, n calibration images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np

from ibinn.drift.observation import FloatArray, Observations
from ibinn.drift.reference import DriftReference
from ibinn.errors import ConfigError


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
        """Of the accepted among these images, which are judged together as one window."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """Mean confidence of accepted answers."""

    def estimate(self, observations: Observations) -> AccuracyEstimate:
        """See `Estimator`."""
        return _estimate(observations.confidence[observations.accepted], observations)


def _estimate(chances: FloatArray, observations: Observations) -> AccuracyEstimate:
    return AccuracyEstimate(
        expected_correct=float(chances.sum()),
        accepted=int(observations.accepted.sum()),
        count=len(observations),
    )


METHODS: Final[Mapping[str, Callable[[DriftReference], Estimator]]] = MappingProxyType(
    {"plain": lambda _: Plain()}
)
SHIPPED: Final = "plain"


def fit(reference: DriftReference, *, method: str = SHIPPED) -> Estimator:
    """A method, fitted to the accepted calibration images.

    Args:
        reference: Calibration images.
        method: A key of `METHODS`.

    Raises:
        ConfigError: There is no such method.
    """
    if method not in METHODS:
        raise ConfigError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    return METHODS[method](reference)


def shipped(reference: DriftReference) -> Estimator:
    """The method that the service reports, fitted."""
    return fit(reference, method=SHIPPED)
