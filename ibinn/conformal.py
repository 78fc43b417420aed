"""Split-conformal prediction sets: sets of classes that hold the truth with a set probability.

Plain sets with the score 1 - p(label), fitted on calibration part B, and the report of any sets.
The coverage is marginal: it holds over images exchangeable with the calibration images, not for
each class or image. `ibinn.raps` has sets that adapt more to the image.

Shapes: B, N images, n calibration images, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ibinn.errors import ConfigError, DataError
from ibinn.metrics import clopper_pearson
from ibinn.ood.p_values import beta_binomial_central
from ibinn.reliability import checked

BoolArray = npt.NDArray[np.bool_]

SIZE_STRATA = ((1, 1), (2, 3), (4, 10), (11, 100), (101, 1_000_000))
"""Sizes of sets that are reported together, both ends inside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How many sets held the truth.

    Attributes:
        count: Number of images.
        covered: Sets that held the label.
        rate: covered / count, or None where there is no image.
        low: Lower end of its 95 % Clopper-Pearson interval, or None like `rate`.
        high: Its upper end.
        mean_size: Mean number of classes in a set, or None like `rate`.
    """

    count: int
    covered: int
    rate: float | None
    low: float | None
    high: float | None
    mean_size: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeCoverage:
    """Coverage of the sets of some sizes (Angelopoulos et al. 2021, section 4).

    Attributes:
        smallest: Number of classes in the smallest sets of this stratum.
        largest: In its largest.
        coverage: Of the sets between; no law promises it.
    """

    smallest: int
    largest: int
    coverage: Coverage


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageReport:
    """Target and measured coverage.

    Attributes:
        target: Coverage asked for.
        calibration_count: Number n of calibration images behind the quantile.
        overall: All test images.
        per_class: Test images of each class, in class order; no law promises these.
        not_flagged: Test images that no test flagged, or None if not asked for; no law either.
        law_low: Lower end of the central 99.9 % interval of BetaBinomial(N, k, n + 1 - k) with
            k = ⌈target·(n + 1)⌉, in images.
        law_high: Its upper end.
        within_threshold: Images with 1 - p(label) <= quantile, which that law is about.
            `overall.covered` may be larger, since the top class is in every set.
        right: ``law_low <= within_threshold <= law_high``.
        by_size: Test images by the size of their set, `SIZE_STRATA`; no law either.
    """

    target: float
    calibration_count: int
    overall: Coverage
    per_class: tuple[Coverage, ...]
    not_flagged: Coverage | None
    law_low: int
    law_high: int
    within_threshold: int
    right: bool
    by_size: tuple[SizeCoverage, ...] = ()


def fit_quantile(
    probabilities: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.integer[Any]],
    coverage: float,
) -> float:
    """The k-th smallest score 1 - p(label), k = ⌈coverage·(n + 1)⌉.

    Args:
        probabilities: Calibrated posteriors, shape (n, K).
        labels: Shape (n,).
        coverage: Target in (0, 1), such as 0.95.

    Returns:
        A threshold in [0, 1]. It is 1, which puts every class in every set, where n is too small
        for the coverage (k > n): nothing less would keep the promise.

    Raises:
        ConfigError: `coverage` is not in (0, 1).
        DataError: See `ibinn.reliability.checked`.
    """
    p, y = checked(probabilities, labels)
    rank = coverage_rank(coverage, len(y))
    if rank > len(y):
        return 1.0
    scores = 1.0 - p[np.arange(len(y)), y]
    return float(np.partition(scores, rank - 1)[rank - 1])


def prediction_set(probabilities: npt.NDArray[np.floating[Any]], quantile: float) -> BoolArray:
    """The classes with 1 - p <= quantile, and the most probable one.

    Args:
        probabilities: Calibrated posteriors, shape (B, K).
        quantile: From `fit_quantile`.

    Returns:
        Shape (B, K); at least one class in every row.

    Raises:
        ConfigError: `quantile` is not in [0, 1].

    >>> prediction_set(np.array([[0.7, 0.2, 0.1]]), 0.8)
    array([[ True,  True, False]])
    """
    if not 0.0 <= quantile <= 1.0:
        raise ConfigError(f"conformal quantile is {quantile:g}; expected a number in [0, 1]")
    p = np.clip(np.asarray(probabilities, dtype=np.float64), 0.0, 1.0)
    sets: BoolArray = (1.0 - p) <= quantile
    np.put_along_axis(sets, p.argmax(axis=1)[:, None], True, axis=1)
    return sets


def coverage_rank(coverage: float, n: int) -> int:
    """k = ⌈coverage·(n + 1)⌉ among n calibration scores; above n where n is too small.

    Raises:
        ConfigError: `coverage` is not in (0, 1).
    """
    if not 0.0 < coverage < 1.0:
        raise ConfigError(f"coverage is {coverage:g}; expected a number in (0, 1), such as 0.95")
    # The product is rounded: 1e-9 keeps an exact whole number from becoming the next one.
    return max(1, math.ceil(coverage * (n + 1) - 1e-9))


def coverage_report(
    probabilities: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.integer[Any]],
    *,
    quantile: float,
    target: float,
    calibration_count: int,
    not_flagged: BoolArray | None = None,
    level: float = 0.999,
) -> CoverageReport:
    """Measure the coverage of prediction sets on test images.

    Args:
        probabilities: Calibrated posteriors of the test images, shape (N, K).
        labels: Shape (N,).
        quantile: From `fit_quantile`.
        target: The coverage it was fitted for.
        calibration_count: Number n of images it was fitted on.
        not_flagged: Mask of the images that no test flagged, shape (N,).
        level: Probability of the law's central interval.

    Raises:
        ConfigError: `quantile`, `target` or `level` is out of its range.
        DataError: Shapes do not fit; see also `ibinn.reliability.checked`.
    """
    p, y = checked(probabilities, labels)
    return sets_report(
        prediction_set(p, quantile),
        y,
        within=(1.0 - p[np.arange(len(y)), y]) <= quantile,
        target=target,
        calibration_count=calibration_count,
        not_flagged=not_flagged,
        level=level,
    )


def sets_report(
    sets: BoolArray,
    labels: npt.NDArray[np.integer[Any]],
    *,
    within: BoolArray,
    target: float,
    calibration_count: int,
    not_flagged: BoolArray | None = None,
    level: float = 0.999,
) -> CoverageReport:
    """Measure the coverage of prediction sets of any kind.

    Args:
        sets: Membership, shape (N, K).
        labels: Shape (N,).
        within: Whether the label's conformal score is at most the quantile, shape (N,).
        target: The coverage that the quantile was fitted for.
        calibration_count: Number n of images it was fitted on.
        not_flagged: Mask of the images that no test flagged, shape (N,).
        level: Probability of the law's central interval.

    Raises:
        ConfigError: `target` or `level` is out of its range.
        DataError: Shapes do not fit.
    """
    y = np.asarray(labels)
    for mask in (within, not_flagged):
        if mask is not None and np.shape(mask) != y.shape:
            raise DataError(f"mask has shape {np.shape(mask)}; expected {y.shape}")
    covered, sizes = sets[np.arange(len(y)), y], sets.sum(axis=1)
    within_threshold = int(np.count_nonzero(within))
    law_low, law_high = beta_binomial_central(
        m=len(y),
        successes=coverage_rank(target, calibration_count),
        slots=calibration_count + 1,
        level=level,
    )

    def of(mask: BoolArray) -> Coverage:
        return _coverage(covered[mask], sizes[mask])

    classes = sets.shape[1]
    return CoverageReport(
        target=target,
        calibration_count=calibration_count,
        overall=of(np.ones(len(y), dtype=np.bool_)),
        per_class=tuple(of(y == c) for c in range(classes)),
        not_flagged=None if not_flagged is None else of(np.asarray(not_flagged, dtype=np.bool_)),
        law_low=law_low,
        law_high=law_high,
        within_threshold=within_threshold,
        right=law_low <= within_threshold <= law_high,
        by_size=tuple(
            SizeCoverage(
                smallest=low,
                largest=min(high, classes),
                coverage=of((sizes >= low) & (sizes <= high)),
            )
            for low, high in SIZE_STRATA
            if low <= classes
        ),
    )


def _coverage(covered: BoolArray, sizes: npt.NDArray[np.int64]) -> Coverage:
    count, hits = len(covered), int(covered.sum())
    if count == 0:
        return Coverage(count=0, covered=0, rate=None, low=None, high=None, mean_size=None)
    low, high = clopper_pearson(hits, count)
    return Coverage(
        count=count,
        covered=hits,
        rate=hits / count,
        low=low,
        high=high,
        mean_size=float(sizes.mean()),
    )
