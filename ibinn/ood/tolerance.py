"""Significances that hold for *this* calibration set with confidence, not only on average.

A rank p-value is valid on average over calibration sets: with one set drawn once, the share of
usual images with p <= k/(n + 1) is itself random, distributed as Beta(k, n + 1 - k), and above
its mean k/(n + 1) in about half of all sets. Bates et al. 2021 ("Testing for outliers with
conformal p-values", section 3) ask for more: a bound that holds with confidence 1 - δ over the
draw of the calibration set, at one significance (`confident_alpha`) or at all of them together
(`simes_envelope`, `conditional_p_values`).

Shapes: B images, n calibration images.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betainc

from ibinn.errors import AlphaTooSmallError, ConfigError
from ibinn.ood.p_values import attainable_count
from ibinn.types import TestKind

FloatArray = npt.NDArray[np.float64]

CONFIDENCE = 0.95


def confident_alpha(alpha: float, n: int, *, confidence: float = CONFIDENCE) -> float:
    """The significance to apply so that this calibration set's false-positive rate is <= alpha.

    It is k/(n + 1) with the largest k for which P(Beta(k, n + 1 - k) <= alpha) >= confidence,
    exact for a one-tailed test of a continuous statistic and on the safe side with ties.

    Args:
        alpha: False-positive rate that is not to be exceeded, in (0, 1).
        n: Number of calibration images.
        confidence: Probability over calibration sets, in (0, 1).

    Returns:
        A number below `alpha`; flag where p <= it.

    Raises:
        ConfigError: `alpha` or `confidence` is not in (0, 1).
        AlphaTooSmallError: Not even the smallest p-value is enough; the error holds the number of
            calibration images that is needed.

    >>> round(confident_alpha(0.01, 2_500), 4)
    0.0068
    """
    needed = needed_for_confidence(alpha, confidence=confidence)
    if n < needed:
        raise AlphaTooSmallError(
            alpha=alpha, calibration_count=n, needed=needed, confidence=confidence
        )
    k = np.arange(1, attainable_count(alpha, n, TestKind.HIGH_IS_UNUSUAL) + 1)
    held = betainc(k, n + 1 - k, alpha) >= confidence
    return float(np.count_nonzero(held)) / (n + 1)


def needed_for_confidence(alpha: float, *, confidence: float = CONFIDENCE) -> int:
    """The smallest n for which `confident_alpha` exists: ⌈log(1 - confidence)/log(1 - alpha)⌉.

    With k = 1 the rate is Beta(1, n), and P(Beta(1, n) <= alpha) = 1 - (1 - alpha)^n.

    Raises:
        ConfigError: `alpha` or `confidence` is not in (0, 1).

    >>> needed_for_confidence(0.01)
    299
    """
    for name, value in (("significance α", alpha), ("confidence", confidence)):
        if not 0.0 < value < 1.0:
            raise ConfigError(f"{name} is {value:g}; expected a number in (0, 1)")
    n = max(1, math.ceil(math.log1p(-confidence) / math.log1p(-alpha)))
    # The quotient is rounded: settle the last image by the comparison itself.
    while n > 1 and betainc(1, n - 1, alpha) >= confidence:
        n -= 1
    while betainc(1, n, alpha) < confidence:
        n += 1
    return n


def simes_envelope(n: int, *, confidence: float = CONFIDENCE) -> FloatArray:
    """Bounds b_1 <= ... <= b_n on the false-positive rates at all ranks together.

    With confidence 1 - δ over calibration sets, the false-positive rate at p <= i/(n + 1) is at
    most b_i for every i at once (the generalised Simes inequality, Bates et al. 2021, section
    3.3):

        b_{n + 1 - i} = 1 - δ^(1/m) Π_{j = 0}^{m - 1} ((i - j)/(n - j))^(1/m),  m = ⌊n/2⌋,

    which is sharp for small p-values and says nothing (1) about those above a half.

    Args:
        n: Number of calibration images, at least 2.
        confidence: 1 - δ in (0, 1).

    Returns:
        Shape (n,), ascending, in (0, 1].

    Raises:
        ConfigError: `n` is below 2 or `confidence` is not in (0, 1).
    """
    if n < 2 or not 0.0 < confidence < 1.0:
        raise ConfigError(
            f"no envelope for {n} calibration images at confidence {confidence:g}; expected at "
            "least 2 and a number in (0, 1)"
        )
    m = n // 2
    logs = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, n + 1)))))  # log i!
    i = np.arange(n, m - 1, -1)
    product = (logs[i] - logs[i - m]) - (logs[n] - logs[n - m])
    bounds = np.ones(n)
    bounds[: len(i)] = -np.expm1((math.log1p(-confidence) + product) / m)
    return bounds


def conditional_p_values(
    p: npt.NDArray[np.floating[Any]], n: int, *, confidence: float = CONFIDENCE
) -> FloatArray:
    """p-values that hold for this calibration set, all at once, with confidence.

    p = i/(n + 1) becomes b_i of `simes_envelope`: with that confidence over calibration sets,
    P(new p <= t) <= t for every t, for images exchangeable with the calibration images.

    Args:
        p: One-tailed rank p-values, shape (B,), NaN where not assessed.
        n: Number of calibration images behind them.
        confidence: Over calibration sets, in (0, 1).

    Returns:
        Shape (B,), at least `p`; NaN stays NaN.

    Raises:
        ConfigError: As `simes_envelope`.
    """
    bounds = np.append(simes_envelope(n, confidence=confidence), 1.0)
    raw = np.asarray(p, dtype=np.float64)
    finite = np.isfinite(raw)
    rank = np.clip(np.rint(np.where(finite, raw, 1.0) * (n + 1)).astype(np.int64), 1, n + 1)
    return np.where(finite, bounds[rank - 1], np.nan)
