"""Two things compared in one run: alternated, so that how busy the machine is cancels."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """What alternated pairs say of a ratio.

    Attributes:
        median: Over the pairs.
        low: 95 % interval of the median, by its order statistics.
        high: Likewise.
        pairs: Number of pairs.
    """

    median: float
    low: float
    high: float
    pairs: int

    @classmethod
    def of(cls, numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
        """Of pairs in the order measured."""
        ratios = sorted(a / b for a, b in zip(numerators, denominators, strict=True))
        n = len(ratios)
        rank = max(0, math.floor(n / 2 - 0.98 * math.sqrt(n)) - 1)
        return cls(
            median=statistics.median(ratios), low=ratios[rank], high=ratios[n - 1 - rank], pairs=n
        )


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
