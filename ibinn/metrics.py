"""What a classifier and its tests are worth: accuracy, NLL, Brier, overconfidence, detection.

Fractions throughout, not percent; NLL in nats. Reliability has its own module.

Shapes: N images, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from ibinn.errors import ConfigError, DataError
from ibinn.ood.p_values import beta_binomial_interval
from ibinn.reliability import checked
from ibinn.types import TestKind

OVERCONFIDENCE_THRESHOLD = 0.997
"""A prediction at least this confident is wrong in at most 0.3 % of cases, if calibrated."""

Probabilities = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]
Scores = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overconfidence:
    """The overconfidence error (OCE) with its count and interval.

    Attributes:
        count: Predictions with max p >= 0.997.
        errors: How many of them are wrong.
        value: (errors / count) / 0.003; 1 is calibrated at the threshold. None where count is 0:
            undefined, not zero.
        low: Lower end of its 95 % Clopper-Pearson interval, or None like `value`.
        high: Its upper end.
    """

    count: int
    errors: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionAtAlpha:
    """A test at one significance.

    Attributes:
        alpha: The significance.
        missed: Out-of-distribution images that were not flagged.
        miss_rate: missed / out_count.
        miss_low: Lower end of the miss rate's 95 % Clopper-Pearson interval.
        miss_high: Its upper end.
        flags: In-distribution images that were flagged, falsely.
        flag_rate: flags / in_count.
        flags_low: Lower end of the central 99.9 % beta-binomial interval of `flags`.
        flags_high: Its upper end.
        flags_right: ``flags_low <= flags <= flags_high``.
    """

    alpha: float
    missed: int
    miss_rate: float
    miss_low: float
    miss_high: float
    flags: int
    flag_rate: float
    flags_low: int
    flags_high: int
    flags_right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionReport:
    """What one test is worth on one out-of-distribution set.

    Attributes:
        auroc: In [0, 1]; 0.5 is chance.
        in_count: Number of in-distribution test images.
        out_count: Number of out-of-distribution images.
        calibration_count: Number n of calibration images behind the p-values.
        not_assessed: Images of both sets whose p-value is NaN. They count neither as flagged nor
            as missed, and take no part in the AUROC.
        at: One entry per significance, in the order asked.
    """

    auroc: float
    in_count: int
    out_count: int
    calibration_count: int
    not_assessed: int
    at: tuple[DetectionAtAlpha, ...]


def accuracy(probabilities: Probabilities, labels: Labels) -> float:
    """Share of images whose most probable class is the label.

    Raises:
        DataError: See `ibinn.reliability.checked`.
    """
    p, y = checked(probabilities, labels)
    return float(np.mean(p.argmax(axis=1) == y))


def nll(probabilities: Probabilities, labels: Labels) -> float:
    """Mean of -log p(label) in nats; infinite where a label was given probability 0.

    Raises:
        DataError: See `ibinn.reliability.checked`.
    """
    p, y = checked(probabilities, labels)
    with np.errstate(divide="ignore"):
        return float(-np.mean(np.log(p[np.arange(len(y)), y])))


def brier(probabilities: Probabilities, labels: Labels) -> float:
    """Mean of Σ_y (p_y - [y = label])², between 0 and 2.

    Raises:
        DataError: See `ibinn.reliability.checked`.
    """
    p, y = checked(probabilities, labels)
    return float(np.mean((p**2).sum(axis=1) - 2 * p[np.arange(len(y)), y] + 1))


def overconfidence(
    probabilities: Probabilities, labels: Labels, *, threshold: float = OVERCONFIDENCE_THRESHOLD
) -> Overconfidence:
    """OCE: the error rate among predictions with max p >= threshold, over 1 - threshold.

    Args:
        probabilities: Posteriors, shape (N, K).
        labels: Shape (N,).
        threshold: In (0, 1); the thesis's is 0.997.

    Raises:
        ConfigError: `threshold` is not in (0, 1).
        DataError: See `ibinn.reliability.checked`.
    """
    if not 0.0 < threshold < 1.0:
        raise ConfigError(f"threshold is {threshold:g}; expected a probability in (0, 1)")
    p, y = checked(probabilities, labels)
    confident = p.max(axis=1) >= threshold
    count = int(confident.sum())
    errors = int((p.argmax(axis=1) != y)[confident].sum())
    if count == 0:
        return Overconfidence(count=0, errors=0, value=None, low=None, high=None)
    allowed = 1.0 - threshold
    low, high = clopper_pearson(errors, count)
    return Overconfidence(
        count=count,
        errors=errors,
        value=errors / count / allowed,
        low=low / allowed,
        high=high / allowed,
    )


def clopper_pearson(successes: int, count: int, *, level: float = 0.95) -> tuple[float, float]:
    """Exact (conservative) two-sided confidence interval of a binomial probability.

    Args:
        successes: 0 ... count.
        count: At least 1.
        level: Confidence in (0, 1).

    Returns:
        (low, high).

    Raises:
        ConfigError: An argument is out of its range.

    >>> low, high = clopper_pearson(0, 10)
    >>> low, round(high, 4)
    (0.0, 0.3085)
    """
    if count < 1 or not 0 <= successes <= count or not 0.0 < level < 1.0:
        raise ConfigError(
            f"no interval for {successes} successes of {count} at level {level:g}; expected "
            "0 <= successes <= count, count >= 1, 0 < level < 1"
        )
    tail = (1.0 - level) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, count - successes + 1, tail))
    high = (
        1.0
        if successes == count
        else float(betaincinv(successes + 1, count - successes, 1.0 - tail))
    )
    return low, high


def auroc(in_scores: Scores, out_scores: Scores) -> float:
    """P(out > in) + ½ P(out = in) for scores that are high where unusual.

    Args:
        in_scores: Scores of in-distribution images, shape (N,).
        out_scores: Scores of out-of-distribution images, shape (M,).

    Returns:
        Between 0 and 1; 0.5 is chance.

    Raises:
        DataError: A set is empty or holds NaN.

    >>> auroc(np.array([0.0, 1.0]), np.array([1.0, 2.0]))
    0.875
    """
    inside = np.sort(_score_array(in_scores, "in-distribution"))
    outside = _score_array(out_scores, "out-of-distribution")
    below = np.searchsorted(inside, outside, side="left")
    up_to = np.searchsorted(inside, outside, side="right")
    return float((below + up_to).mean() / (2 * len(inside)))


def auroc_and_misses(
    *,
    in_scores: Scores,
    out_scores: Scores,
    in_p: Scores,
    out_p: Scores,
    calibration_count: int,
    kind: TestKind,
    alphas: Sequence[float] = (0.01, 0.05),
    level: float = 0.999,
) -> DetectionReport:
    """AUROC beside the figures that matter in use: misses and false flags at each α.

    An image is flagged where p <= α.

    Args:
        in_scores: Score of each in-distribution test image, high = unusual, shape (N,); see
            `ibinn.ood.p_values.unusualness`.
        out_scores: The same of the out-of-distribution images, shape (M,).
        in_p: p-values of the in-distribution test images, shape (N,), NaN where not assessed.
        out_p: p-values of the out-of-distribution images, shape (M,).
        calibration_count: Number n of calibration images behind the p-values.
        kind: The test.
        alphas: Significances.
        level: Probability of the central interval of the false flags.

    Raises:
        DataError: Scores and p-values do not match, or a set has no assessed image.
        ConfigError: An α or `level` is not in (0, 1).
    """
    inside, outside = np.asarray(in_p, np.float64), np.asarray(out_p, np.float64)
    for name, p, scores in (
        ("in-distribution", inside, in_scores),
        ("out-of-distribution", outside, out_scores),
    ):
        if p.shape != np.shape(scores):
            raise DataError(
                f"{name} p-values have shape {p.shape}, scores {np.shape(scores)}; expected equal"
            )
    in_ok, out_ok = ~np.isnan(inside), ~np.isnan(outside)
    return DetectionReport(
        auroc=auroc(np.asarray(in_scores)[in_ok], np.asarray(out_scores)[out_ok]),
        in_count=len(inside),
        out_count=len(outside),
        calibration_count=calibration_count,
        not_assessed=int((~in_ok).sum() + (~out_ok).sum()),
        at=tuple(
            _at_alpha(alpha, inside, outside, calibration_count, kind, level) for alpha in alphas
        ),
    )


def _at_alpha(
    alpha: float,
    in_p: npt.NDArray[np.float64],
    out_p: npt.NDArray[np.float64],
    n: int,
    kind: TestKind,
    level: float,
) -> DetectionAtAlpha:
    flags = int((in_p <= alpha).sum())
    missed = int((out_p > alpha).sum())
    # A NaN is never flagged, so only the assessed images can be.
    assessed = int((~np.isnan(in_p)).sum())
    flags_low, flags_high = beta_binomial_interval(alpha, n, assessed, level, kind=kind)
    miss_low, miss_high = clopper_pearson(missed, len(out_p))
    return DetectionAtAlpha(
        alpha=alpha,
        missed=missed,
        miss_rate=missed / len(out_p),
        miss_low=miss_low,
        miss_high=miss_high,
        flags=flags,
        flag_rate=flags / len(in_p),
        flags_low=flags_low,
        flags_high=flags_high,
        flags_right=flags_low <= flags <= flags_high,
    )


def geometric_mean(values: Sequence[float]) -> float:
    """(Π v)^(1/len), by which the published tables average AUROCs.

    Raises:
        ConfigError: No values, or a negative one.
    """
    if not values or min(values) < 0:
        raise ConfigError(f"no geometric mean of {list(values)}; expected values of 0 or more")
    return math.prod(values) ** (1 / len(values))


def _score_array(scores: Scores, name: str) -> npt.NDArray[np.float64]:
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0 or np.isnan(array).any():
        raise DataError(
            f"{name} scores have shape {array.shape} and {int(np.isnan(array).sum())} NaN; "
            "expected shape (N,), N >= 1, without NaN"
        )
    return array
