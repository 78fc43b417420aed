"""Regularised adaptive prediction sets (RAPS; Angelopoulos et al. 2021), beside the plain ones.

Plain sets are the smallest on average, but hold the truth too rarely where an image is hard and
too often where it is easy. RAPS collect classes in order of probability until enough of it is
held, so that hard images get larger sets; a penalty on late ranks keeps the tail out.

The score of class y at rank o among the classes in order of probability is

    E(x, y, u) = Σ_{ranks j < o} p_(j) + u p_(o) + λ max(0, o - k_reg)        for o >= 2,
    E(x, y, u) = u - 1                                                        for o = 1,

and the set is {y: E <= τ} with the most probable class, τ a rank of the calibration scores. The
method has u p_(1) for o = 1, which leaves some sets empty. Here the first class scores below
every other one, so τ >= 0 wherever the model is right less often than the coverage asks: then the
set {E <= τ} holds the first class by itself, none is empty, and the coverage follows the same
beta-binomial law as that of the plain sets, exactly. Where the model is right more often than the
coverage asks, every set that is never empty covers more than was asked.

Shapes: B, N images, n calibration images, K classes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ibinn.conformal import BoolArray, CoverageReport, coverage_rank, sets_report
from ibinn.errors import ConfigError, DataError
from ibinn.reliability import checked

FloatArray = npt.NDArray[np.float64]

PENALTIES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Values of λ that are tried."""

LAST_FREE_RANKS = (1, 2, 3, 5)
"""Values of k_reg that are tried."""

TRIALS = 10
"""Halvings of part A behind the choice of λ and k_reg."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RapsConfig:
    """How late ranks are penalised.

    Attributes:
        k_reg: Last rank without a penalty, at least 1.
        penalty: λ >= 0, added for each rank after `k_reg`.

    Raises:
        ConfigError: A value out of range.
    """

    k_reg: int
    penalty: float

    def __post_init__(self) -> None:
        if self.k_reg < 1 or not 0.0 <= self.penalty < math.inf:
            raise ConfigError(
                f"RAPS got k_reg={self.k_reg}, penalty={self.penalty:g}; expected k_reg >= 1 and "
                "a finite penalty >= 0"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RapsFit:
    """RAPS for one target coverage, as it stands in a bundle.

    Attributes:
        coverage: Target.
        quantile: τ, fitted on calibration part B; infinite where n is too small.
        config: Chosen on calibration part A.
    """

    coverage: float
    quantile: float
    config: RapsConfig


def u_of(digest: str) -> float:
    """The u in [0, 1) of an image: the first 52 bits of the sha256 of its decoded pixels.

    So one image has one answer, and u is uniform over images and knows nothing of their labels.

    Args:
        digest: `ibinn.decoding.pixels_sha256` of the image, at least 13 hexadecimal digits.

    Raises:
        ConfigError: `digest` is not that.

    >>> u_of("8" + 63 * "0")
    0.5
    """
    if not re.match("[0-9a-f]{13}", digest):
        raise ConfigError(
            f"image digest is {digest!r}; expected a sha256 in hexadecimal, such as "
            "`InputInfo.sha256_pixels`"
        )
    return int(digest[:13], 16) / 16**13


def raps_scores(
    probabilities: npt.NDArray[np.floating[Any]],
    u: npt.NDArray[np.floating[Any]],
    config: RapsConfig,
) -> FloatArray:
    """E(x, y, u) of every class.

    Args:
        probabilities: Calibrated posteriors, shape (B, K).
        u: In [0, 1), shape (B,), independent of the labels.
        config: Penalties.

    Returns:
        Shape (B, K); ascending in the order of descending probability, -1 ... 0 for the first.

    Raises:
        DataError: Shapes do not fit.
    """
    p = np.clip(np.asarray(probabilities, dtype=np.float64), 0.0, 1.0)
    draws = np.asarray(u, dtype=np.float64)
    if p.ndim != 2 or draws.shape != p.shape[:1]:
        raise DataError(f"u has shape {draws.shape} for posteriors {p.shape}; expected (B,)")
    order = np.argsort(-p, axis=1, kind="stable")
    ranked = np.take_along_axis(p, order, axis=1)
    rank = np.arange(1, p.shape[1] + 1)
    ascending = np.cumsum(ranked, axis=1) - (1.0 - draws[:, None]) * ranked
    ascending += config.penalty * np.maximum(0, rank - config.k_reg)
    # Sums of rounded numbers: keep later ranks from falling below earlier ones.
    ascending[:, 1:] = np.maximum.accumulate(ascending[:, 1:], axis=1)
    ascending[:, 0] = draws - 1.0
    scores = np.empty_like(ascending)
    np.put_along_axis(scores, order, ascending, axis=1)
    return scores


def fit_raps(
    probabilities: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.integer[Any]],
    u: npt.NDArray[np.floating[Any]],
    *,
    coverage: float,
    config: RapsConfig,
) -> float:
    """τ: the k-th smallest score of the labels of part B, k = ⌈coverage·(n + 1)⌉.

    Args:
        probabilities: Calibrated posteriors, shape (n, K).
        labels: Shape (n,).
        u: From `u_of`, shape (n,).
        coverage: Target in (0, 1), such as 0.95.
        config: Chosen on other images than these (`choose_raps` on part A).

    Returns:
        The quantile; infinite, which puts every class in every set, where n is too small for
        the coverage.

    Raises:
        ConfigError: `coverage` is not in (0, 1).
        DataError: Shapes do not fit; see also `ibinn.reliability.checked`.
    """
    p, y = checked(probabilities, labels)
    own = raps_scores(p, u, config)[np.arange(len(y)), y]
    rank = coverage_rank(coverage, len(y))
    return math.inf if rank > len(y) else float(np.partition(own, rank - 1)[rank - 1])


def raps_set(
    probabilities: npt.NDArray[np.floating[Any]],
    u: npt.NDArray[np.floating[Any]],
    *,
    quantile: float,
    config: RapsConfig,
) -> BoolArray:
    """The classes with E <= quantile, and the most probable one.

    Args:
        probabilities: Calibrated posteriors, shape (B, K).
        u: From `u_of`, shape (B,).
        quantile: From `fit_raps`.
        config: As given to `fit_raps`.

    Returns:
        Shape (B, K); at least one class in every row, always the most probable ones.

    Raises:
        ConfigError: `quantile` is NaN.
        DataError: Shapes do not fit.

    >>> config = RapsConfig(k_reg=2, penalty=0.01)
    >>> raps_set(np.array([[0.7, 0.2, 0.1]]), np.array([0.5]), quantile=0.9, config=config)
    array([[ True,  True, False]])
    """
    if math.isnan(quantile):
        raise ConfigError("RAPS quantile is NaN; expected a number of at least -1: calibrate again")
    scores = raps_scores(probabilities, u, config)
    sets: BoolArray = scores <= quantile
    np.put_along_axis(sets, scores.argmin(axis=1)[:, None], True, axis=1)
    return sets


def choose_raps(
    probabilities: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.integer[Any]],
    u: npt.NDArray[np.floating[Any]],
    *,
    coverage: float,
    penalties: Sequence[float] = PENALTIES,
    last_free_ranks: Sequence[int] = LAST_FREE_RANKS,
    seed: int = 0,
) -> RapsConfig:
    """λ and k_reg of the smallest sets on calibration part A, as in the paper's section 2.

    Part A is halved `TRIALS` times: τ is fitted on one half, the mean size taken on the other,
    then the other way round. Equal sizes go to the smaller λ and the larger k_reg.

    Args:
        probabilities: Calibrated posteriors of part A, shape (N, K).
        labels: Shape (N,).
        u: From `u_of`, shape (N,).
        coverage: Target in (0, 1).
        penalties: Values of λ to try.
        last_free_ranks: Values of k_reg to try.
        seed: Of the halvings.

    Raises:
        ConfigError: `coverage` is not in (0, 1), or nothing is to be tried.
        DataError: Shapes do not fit; see also `ibinn.reliability.checked`.
    """
    p, y = checked(probabilities, labels)
    configs = [
        RapsConfig(k_reg=k_reg, penalty=penalty)
        for penalty in sorted(penalties)
        for k_reg in sorted(last_free_ranks, reverse=True)
    ]
    if not configs:
        raise ConfigError("there is no λ or no k_reg to try; expected at least one of both")
    rng = np.random.default_rng(seed)
    halves = [rng.permutation(len(y)) < len(y) // 2 for _ in range(TRIALS)]
    sizes = [_cross_fitted_size(raps_scores(p, u, c), y, halves, coverage) for c in configs]
    return configs[int(np.argmin(np.round(sizes, 9)))]


def raps_report(
    probabilities: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.integer[Any]],
    u: npt.NDArray[np.floating[Any]],
    *,
    fit: RapsFit,
    calibration_count: int,
    not_flagged: BoolArray | None = None,
    level: float = 0.999,
) -> CoverageReport:
    """Measure the coverage of RAPS on test images; as `ibinn.conformal.coverage_report`.

    Args:
        probabilities: Calibrated posteriors of the test images, shape (N, K).
        labels: Shape (N,).
        u: From `u_of`, shape (N,).
        fit: What was fitted.
        calibration_count: Number n of images that τ was fitted on.
        not_flagged: Mask of the images that no test flagged, shape (N,).
        level: Probability of the law's central interval.

    Raises:
        ConfigError: A target or `level` is out of its range.
        DataError: Shapes do not fit; see also `ibinn.reliability.checked`.
    """
    p, y = checked(probabilities, labels)
    own = raps_scores(p, u, fit.config)[np.arange(len(y)), y]
    return sets_report(
        raps_set(p, u, quantile=fit.quantile, config=fit.config),
        y,
        within=own <= fit.quantile,
        target=fit.coverage,
        calibration_count=calibration_count,
        not_flagged=not_flagged,
        level=level,
    )


def _cross_fitted_size(
    scores: FloatArray,
    labels: npt.NDArray[np.int64],
    halves: Sequence[BoolArray],
    coverage: float,
) -> float:
    """Mean number of classes per set, τ from the one half and the sets from the other."""
    own = scores[np.arange(len(labels)), labels]
    total = 0
    for half in halves:
        for fitted, measured in ((half, ~half), (~half, half)):
            rank = coverage_rank(coverage, int(fitted.sum()))
            ascending = np.sort(own[fitted])
            quantile = ascending[rank - 1] if rank <= len(ascending) else math.inf
            total += int(np.maximum(1, (scores[measured] <= quantile).sum(axis=1)).sum())
    return total / (len(halves) * len(labels))
