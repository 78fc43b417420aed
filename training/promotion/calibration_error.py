"""How much worse one model's calibration may be than another's: top-label ECE, paired.

With x_b = ([right] - confidence)·[confidence in bin b] of an image and μ_b its mean over all images
there are, ECE = Σ_b |μ_b| over 15 equal-width bins. Its usual estimate Σ_b |s_b|, s_b the mean over
n images, takes noise for error, and the more so the better calibrated a model is: the difference
of two such figures hides the fault of a candidate beside a good reference. The worsening

    D = Σ_b |μ_b of the candidate| - |μ_b of the reference|

is bounded instead from above in two ways, each at half the level, and the smaller bound counts:

*paired*: with η_b = difference of the two means and L_b ≥ 0 what |μ_b| of the reference surely
exceeds (three standard errors), its sign being that of s_b, a bin adds at most η_b where η_b has
that sign, else max(-|η_b|, |η_b| - 2·L_b). Models that differ little have this small on any data.

*apart*: a bin adds at most |μ_b of the candidate| - [L_b > 0]·|μ_b of the reference|. A candidate
with little error of its own has this small, whatever the reference is.

Of every |·| half the excess is taken off that noise adds at its estimate, E|s + σ·ε| - |s|; more
would take off too much where |μ| is about two σ. The bound adds z standard errors, and what n
images cannot show: models that differ on a share ρ of all images have |D| ≤ 2·ρ, and n images show
no difference with probability (1 - ρ)^n. A simulation in the tests holds the level.

Shapes: N images, B bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from ibinn.reliability import TOP_LABEL_BINS, confidence_bin
from training.promotion.paired import LEVEL, POWER

FloatArray = npt.NDArray[np.float64]

_SURE = 3.0
_TAKEN_OFF = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationDifference:
    """Top-label ECE of two models on the same images.

    Attributes:
        candidate: Its ECE as it is usually estimated.
        reference: The same of the reference.
        value: Estimate of the worsening's bound with endless images, by the way that was chosen.
        error: What the bound adds to it.
        count: Number of images.
    """

    candidate: float
    reference: float
    value: float
    error: float
    count: int

    @property
    def bound(self) -> float:
        """Upper confidence bound of the worsening."""
        return self.value + self.error


def ece_difference(
    candidate: tuple[FloatArray, npt.NDArray[np.bool_]],
    reference: tuple[FloatArray, npt.NDArray[np.bool_]],
    *,
    level: float = LEVEL,
) -> CalibrationDifference:
    """Compare two models' top-label ECE.

    Args:
        candidate: Confidence of the top class (N,), and whether it is right (N,).
        reference: The same of the reference, for the same images.
        level: Of the bound, such as 0.05 for 95 %.
    """
    x_c, x_r = _contributions(*candidate), _contributions(*reference)
    count = len(x_c)
    s_c, s_r = x_c.mean(axis=0), x_r.mean(axis=0)
    z = float(stats.norm.isf(level / 2))
    hidden = 2.0 * -math.expm1(math.log(level) / count)

    def total(adds: FloatArray, per_image: FloatArray) -> tuple[float, float]:
        spread = float(per_image.std()) / math.sqrt(count)
        return float(adds.sum()), math.hypot(z * spread, hidden)

    side = np.where(s_r < 0, -1.0, 1.0)
    sure = np.maximum(np.abs(s_r) - _SURE * _deviation(x_r), 0.0)
    eta = side * (s_c - s_r)
    turned = -eta - 2 * sure
    slope = np.where(eta >= 0, 1.0, np.where(turned > eta, -1.0, 1.0))
    free = (eta >= 0) | (slope < 0)
    paired = np.where(eta >= 0, eta, np.maximum(eta, turned))
    paired = paired - np.where(free, _excess(eta, _deviation(x_c - x_r)), 0.0)
    apart = np.abs(s_c) - _excess(s_c, _deviation(x_c)) - np.where(sure > 0, np.abs(s_r), 0.0)
    against = np.where(sure > 0, side, 0.0)
    value, error = min(
        total(paired, (x_c - x_r) @ (slope * side)),
        total(apart, x_c @ np.where(s_c < 0, -1.0, 1.0) - x_r @ against),
        key=sum,
    )
    return CalibrationDifference(
        candidate=float(np.abs(s_c).sum()),
        reference=float(np.abs(s_r).sum()),
        value=value,
        error=error,
        count=count,
    )


def fewest(margin: float, *, level: float = LEVEL) -> int:
    """Images under which no answers, however alike, keep the bound under `margin`.

    >>> fewest(0.02)
    299
    """
    return math.floor(math.log(level) / math.log1p(-margin / 2)) + 1


def needed(
    found: CalibrationDifference, margin: float, *, level: float = LEVEL, power: float = POWER
) -> int:
    """Images with which a candidate that is as good would pass, with probability `power`.

    What the bound adds, and what noise adds to the value, both fall as 1/√n.

    Args:
        found: What n images said.
        margin: In (0, 1).
        level: Of the bound.
        power: Probability of passing.
    """
    z = float(stats.norm.isf(level / 2))
    per_error = (z + float(stats.norm.ppf(power))) / z
    spread = max(found.value, 0.0) + per_error * found.error
    return max(fewest(margin, level=level), math.ceil(found.count * (spread / margin) ** 2))


def _contributions(confidence: FloatArray, right: npt.NDArray[np.bool_]) -> FloatArray:
    """x of each image, (N, B)."""
    found: FloatArray = np.zeros((len(confidence), TOP_LABEL_BINS))
    bins = confidence_bin(confidence, TOP_LABEL_BINS)
    found[np.arange(len(confidence)), bins] = right - confidence
    return found


def _deviation(contributions: FloatArray) -> FloatArray:
    """Standard error of the mean per bin (B,)."""
    result: FloatArray = contributions.std(axis=0) / math.sqrt(len(contributions))
    return result


def _excess(mean: FloatArray, sigma: FloatArray) -> FloatArray:
    """Half of E|s + σ·ε| - |s|, with ε standard normal (B,)."""
    size = np.abs(mean)
    ratio = size / np.maximum(sigma, 1e-300)
    folded = sigma * math.sqrt(2 / math.pi) * np.exp(-(np.minimum(ratio, 40.0) ** 2) / 2)
    result: FloatArray = _TAKEN_OFF * (folded - 2 * size * stats.norm.cdf(-ratio))
    return result
