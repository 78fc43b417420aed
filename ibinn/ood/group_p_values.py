"""p-values of sets of images, exact although the calibration set is finite.

Null hypothesis: the M images of a set and the n images of calibration part B are exchangeable
*together*. Resampling M images from part B alone, or a textbook Kolmogorov-Smirnov test, takes
part B for the whole truth and rejects far too often where M is not small beside n.

Shapes: G groups, M images each, n calibration images, R draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import betabinom

from ibinn.errors import ConfigError, DataError
from ibinn.ood.p_values import attainable_count, check_alpha
from ibinn.types import TestKind

FloatArray = npt.NDArray[np.float64]

DRAWS = 1_999
"""Draws behind a p-value, whose smallest value is then 1/2,000."""

TAIL = 0.05
"""Combined p-values up to this count as small."""

_CELLS = 4_000_000
"""Random numbers drawn at a time, which bounds the memory."""


def group_typicality(
    values: npt.NDArray[np.floating[Any]],
    reference_values: npt.NDArray[np.floating[Any]],
    *,
    centre: float | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> FloatArray:
    """p-values of |mean(values) - centre| by exchanging images with the calibration images.

    M of the n + M images are drawn R times without regard to where they come from:
    p = (1 + #{draws at least as far from the centre})/(R + 1). Exact for any M and n.

    Args:
        values: A statistic of the images of the groups, shape (G, M), finite.
        reference_values: The same of part B, shape (n,), in any order.
        centre: Mean on calibration part A, which no image of these may have entered; None takes
            the mean of the n + M images together.
        draws: R.
        seed: Of the draws, which all groups share.

    Returns:
        Shape (G,), in (0, 1].

    Raises:
        DataError: A value is not finite, or there are no images.
        ConfigError: `draws` is below 1.
    """
    groups, reference = _checked(values, reference_values)
    _check_draws(draws)
    count, n = groups.shape[1], len(reference)
    total = groups.sum(axis=1) + reference.sum()
    middle = total / (count + n) if centre is None else np.full(len(groups), float(centre))
    observed = np.abs(groups.mean(axis=1) - middle)
    at_least = np.ones(len(groups))
    for chosen in _drawn(n + count, count, draws, np.random.default_rng(seed)):
        sums = (chosen[:, :n] @ reference)[:, None] + chosen[:, n:] @ groups.T
        # The tolerance counts a draw of the very same images as one that reaches the value.
        far = np.abs(sums / count - middle) >= observed * (1 - 1e-9) - 1e-300
        at_least += far.sum(axis=0)
    return at_least / (draws + 1)


def uniformity_distance(p: npt.NDArray[np.floating[Any]], calibration_count: int) -> FloatArray:
    """The largest |share of p-values up to j/(n + 1) - j/(n + 1)| over j, per group.

    Args:
        p: One-tailed rank p-values of the groups, shape (G, M).
        calibration_count: Number n of calibration images behind them.

    Returns:
        Shape (G,), in [0, 1].
    """
    slots = calibration_count + 1
    ranks = np.clip(np.rint(np.asarray(p, dtype=np.float64) * slots).astype(np.int64), 1, slots)
    counts = np.stack([np.bincount(row - 1, minlength=slots) for row in ranks])
    return _distance(counts)


def group_uniformity(
    p_values: npt.NDArray[np.floating[Any]],
    calibration_count: int,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> FloatArray:
    """p-values of `uniformity_distance` that know how finite the calibration set is.

    Among exchangeable images, the M images fall into the n + 1 slots between the calibration
    scores as M balls do when every arrangement of M balls and n bars is equally likely. R such
    arrangements are drawn: p = (1 + #{at least as far from uniform})/(R + 1). A textbook
    Kolmogorov-Smirnov test has n = ∞.

    Args:
        p_values: One-tailed rank p-values of the groups, shape (G, M), finite, of a continuous
            score.
        calibration_count: Number n of calibration images behind them.
        draws: R.
        seed: Of the draws, which all groups share.

    Returns:
        Shape (G,), in (0, 1].

    Raises:
        DataError: A p-value is not finite, or there are no images.
        ConfigError: `draws` is below 1.
    """
    groups, _ = _checked(p_values, np.zeros(max(1, calibration_count)))
    _check_draws(draws)
    count, slots = groups.shape[1], calibration_count + 1
    rng = np.random.default_rng(seed)
    null = np.empty(draws)
    step = max(1, _CELLS // (slots + count))
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        # Uniform spacings, then M balls into them: every arrangement is equally likely.
        spacings = rng.standard_exponential((rows, slots))
        spacings /= spacings.sum(axis=1, keepdims=True)
        null[start : start + rows] = _distance(rng.multinomial(count, spacings))
    null.sort()
    observed = uniformity_distance(groups, calibration_count)
    at_least = draws - np.searchsorted(null, observed - 1e-12, side="left")
    return np.asarray((1.0 + at_least) / (draws + 1))


def group_excess(
    p_values: npt.NDArray[np.floating[Any]], calibration_count: int, *, tail: float = TAIL
) -> FloatArray:
    """p-values of the number of p-values up to `tail`, exact.

    With k = ⌊tail (n + 1)⌋ the number follows BetaBinomial(M, k, n + 1 - k) for usual images;
    p is the chance of as many or more.

    Args:
        p_values: One-tailed rank p-values of the groups, shape (G, M), finite.
        calibration_count: Number n of calibration images behind them.
        tail: In (0, 1).

    Returns:
        Shape (G,), in (0, 1].

    Raises:
        AlphaTooSmallError: `tail` is below the smallest p-value.
    """
    check_alpha(tail, calibration_count, TestKind.HIGH_IS_UNUSUAL)
    groups = np.asarray(p_values, dtype=np.float64)
    k = attainable_count(tail, calibration_count, TestKind.HIGH_IS_UNUSUAL)
    small = (groups <= tail).sum(axis=1)
    law = betabinom(groups.shape[1], k, calibration_count + 1 - k)
    found: FloatArray = np.clip(law.sf(small - 1), np.finfo(np.float64).tiny, 1.0)
    return found


def _distance(counts: npt.NDArray[np.int64]) -> FloatArray:
    """Kolmogorov-Smirnov distance of counts per slot (G, n + 1) from uniform, (G,)."""
    slots = counts.shape[1]
    shares = np.cumsum(counts, axis=1) / counts.sum(axis=1, keepdims=True)
    result: FloatArray = np.abs(shares - np.arange(1, slots + 1) / slots).max(axis=1)
    return result


def _drawn(total: int, count: int, draws: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Rows of 0 and 1 with `count` ones among `total` places, in pieces of bounded size."""
    step = max(1, _CELLS // total)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        keys = rng.random((rows, total), dtype=np.float32)
        places = np.argpartition(keys, count - 1, axis=1)[:, :count]
        chosen = np.zeros((rows, total))
        np.put_along_axis(chosen, places, 1.0, axis=1)
        yield chosen


def _checked(
    values: npt.NDArray[np.floating[Any]], reference_values: npt.NDArray[np.floating[Any]]
) -> tuple[FloatArray, FloatArray]:
    groups = np.asarray(values, dtype=np.float64)
    reference = np.asarray(reference_values, dtype=np.float64)
    if groups.ndim != 2 or groups.shape[1] == 0 or reference.ndim != 1 or not len(reference):
        raise DataError(
            f"groups have shape {groups.shape}, calibration values {reference.shape}; expected "
            "(G, M) and (n,) with at least one image each"
        )
    bad = int((~np.isfinite(groups)).sum() + (~np.isfinite(reference)).sum())
    if bad:
        raise DataError(f"{bad} values are not finite; leave those images out and say so")
    return groups, reference


def _check_draws(draws: int) -> None:
    if draws < 1:
        raise ConfigError(f"number of draws is {draws}; expected at least 1, such as {DRAWS}")
