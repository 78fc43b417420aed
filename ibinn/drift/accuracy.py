"""How accurate are the accepted answers of late? Estimates without labels, and what they assume.

Estimand: the accuracy of accepted answers to images that show one of the classes (in-scope
images), with the coverage, the share of answers that were accepted. Everything is learned from
accepted images of calibration part B:

- ``plain``: mean calibrated confidence;
- ``cbpe``: accuracy by confidence on calibration images, looked up for each image
  (confidence-based performance estimation, as NannyML has it);
- ``m_cbpe``: the same with calibration images weighted so that they resemble the recent ones in
  confidence and score (Białek et al. 2024, *We don't need no labels*);
- ``atc``: share of images whose negative entropy is above the threshold above which as large a
  share of calibration images lies as were answered rightly (Garg et al. 2022);
- ``cott``: the same of the cost of giving the images labels in the balance of calibration
  (`ibinn.drift.transport`; Lu et al. 2023).

**Assumed: covariate shift.** Images may change; what they show, and which answer is right for
them, does not. ``plain`` to ``atc`` assume besides that images with like numbers are as often
right as before, which is false where images are damaged (confidence does not fall enough).
``cott``, which is shipped, instead assumes that **classes are as frequent among accepted images as
at calibration**, or as `priors` says. Where their balance differs by a total variation d, it is
wrong by up to about d, mostly too low.

**Not seen: concept drift.** No label is looked at. If other answers become right for the same
images, no estimate moves by a hair; only labels show it. Images that show none of the classes
(out of scope) and are accepted count as if they showed one.

Shapes: N images, n calibration images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import numpy as np
from scipy.optimize import isotonic_regression

from ibinn.drift.observation import BoolArray, FloatArray, Observations
from ibinn.drift.reference import DriftReference
from ibinn.drift.transport import transport_costs
from ibinn.errors import ConfigError, DataError


class Method(StrEnum):
    """How accuracy is estimated; see the module."""

    PLAIN = "plain"
    CBPE = "cbpe"
    M_CBPE = "m_cbpe"
    ATC = "atc"
    COTT = "cott"


SHIPPED: Final = Method.COTT

_LARGEST_WINDOW: Final = 500
_WINDOWS: Final = (25, 50, 100, 200, _LARGEST_WINDOW)
_WINDOW_DRAWS: Final = 40
_RIDGE: Final = 1.0
_NEWTON_STEPS: Final = 25
_SMALLEST: Final = 1e-12


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """Mean confidence of accepted answers."""

    def estimate(self, observations: Observations) -> AccuracyEstimate:
        """See `Estimator`."""
        return _summed(observations.confidence[observations.accepted], observations)


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
        return _summed(np.interp(found, self.confidence, self.chances), observations)


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
            return _summed(np.empty(0), observations)
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
            return _summed(np.empty(0), observations)
        sure = _negative_entropy(recent) >= self.threshold
        return _summed(sure.astype(np.float64), observations)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cott:
    """Share of accepted images whose label costs at most a threshold.

    The fewer images a window has, the more its balance differs from `priors` by chance, and the
    more all labels cost: the threshold is that of windows of the same size. Windows of more than
    500 accepted images are split, in order, into the fewest equal parts.

    Attributes:
        priors: Shares of the classes (K,).
        sizes: Sizes of windows, ascending (S,).
        thresholds: Threshold of each (S,).
    """

    priors: FloatArray
    sizes: FloatArray
    thresholds: FloatArray

    @classmethod
    def of(
        cls,
        reference: Observations,
        correct: BoolArray,
        *,
        shares: FloatArray,
        priors: FloatArray,
        seed: int = 0,
    ) -> Cott:
        """From accepted calibration images.

        Args:
            reference: Calibration images.
            correct: Which of them are answered rightly (n,).
            shares: Chance with which each is drawn (n,), so that their labels have the shares
                `priors`.
            priors: Shares of the classes among accepted images (K,).
            seed: Of the windows that are drawn.
        """
        probabilities = _posteriors(reference)
        accuracy = float(shares @ correct)
        rng = np.random.default_rng(seed)
        thresholds = []
        for size in _WINDOWS:
            costs = [
                transport_costs(probabilities[rng.choice(len(shares), size, p=shares)], priors)
                for _ in range(_WINDOW_DRAWS)
            ]
            thresholds.append(float(np.quantile(np.concatenate(costs), accuracy)))
        return cls(
            priors=priors, sizes=np.array(_WINDOWS, np.float64), thresholds=np.array(thresholds)
        )

    def estimate(self, observations: Observations) -> AccuracyEstimate:
        """See `Estimator`; 5 ms for 500 images on one core."""
        probabilities = _posteriors(observations)[observations.accepted]
        cheap = [np.empty(0)]
        parts = -(-len(probabilities) // _LARGEST_WINDOW)
        for part in np.array_split(probabilities, parts) if parts else ():
            threshold = np.interp(np.log(len(part)), np.log(self.sizes), self.thresholds)
            cheap.append((transport_costs(part, self.priors) <= threshold).astype(np.float64))
        return _summed(np.concatenate(cheap), observations)


def fit(
    reference: DriftReference, *, method: Method = SHIPPED, priors: FloatArray | None = None
) -> Estimator:
    """A method, fitted to the accepted calibration images.

    Args:
        reference: Calibration images.
        method: Which one.
        priors: Shares of the classes among accepted images now (K,), for ``cott``; None: those of
            calibration. The others know nothing of classes.

    Raises:
        DataError: No calibration image is accepted.
        ConfigError: `priors` are not K shares that add up to 1, or name a class that no accepted
            calibration image has.
    """
    accepted = reference.observed.accepted
    if not accepted.any():
        raise DataError(
            "no calibration image is accepted, so nothing is known of accepted answers; use a "
            "policy that accepts more"
        )
    seen, correct = reference.observed.subset(accepted), reference.correct[accepted]
    match method:
        case Method.PLAIN:
            return Plain()
        case Method.CBPE:
            return Cbpe.of(seen.confidence, correct)
        case Method.M_CBPE:
            return MCbpe(reference=seen, correct=correct)
        case Method.ATC:
            return Atc.of(seen, correct)
        case Method.COTT:
            labels = reference.labels[accepted]
            present = np.bincount(labels, minlength=reference.class_count) / len(labels)
            wanted = present if priors is None else _checked(priors, present)
            shares = wanted[labels] / present[labels] / len(labels)
            return Cott.of(seen, correct, shares=shares / shares.sum(), priors=wanted)


def shipped(reference: DriftReference, *, priors: FloatArray | None = None) -> Estimator:
    """The method that the service reports, fitted; see `fit`."""
    return fit(reference, method=SHIPPED, priors=priors)


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
    p = _posteriors(observations)
    found: FloatArray = (p * np.log(np.maximum(p, 1e-300))).sum(axis=1)
    return found


def _posteriors(observations: Observations) -> FloatArray:
    if observations.probabilities is None:
        raise DataError("observations hold no posteriors; keep them, or use another method")
    return observations.probabilities


def _checked(priors: FloatArray, present: FloatArray) -> FloatArray:
    wanted = np.asarray(priors, dtype=np.float64)
    if wanted.shape != present.shape or not np.isfinite(wanted).all() or (wanted < 0).any():
        raise ConfigError(
            f"priors have shape {wanted.shape}; expected {len(present)} shares of at least 0"
        )
    if abs(wanted.sum() - 1.0) > 1e-6:
        raise ConfigError(f"priors add up to {wanted.sum():g}; expected 1")
    if ((wanted > 0) & (present == 0)).any():
        k = int(np.flatnonzero((wanted > 0) & (present == 0))[0])
        raise ConfigError(
            f"priors give class {k} a share of {wanted[k]:g}, but no accepted calibration image "
            "has it; calibrate with images of it"
        )
    return wanted


def _summed(chances: FloatArray, observations: Observations) -> AccuracyEstimate:
    return AccuracyEstimate(
        expected_correct=float(chances.sum()),
        accepted=int(observations.accepted.sum()),
        count=len(observations),
    )
