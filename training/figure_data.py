"""What figures are drawn from: histograms and ROC curves as a few hundred numbers.

They are part of the report's JSON, so that every figure can be drawn again without the model.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ibinn.assessment import COMBINED
from training.evaluation import Histogram, Roc
from training.scoring import FloatArray, Scored

HISTOGRAM_BINS = 60


def histograms(inside: Scored, outside: Mapping[str, Scored]) -> tuple[Histogram, ...]:
    """Every statistic and the combined score, on bins that show the test images well."""

    def of(name: str, values: Mapping[str, FloatArray]) -> Histogram:
        finite = {key: array[np.isfinite(array)] for key, array in values.items()}
        low, middle, high = np.percentile(finite["test"], (0.1, 50.0, 99.9))
        every = np.concatenate(list(finite.values()))
        # Far sets are cut off at four times the test images' own spread: their distance would
        # squeeze everything else into one bin.
        left = min(low, max(float(np.percentile(every, 0.5)), middle - 4 * (middle - low)))
        right = max(high, min(float(np.percentile(every, 99.5)), middle + 4 * (high - middle)))
        if not left < right:
            left, right = left - 0.5, left + 0.5
        edges = np.linspace(left, right, HISTOGRAM_BINS + 1)
        shares = []
        for key, array in finite.items():
            counts, _ = np.histogram(np.clip(array, left, right), bins=edges)
            shares.append((key, tuple((counts / max(1, len(array))).tolist())))
        return Histogram(statistic=name, edges=tuple(edges.tolist()), shares=tuple(shares))

    names = [COMBINED, *inside.statistics]
    return tuple(
        of(
            name,
            {
                key: scored.unusual[COMBINED] if name == COMBINED else scored.statistics[name]
                for key, scored in {"test": inside, **outside}.items()
            },
        )
        for name in names
    )


def roc(name: str, in_scores: FloatArray, out_scores: FloatArray) -> Roc:
    """Share of the set above the threshold that each share of test images is above."""
    inside = np.sort(in_scores[~np.isnan(in_scores)])[::-1]
    outside = np.sort(out_scores[~np.isnan(out_scores)])
    wanted = np.unique(np.concatenate([np.linspace(0, 1, 101), np.geomspace(1e-4, 1, 100)]))
    ranks = np.unique(np.floor(wanted * len(inside)).astype(int))
    inner = ranks[ranks < len(inside)]
    above = len(outside) - np.searchsorted(outside, inside[inner], side="right")
    return Roc(
        name=name,
        false_positive_rate=(*(inner / len(inside)).tolist(), 1.0),
        true_positive_rate=(*(above / len(outside)).tolist(), 1.0),
    )
