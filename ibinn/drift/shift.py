"""What has shifted in a window of recent images: the balance of the classes, or the images.

Figures to look at, window by window; alarms are the detectors' to raise (`ibinn.drift.detectors`).
The p-values hold for one window that was chosen beforehand, and know that part B is finite. Looked
at again and again, some of them are small.

**Prior shift** (label shift): classes come in other shares, and each class looks as before.
**Covariate shift**: what is left when the calibration images are weighted so that their labels
have those shares. The two cannot be told apart for certain without labels: damaged images that
make the model name one class too often look like a prior shift too, with a covariate shift beside
it. A prior shift with no covariate shift beside it is what it seems.

Shapes: N images, n calibration images, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from ibinn.drift.observation import FloatArray, Observations
from ibinn.drift.reference import DriftReference
from ibinn.errors import DataError
from ibinn.ood.group_p_values import group_typicality, group_uniformity

DRAWS: Final = 499
"""Draws behind each p-value; the smallest is then 1/500."""

_EM_STEPS: Final = 100
_EM_TOLERANCE: Final = 1e-6
_KOLMOGOROV_MEAN: Final = math.sqrt(math.pi / 2) * math.log(2)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PriorShift:
    """Estimated shares of the classes, and how far they are from those of calibration.

    Attributes:
        priors: Share of each class (K,).
        total_variation: ½ Σ |share - share at calibration|, in [0, 1].
        by_chance: About how large it is on average where nothing has shifted and the model names
            every class rightly; more where it errs.
    """

    priors: FloatArray
    total_variation: float
    by_chance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CovariateShift:
    """How far images are from calibration images of the same class balance.

    Attributes:
        score: Kolmogorov-Smirnov distance of the combined scores, in [0, 1].
        confidence: The same of the confidences.
        by_chance: How large each is on average where nothing has shifted.
    """

    score: float
    confidence: float
    by_chance: float

    @property
    def distance(self) -> float:
        """The larger of the two."""
        return max(self.score, self.confidence)


def prior_shift(observations: Observations, reference: DriftReference) -> PriorShift:
    """Shares of the classes that explain the posteriors best (Saerens et al. 2002).

    Expectation-maximisation: r_ik ∝ p_i(k) π_k/π⁰_k, then π_k ∝ Σ_i r_ik + K π⁰_k. The second term
    counts as one more image per class that is distributed as at calibration; it keeps rare classes
    steady. π⁰ is the mean posterior on calibration images. (BBSE, Lipton et al. 2018, inverts the
    confusion matrix instead; with a calibrated posterior this is the less noisy of the two:
    Alexandari et al. 2020.)

    Args:
        observations: At least one image, with posteriors; accepted or not.
        reference: Calibration images.

    Raises:
        DataError: No image, or no posteriors.
    """
    p = _posteriors(observations)
    before = _posteriors(reference.observed).mean(axis=0)
    pseudo = reference.class_count * before
    priors = before.copy()
    for _ in range(_EM_STEPS):
        shares = p * (priors / np.maximum(before, 1e-300))
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-300)
        new = shares.sum(axis=0) + pseudo
        new /= new.sum()
        moved = float(np.abs(new - priors).max())
        priors = new
        if moved < _EM_TOLERANCE:
            break
    spread = np.sqrt(before * (1 - before) * (1 / len(p) + 1 / len(reference)))
    return PriorShift(
        priors=priors,
        total_variation=float(np.abs(priors - before).sum() / 2),
        by_chance=float(spread.sum() / 2 * math.sqrt(2 / math.pi)),
    )


def covariate_shift(
    observations: Observations, reference: DriftReference, *, priors: FloatArray | None = None
) -> CovariateShift:
    """Distance of scores and confidences from calibration images in the balance `priors`.

    Args:
        observations: At least one image; accepted or not.
        reference: Calibration images.
        priors: Shares of the classes (K,), such as `prior_shift` finds; None: those of calibration.

    Raises:
        DataError: No image.
    """
    if len(observations) == 0:
        raise DataError("there are no images; expected at least one")
    present = np.bincount(reference.labels, minlength=reference.class_count) / len(reference)
    wanted = present if priors is None else priors
    weights = (wanted / np.maximum(present, 1e-300))[reference.labels]
    weights = weights / weights.sum()
    seen = reference.observed
    effective = 1.0 / float((weights**2).sum())
    return CovariateShift(
        score=weighted_distance(observations.score, seen.score, weights),
        confidence=weighted_distance(observations.confidence, seen.confidence, weights),
        by_chance=_KOLMOGOROV_MEAN * math.sqrt(1 / len(observations) + 1 / effective),
    )


def weighted_distance(values: FloatArray, reference: FloatArray, weights: FloatArray) -> float:
    """Largest distance of two distribution functions, that of `reference` weighted.

    Args:
        values: (N,).
        reference: (n,).
        weights: Of `reference` (n,), adding up to 1.

    >>> weighted_distance(np.array([0.0]), np.array([0.0, 1.0]), np.array([0.25, 0.75]))
    0.75
    """
    points = np.unique(np.concatenate((values, reference)))
    order = np.argsort(reference, kind="stable")
    reached = np.concatenate(([0.0], np.cumsum(weights[order])))
    theirs = reached[np.searchsorted(reference[order], points, side="right")]
    ours = np.searchsorted(np.sort(values), points, side="right") / len(values)
    return float(np.abs(ours - theirs).max())


def uniformity_p(
    observations: Observations, reference: DriftReference, *, draws: int = DRAWS, seed: int = 0
) -> float:
    """p-value of the test that the images' p-values are uniform, in (0, 1].

    See `ibinn.ood.group_p_values.group_uniformity`: exact for a finite calibration set.

    Raises:
        DataError: No image.
    """
    found = group_uniformity(observations.p_value[None], len(reference), draws=draws, seed=seed)
    return float(found[0])


def typicality_p(
    observations: Observations, reference: DriftReference, *, draws: int = DRAWS, seed: int = 0
) -> float:
    """p-value of the test that the images' mean combined score is typical, in (0, 1].

    The group typicality test of Nalisnick et al. (2019), of the combined score instead of
    log q(x); see `ibinn.ood.group_p_values.group_typicality`.

    Raises:
        DataError: No image, or a score that is not finite.
    """
    found = group_typicality(
        observations.score[None], reference.observed.score, draws=draws, seed=seed
    )
    return float(found[0])


def _posteriors(observations: Observations) -> FloatArray:
    if observations.probabilities is None or len(observations) == 0:
        raise DataError(
            f"{len(observations)} observations hold "
            f"{'no posteriors' if observations.probabilities is None else 'no image'}; expected at "
            "least one image, with its posterior"
        )
    return observations.probabilities
