"""How much worse one model may be than another, from the same images answered by both.

An image counts for a model or against it: right or wrong, not flagged or flagged. Of n images,
`lost` count for the reference alone and `gained` for the candidate alone; the rest say nothing.
The worsening is δ = P(lost) - P(gained). Whether it is under δ₀ is asked of the score statistic

    z = (n·δ₀ - (lost - gained)) / √(n·(ψ̃ - δ₀²)),    ψ̃ = P(lost) + P(gained) under δ = δ₀

(Tango 1998; ψ̃ has a closed form), but its tail is not taken from the normal law, which promises
too much where few images differ: it is summed exactly over all (lost, gained), at the worst ψ in
a 99.9 % interval of ψ, and the 0.1 % is added (Berger and Boos 1994). So the stated level holds
for every number of images.

Shapes: G values of ψ, L values of `lost`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from ibinn.errors import ConfigError
from ibinn.metrics import clopper_pearson

FloatArray = npt.NDArray[np.float64]

LEVEL = 0.05
"""Of a one-sided 95 % bound."""
POWER = 0.9
"""With which a candidate that is as good passes, where a number of images is asked for."""

_NUISANCE = 1e-3
_GRID = 33
_NEGLIGIBLE = 1e-9
_BISECTIONS = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """What two models made of the same images.

    Attributes:
        count: Number of images n.
        lost: Count for the reference alone.
        gained: Count for the candidate alone.
    """

    count: int
    lost: int
    gained: int

    def __post_init__(self) -> None:
        if min(self.lost, self.gained) < 0 or self.lost + self.gained > self.count:
            raise ConfigError(
                f"pairs have {self.lost} lost and {self.gained} gained of {self.count}; expected "
                "counts of 0 or more that add up to no more"
            )

    @classmethod
    def of(cls, candidate: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_]) -> Pairs:
        """From what counts for each model, (N,) each."""
        return cls(
            count=len(candidate),
            lost=int((reference & ~candidate).sum()),
            gained=int((candidate & ~reference).sum()),
        )

    @property
    def worsening(self) -> float:
        """(lost - gained) / n."""
        return (self.lost - self.gained) / self.count


def p_value(pairs: Pairs, worsening: float) -> float:
    """Exact p-value of "the candidate is worse by δ₀ or more"; small speaks for the candidate.

    Args:
        pairs: At least one image.
        worsening: δ₀ in (-1, 1).

    >>> p_value(Pairs(count=298, lost=0, gained=0), 0.01) < 0.052
    True
    """
    n, delta = pairs.count, worsening
    different = pairs.lost + pairs.gained
    low, high = clopper_pearson(different, n, level=1.0 - _NUISANCE)
    if high < abs(delta):  # no plausible ψ is so large: δ₀ lies beyond all that can be
        return _NUISANCE if delta > 0.0 else 1.0
    psi = np.linspace(max(low, abs(delta)), high, _GRID)
    lost_p, gained_p = (psi + delta) / 2, (psi - delta) / 2
    first = int(stats.binom.ppf(_NEGLIGIBLE, n, lost_p.min()))
    last = int(stats.binom.isf(_NEGLIGIBLE, n, lost_p.max()))
    lost = np.arange(max(first, 0), min(last, n) + 1)
    needed = _gained_needed(lost, n, delta, _z(pairs.lost, pairs.gained, n, delta))
    left = n - lost
    share = np.clip(gained_p / np.maximum(1.0 - lost_p, 1e-300), 0.0, 1.0)
    at_least = stats.binom.sf(needed[None] - 1, left[None], share[:, None])  # (G, L)
    tail = (stats.binom.pmf(lost[None], n, lost_p[:, None]) * at_least).sum(axis=1)
    return min(1.0, float(tail.max()) + _NUISANCE + _NEGLIGIBLE)


def upper_bound(pairs: Pairs, *, margin: float, level: float = LEVEL) -> float:
    """Upper confidence bound of the worsening; below `margin` where `p_value` there is `level`.

    Args:
        pairs: At least one image.
        margin: Where bound and p-value agree exactly, in (0, 1).
        level: Of the bound, such as 0.05 for 95 %.

    Returns:
        In (-1, 1], to within 1 / 4,000.
    """
    inside, outside = pairs.worsening, margin
    if p_value(pairs, margin) > level:
        inside, outside = margin, 1.0
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        if p_value(pairs, middle) <= level:
            outside = middle
        else:
            inside = middle
    return outside


def fewest(margin: float, *, level: float = LEVEL) -> int:
    """Images under which no answers, however alike, show that the worsening is under `margin`.

    With n images that all agree, the bound is where (1 - δ)^n is the level.

    >>> fewest(0.01)
    301
    """
    return math.ceil(math.log(level - _NUISANCE) / math.log1p(-margin))


def needed(pairs: Pairs, margin: float, *, level: float = LEVEL, power: float = POWER) -> int:
    """Images with which a candidate that is as good would pass, with probability `power`.

    From the normal law at the share ψ of images that differed here:
    n = ((z_level·√(ψ₀ - margin²) + z_power·√ψ) / margin)², with ψ₀ = max(ψ, margin).

    Args:
        pairs: What was found; with no image, ψ is taken to be the margin.
        margin: In (0, 1).
        level: Of the bound.
        power: Probability of passing.
    """
    psi = (pairs.lost + pairs.gained) / pairs.count if pairs.count else margin
    under_null = max(psi, margin)
    roots = -stats.norm.ppf(level) * math.sqrt(under_null - margin**2)
    roots += float(stats.norm.ppf(power)) * math.sqrt(psi)
    return max(fewest(margin, level=level), math.ceil((float(roots) / margin) ** 2))


def _z(lost: Any, gained: Any, n: int, delta: float) -> Any:
    """The score statistic, elementwise."""
    middle = lost + gained + (lost - gained) * delta - 2 * n * delta
    root = np.sqrt(np.maximum(middle**2 + 8 * n * gained * delta * (1.0 - delta), 0.0))
    gained_p = np.maximum((middle + root) / (4 * n), max(0.0, -delta))
    variance = np.maximum(n * (2 * gained_p + delta - delta**2), 1e-12)
    return (n * delta - (lost - gained)) / np.sqrt(variance)


def _gained_needed(
    lost: npt.NDArray[np.int64], n: int, delta: float, observed: float
) -> npt.NDArray[np.int64]:
    """Fewest `gained` per `lost` (L,) that speaks for the candidate as much as what was observed.

    z grows with `gained`, so that halving finds it; n + 1 - lost where none does.
    """
    low, high = np.zeros_like(lost), n - lost + 1
    while (low < high).any():
        middle = (low + high) // 2
        enough = _z(lost, middle, n, delta) >= observed - 1e-12
        high = np.where(enough & (low < high), middle, high)
        low = np.where(~enough & (low < high), middle + 1, low)
    return low
