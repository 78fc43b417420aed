"""Accuracy without labels from the confidence of each answer; see `ibinn.drift.accuracy`.

Shapes: N images, n calibration images, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import isotonic_regression

from ibinn.drift.estimate import AccuracyEstimate, posteriors, summed
from ibinn.drift.observation import BoolArray, FloatArray, Observations

_RIDGE: Final = 1.0
_NEWTON_STEPS: Final = 25
_SMALLEST: Final = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """Mean confidence of accepted answers."""

    def estimate(self, observations: Observations) -> AccuracyEstimate:
        """See `Estimator`."""
        return summed(observations.confidence[observations.accepted], observations)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cbpe:
    """Accuracy by confidence, a rising curve (isotonic regression).

    Attributes:
        confidence: Confidence of calibration images, ascending (n,).
        chances: Chance of being right at each (n,).
    """

    confidence: FloatArray
    chances: FloatArray

    @classmethod
    def of(
        cls, confidence: FloatArray, correct: BoolArray, *, weights: FloatArray | None = None
    ) -> Cbpe:
        """From calibration images; `weights` (n,) says how much each counts."""
        order = np.argsort(confidence, kind="stable")
        fitted = isotonic_regression(
            correct[order].astype(np.float64), weights=None if weights is None else weights[order]
        )
        return cls(confidence=confidence[order], chances=np.asarray(fitted.x))

    def estimate(self, observations: Observations) -> AccuracyEstimate:
        """See `Estimator`."""
        found = observations.confidence[observations.accepted]
        return summed(np.interp(found, self.confidence, self.chances), observations)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MCbpe:
    """`Cbpe`, fitted anew for every window to calibration images that are weighted to resemble it.

    The weights are the ratio of densities recent/calibration of confidence (log-odds) and score,
    by logistic regression on both, their squares and their product.

    Attributes:
        reference: Accepted calibration images.
        correct: Which of them are answered rightly (n,).
    """

    reference: Observations
    correct: BoolArray

    def estimate(self, observations: Observations) -> AccuracyEstimate:
        """See `Estimator`."""
        recent = observations.subset(observations.accepted)
        if len(recent) == 0:
            return summed(np.empty(0), observations)
        weights = density_ratio(_features(self.reference), _features(recent))
        curve = Cbpe.of(self.reference.confidence, self.correct, weights=weights)
        return curve.estimate(observations)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Atc:
    """Share of accepted images whose negative entropy is at least a threshold.

    Attributes:
        threshold: Nats.
    """

    threshold: float

    @classmethod
    def of(cls, reference: Observations, correct: BoolArray) -> Atc:
        """From accepted calibration images."""
        values = _negative_entropy(reference)
        return cls(threshold=float(np.quantile(values, 1.0 - correct.mean())))

    def estimate(self, observations: Observations) -> AccuracyEstimate:
        """See `Estimator`."""
        recent = observations.subset(observations.accepted)
        if len(recent) == 0:
            return summed(np.empty(0), observations)
        sure = _negative_entropy(recent) >= self.threshold
        return summed(sure.astype(np.float64), observations)


def density_ratio(reference: FloatArray, recent: FloatArray) -> FloatArray:
    """Weights (n,) with mean 1 that make the features (n, F) resemble recent ones (N, F).

    Odds of a ridge-penalised logistic regression that tells the two apart.
    """
    both = np.concatenate((reference, recent))
    spread = both.std(axis=0)
    scaled = (both - both.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    design = np.column_stack((np.ones(len(scaled)), scaled))
    target = np.repeat((0.0, 1.0), (len(reference), len(recent)))
    penalty = np.diag(np.repeat((0.0, _RIDGE), (1, scaled.shape[1])))
    beta = np.zeros(design.shape[1])
    for _ in range(_NEWTON_STEPS):
        chance = 1.0 / (1.0 + np.exp(-np.clip(design @ beta, -30.0, 30.0)))
        curvature = (design * np.maximum(chance * (1 - chance), 1e-9)[:, None]).T @ design + penalty
        step = np.linalg.solve(curvature, design.T @ (target - chance) - penalty @ beta)
        beta += np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-8:
            break
    odds = design[: len(reference)] @ beta
    weights = np.exp(odds - odds.max())
    weights = np.minimum(weights, np.quantile(weights, 0.999))
    found: FloatArray = np.maximum(weights / weights.mean(), _SMALLEST)
    return found


def _features(observations: Observations) -> FloatArray:
    c = np.clip(observations.confidence, _SMALLEST, 1.0 - _SMALLEST)
    odds, score = np.log(c) - np.log1p(-c), observations.score
    return np.stack((odds, score, odds**2, score**2, odds * score), axis=1)


def _negative_entropy(observations: Observations) -> FloatArray:
    p = posteriors(observations)
    found: FloatArray = (p * np.log(np.maximum(p, 1e-300))).sum(axis=1)
    return found
