"""p-values of out-of-distribution tests, and what a number of calibration images can promise.

Every test is of the hypothesis "this image is exchangeable with the calibration images". All
functions are pure and compute in float64.

Shapes: B images, n calibration images, T tests side by side.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaln, gammaln

from ibinn.errors import AlphaTooSmallError, ConfigError, DataError, NotCalibratedError
from ibinn.types import TestKind

FloatArray = npt.NDArray[np.float64]


def smallest_p(n: int, kind: TestKind) -> float:
    """The smallest p-value that n calibration images can give: 1/(n + 1), or 2/(n + 1) two-tailed.

    Args:
        n: Number of calibration images, at least 1.
        kind: The test.

    Returns:
        The p-value of an image more extreme than every calibration image, at most 1.

    Raises:
        NotCalibratedError: There are no calibration images.

    >>> smallest_p(99, TestKind.HIGH_IS_UNUSUAL)
    0.01
    """
    _check_count(n)
    return min(1.0, _tails(kind) / (n + 1))


def needed_calibration_count(alpha: float, kind: TestKind) -> int:
    """The smallest n with ``smallest_p(n, kind) <= alpha``.

    That is ceil(1/α) - 1, or ceil(2/α) - 1 for a two-tailed test.

    Args:
        alpha: Significance in (0, 1).
        kind: The test.

    Raises:
        ConfigError: `alpha` is not in (0, 1).

    >>> needed_calibration_count(0.05, TestKind.HIGH_IS_UNUSUAL)
    19
    """
    _check_alpha_range(alpha)
    tails = _tails(kind)
    n = max(1, math.ceil(tails / alpha) - 1)
    # 1/α is rounded: settle the last image by the comparison that the test itself makes.
    while n > 1 and tails / n <= alpha:
        n -= 1
    while tails / (n + 1) > alpha:
        n += 1
    return n


def check_alpha(alpha: float, n: int, kind: TestKind) -> None:
    """Refuse a significance that n calibration images cannot test.

    Args:
        alpha: Significance.
        n: Number of calibration images.
        kind: The test.

    Raises:
        ConfigError: `alpha` is not in (0, 1).
        AlphaTooSmallError: `alpha` is below the smallest attainable p-value; the error holds the
            number of calibration images that it needs.
    """
    needed = needed_calibration_count(alpha, kind)
    if n < needed:
        raise AlphaTooSmallError(alpha=alpha, calibration_count=n, needed=needed)


def reference(
    values: npt.NDArray[np.floating[Any]], kind: TestKind, *, centre: float | None = None
) -> FloatArray:
    """The calibration values in the form that `p_values` ranks against.

    Args:
        values: Statistic of the calibration images, shape (n,), finite.
        kind: The test.
        centre: For typicality the statistic's mean on calibration part A, else None.

    Returns:
        Shape (n,), ascending: the values, or |value - centre| for typicality.

    Raises:
        NotCalibratedError: There are no values.
        DataError: A value is not finite.
        ConfigError: `centre` is missing, or given where it means nothing.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise DataError(f"calibration values have shape {array.shape}; expected (n,)")
    _check_count(len(array))
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        raise DataError(
            f"{bad} of {len(array)} calibration values are not finite; a reference needs finite "
            "values: look for the images that caused them"
        )
    return np.sort(_transformed(array, kind, centre))


def p_values(
    values: npt.NDArray[np.floating[Any]],
    reference_sorted: FloatArray,
    kind: TestKind,
    *,
    centre: float | None = None,
) -> FloatArray:
    """Rank p-values, uniform on their grid for inputs exchangeable with the reference.

    One-tailed, with s high unusual: p = (1 + #{ref >= s})/(n + 1); with s low unusual:
    p = (1 + #{ref <= s})/(n + 1). Typicality: s = |value - centre|, high unusual. Two-tailed:
    p = min(1, 2 min(1 + #{ref >= s}, 1 + #{ref <= s})/(n + 1)).

    Args:
        values: Statistic of the images, shape (B,).
        reference_sorted: From `reference`, shape (n,), ascending.
        kind: The test.
        centre: As given to `reference`.

    Returns:
        Shape (B,), in (0, 1]; NaN where the statistic is not finite.

    Raises:
        NotCalibratedError: The reference is empty.
        ConfigError: `centre` is missing, or given where it means nothing.

    >>> p_values(np.array([5.0]), np.arange(9.0), TestKind.HIGH_IS_UNUSUAL)
    array([0.5])
    """
    n = len(reference_sorted)
    _check_count(n)
    array = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(array)
    scores = _transformed(np.where(finite, array, 0.0), kind, centre)
    at_least = 1 + n - np.searchsorted(reference_sorted, scores, side="left")
    at_most = 1 + np.searchsorted(reference_sorted, scores, side="right")
    match kind:
        case TestKind.HIGH_IS_UNUSUAL | TestKind.TYPICALITY:
            p = at_least / (n + 1)
        case TestKind.LOW_IS_UNUSUAL:
            p = at_most / (n + 1)
        case TestKind.TWO_TAILED:
            p = np.minimum(1.0, 2 * np.minimum(at_least, at_most) / (n + 1))
    return np.where(finite, p, np.nan)


def unusualness(
    values: npt.NDArray[np.floating[Any]],
    reference_sorted: FloatArray,
    kind: TestKind,
    *,
    centre: float | None = None,
) -> FloatArray:
    """The score by which a test orders images, high = unusual; what an AUROC is taken of.

    Args and errors as in `p_values`.

    Returns:
        Shape (B,): s, -s, |s - centre|, or -p for the two-tailed test, which orders by
        rank alone.
    """
    array = np.asarray(values, dtype=np.float64)
    match kind:
        case TestKind.HIGH_IS_UNUSUAL | TestKind.TYPICALITY:
            return _transformed(array, kind, centre)
        case TestKind.LOW_IS_UNUSUAL:
            return -_transformed(array, kind, centre)
        case TestKind.TWO_TAILED:
            return -p_values(array, reference_sorted, kind, centre=centre)


def holm(p: FloatArray) -> FloatArray:
    """Holm-adjusted p-values of tests that are looked at together.

    With m finite p-values in ascending order, the j-th becomes
    max over i <= j of min(1, (m - i + 1) p_(i)).

    Args:
        p: Raw p-values, shape (B, T). NaN marks a test that was not made.

    Returns:
        Shape (B, T); NaN stays NaN and does not count in m.

    >>> holm(np.array([[0.01, 0.04, 0.03]]))
    array([[0.03, 0.06, 0.06]])
    """
    raw = np.asarray(p, dtype=np.float64)
    order = np.argsort(raw, axis=-1, kind="stable")  # NaN sorts last
    ascending = np.take_along_axis(raw, order, axis=-1)
    m = np.count_nonzero(~np.isnan(raw), axis=-1)[..., None]
    factors = np.maximum(m - np.arange(raw.shape[-1]), 1)
    adjusted = np.maximum.accumulate(np.minimum(1.0, factors * ascending), axis=-1)
    result = np.empty_like(raw)
    np.put_along_axis(result, order, adjusted, axis=-1)
    return result


def attainable_count(alpha: float, n: int, kind: TestKind) -> int:
    """Number k of the n + 1 possible ranks of a fresh image that are flagged at `alpha`.

    k = ⌊α(n + 1)⌋; two-tailed 2⌊α(n + 1)/2⌋. k/(n + 1) is the true false-positive rate, averaged
    over calibration sets, for a continuous statistic.
    """
    _check_alpha_range(alpha)
    _check_count(n)
    tails = _tails(kind)
    k = math.floor(alpha * (n + 1) / tails)
    # α(n + 1) is rounded: settle the last rank by the comparison p <= α of the test itself.
    while tails * k / (n + 1) > alpha:
        k -= 1
    while tails * (k + 1) / (n + 1) <= alpha:
        k += 1
    return tails * k


def beta_binomial_interval(
    alpha: float,
    n: int,
    m: int,
    level: float = 0.999,
    *,
    kind: TestKind = TestKind.HIGH_IS_UNUSUAL,
) -> tuple[int, int]:
    """Central interval of the number of false flags among m exchangeable test images.

    With k = `attainable_count`, the number follows BetaBinomial(m, k, n + 1 - k): the calibration
    set is drawn once, so the counts spread wider than a binomial's.

    Args:
        alpha: Significance.
        n: Number of calibration images.
        m: Number of test images.
        level: Probability of the central interval.
        kind: The test; two-tailed tests round in both tails.

    Returns:
        (low, high), counts of flags, both ends inside. (0, 0) where no rank is flagged at `alpha`.

    Raises:
        ConfigError: `alpha` or `level` is not in (0, 1), or `m` is negative.
    """
    return beta_binomial_central(
        m=m, successes=attainable_count(alpha, n, kind), slots=n + 1, level=level
    )


def beta_binomial_central(*, m: int, successes: int, slots: int, level: float) -> tuple[int, int]:
    """Central interval of BetaBinomial(m, successes, slots - successes), ends inside.

    Args:
        m: Number of trials.
        successes: How many of the equally likely ranks count, 0 ... `slots`.
        slots: Number of ranks, n + 1.
        level: Probability of the interval in (0, 1).

    Returns:
        The (1 - level)/2 and (1 + level)/2 quantiles.

    Raises:
        ConfigError: `level` is not in (0, 1) or `m` is negative.
    """
    if not 0.0 < level < 1.0:
        raise ConfigError(f"level is {level:g}; expected a probability in (0, 1), such as 0.999")
    if m < 0:
        raise ConfigError(f"number of test images is {m}; expected 0 or more")
    if successes <= 0:
        return 0, 0
    if successes >= slots:
        return m, m
    a, b = successes, slots - successes
    j = np.arange(m + 1, dtype=np.float64)
    log_choose = gammaln(m + 1) - gammaln(j + 1) - gammaln(m - j + 1)
    pmf = np.exp(log_choose + betaln(j + a, m - j + b) - betaln(a, b))
    cdf = np.cumsum(pmf)
    tail = (1.0 - level) / 2
    low = int(np.searchsorted(cdf, tail, side="left"))
    high = int(np.searchsorted(cdf, 1.0 - tail, side="left"))
    return min(low, m), min(high, m)


def _tails(kind: TestKind) -> int:
    return 2 if kind is TestKind.TWO_TAILED else 1


def _check_count(n: int) -> None:
    if n < 1:
        raise NotCalibratedError(
            "there are no calibration values to rank against; expected at least 1: calibrate first"
        )


def _check_alpha_range(alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise ConfigError(
            f"significance α is {alpha:g}; expected a number between 0 and 1, such as 0.01"
        )


def check_centre(kind: TestKind, centre: float | None) -> None:
    """Refuse a typicality test without a centre, and a centre for any other test.

    Raises:
        ConfigError: One of these.
    """
    if kind is TestKind.TYPICALITY:
        if centre is None or not math.isfinite(centre):
            raise ConfigError(
                f"the typicality test got centre={centre}; expected the statistic's mean on "
                "calibration part A"
            )
    elif centre is not None:
        raise ConfigError(f"the {kind.value} test got centre={centre:g}; it takes None")


def _transformed(values: FloatArray, kind: TestKind, centre: float | None) -> FloatArray:
    check_centre(kind, centre)
    return values if centre is None else np.abs(values - centre)
