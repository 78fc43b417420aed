"""False alarms beside misses, at a significance that the reader chooses.

What is known of misses are the shares that the model's report measured at a few α. A flag is
p ≤ α, so on the report's images misses can only fall as α grows: between two measured points the
share lies between theirs, and that is certain. The estimate is a straight line between
neighbouring points on normal quantiles, Φ⁻¹(1 - miss) against Φ⁻¹(α), the curve of two normal
laws; beyond the outermost points the last line goes on. It is a guess and is shown as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from scipy.special import betaincinv

from ibinn.types import Group, ModelInfo, TestInfo

_NORMAL = NormalDist()
_NEAREST_TO_CERTAIN = 1e-4
_SAME = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class FalseAlarms:
    """How many images like those of calibration are called unknown.

    Attributes:
        alpha: At this significance.
        low: 2.5 % quantile of the share over calibration sets of this size.
        high: Its 97.5 % quantile.
        measured: Share among the report's test images; None where it was not measured.
    """

    alpha: float
    low: float
    high: float
    measured: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Misses:
    """How many images of one unknown kind are not called unknown.

    Attributes:
        set_name: Kind of images.
        low: The share is at least this.
        high: And at most this; both are the measured share where it was measured.
        estimate: Interpolated; None with fewer than two measured points.
        auroc: Of the report, in [0, 1]; None where it was not measured.
    """

    set_name: str
    low: float
    high: float
    estimate: float | None
    auroc: float | None

    @property
    def measured(self) -> bool:
        """Whether the share is one that was counted, not bounds."""
        return self.low == self.high


def combined_test(info: ModelInfo) -> TestInfo | None:
    """The test that decides the verdict; None for a model that is not calibrated."""
    return next((test for test in info.tests if test.group is Group.COMBINED), None)


def false_alarms(info: ModelInfo, alpha: float) -> FalseAlarms:
    """The share of false alarms at α.

    Over calibration sets of n images it is Beta(k, n + 1 - k) with k = ⌊α(n + 1)⌋, whose mean is
    at most α.
    """
    n = info.calibration_count
    k = math.floor(alpha * (n + 1) + _SAME)
    low, high = (
        (0.0, 0.0) if k == 0 else (float(betaincinv(k, n + 1 - k, q)) for q in (0.025, 0.975))
    )
    counted = dict(info.metrics).get(f"false_flag_rate@{alpha:g}")
    return FalseAlarms(alpha=alpha, low=low, high=high, measured=counted)


def misses(test: TestInfo, alpha: float) -> tuple[Misses, ...]:
    """The share of misses at α, for each kind of images that the report measured."""
    auroc = dict(test.auroc)
    found = []
    for name in dict.fromkeys(name for name, _, _ in test.miss_rates):
        points = measured_points(test, name)
        low, high = bounds(points, alpha, smallest_p=test.smallest_p)
        guess = estimate(points, alpha)
        found.append(
            Misses(
                set_name=name,
                low=low,
                high=high,
                estimate=None if guess is None else min(max(guess, low), high),
                auroc=auroc.get(name),
            )
        )
    return tuple(found)


def measured_points(test: TestInfo, set_name: str) -> tuple[tuple[float, float], ...]:
    """(α, share missed) of one kind of images, by α."""
    return tuple(sorted((alpha, rate) for name, alpha, rate in test.miss_rates if name == set_name))


def bounds(
    points: tuple[tuple[float, float], ...], alpha: float, *, smallest_p: float
) -> tuple[float, float]:
    """Between which shares the misses at α must lie, given those at other α.

    >>> bounds(((0.01, 0.9), (0.05, 0.6)), 0.02, smallest_p=0.0004)
    (0.6, 0.9)
    """
    if alpha < smallest_p:
        return 1.0, 1.0  # no p-value is that small: nothing is flagged
    low = max((rate for at, rate in points if at >= alpha - _SAME), default=0.0)
    high = min((rate for at, rate in points if at <= alpha + _SAME), default=1.0)
    return low, high


def estimate(points: tuple[tuple[float, float], ...], alpha: float) -> float | None:
    """The share of misses at α on the line through the nearest two points on normal quantiles.

    Returns:
        None with fewer than two points.
    """
    if len(points) < 2:
        return None
    at = next((i for i in range(1, len(points) - 1) if alpha <= points[i][0]), len(points) - 1)
    (x0, y0), (x1, y1) = (
        (_NORMAL.inv_cdf(a), _quantile(1.0 - rate)) for a, rate in points[at - 1 : at + 1]
    )
    slope = (y1 - y0) / (x1 - x0)
    return 1.0 - _NORMAL.cdf(y0 + slope * (_NORMAL.inv_cdf(alpha) - x0))


def _quantile(share: float) -> float:
    return _NORMAL.inv_cdf(min(max(share, _NEAREST_TO_CERTAIN), 1.0 - _NEAREST_TO_CERTAIN))
