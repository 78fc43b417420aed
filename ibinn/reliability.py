"""Reliability: how often what was given probability p is right.

Two bin systems: the thesis's, over all (image, class) pairs, fine at both ends (Eq. 5.24-5.26),
and 15 equal-width bins of the top class. Fractions throughout, not percent.

Shapes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ibinn.errors import ConfigError, DataError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

THESIS_EDGES: FloatArray = (
    np.array([0, 1, 2, 3, 4, 5, *range(15, 96, 10), 96, 97, 98, 99, 100], dtype=np.float64) / 100
)
"""Edges of the thesis's 19 bins; [low, high), the last one closed."""

MIN_PAIRS = 100
"""Thesis bins with fewer pairs are merged with a neighbour."""

TOP_LABEL_BINS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """One bin of a reliability diagram.

    Attributes:
        low: Lower edge.
        high: Upper edge.
        count: Number of predictions in the bin, at least 1.
        centre: Mean, over the predictions, of the centre of the unmerged bin each fell in: the
            midpoint for a bin that was not merged.
        mean_confidence: Mean probability given.
        accuracy: Share that was right.
    """

    low: float
    high: float
    count: int
    centre: float
    mean_confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationErrors:
    """The thesis's figures; gap_b = accuracy - confidence of bin b.

    Attributes:
        ece: Σ_b count_b·|gap_b| / Σ_b count_b (Eq. 5.24).
        mce: max_b |gap_b| (Eq. 5.25).
        ice: Σ_b width_b·|gap_b| (Eq. 5.26); the widths add up to 1.
        geometric_mean: (ece·mce·ice)^⅓.
    """

    ece: float
    mce: float
    ice: float
    geometric_mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """Thesis reliability of a set of predictions.

    Attributes:
        bins: In ascending order; they tile [0, 1].
        with_centres: Confidence of a bin is its centre, as published. A predictor that is always
            certain and right scores 0.5 % here, because its bins are 1 % wide.
        with_mean_confidence: Confidence of a bin is its mean confidence; that predictor scores 0.
    """

    bins: tuple[ReliabilityBin, ...]
    with_centres: CalibrationErrors
    with_mean_confidence: CalibrationErrors


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Binning:
    """Predictions sorted into bins; all that reliability needs besides who was right.

    It depends on the probabilities alone, so many draws of labels can share it.

    Attributes:
        low: Lower edges, shape (bins,).
        high: Upper edges, shape (bins,).
        count: Predictions per bin, shape (bins,).
        confidence_sum: Sum of probabilities per bin, shape (bins,).
        centre_sum: Sum of unmerged bins' centres per bin, shape (bins,).
        index: Bin of each prediction, in the shape of the predictions.
    """

    low: FloatArray
    high: FloatArray
    count: IntArray
    confidence_sum: FloatArray
    centre_sum: FloatArray
    index: npt.NDArray[np.int16]

    def gaps(self, hits: npt.NDArray[Any], confidence_sum: FloatArray) -> FloatArray:
        """|accuracy - confidence| per bin, 0 where a bin is empty; `hits` of shape (..., bins)."""
        gaps: FloatArray = np.abs(hits - confidence_sum) / np.maximum(self.count, 1)
        return gaps

    def rows(self, hits: npt.NDArray[Any]) -> tuple[ReliabilityBin, ...]:
        """The bins that hold predictions; `hits` of shape (bins,) counts the right ones."""
        return tuple(
            ReliabilityBin(
                low=float(self.low[b]),
                high=float(self.high[b]),
                count=int(self.count[b]),
                centre=float(self.centre_sum[b] / self.count[b]),
                mean_confidence=float(self.confidence_sum[b] / self.count[b]),
                accuracy=float(hits[b] / self.count[b]),
            )
            for b in range(len(self.count))
            if self.count[b]
        )


def checked(
    probabilities: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.integer[Any]]
) -> tuple[FloatArray, IntArray]:
    """Probabilities as float64 (N, K) and labels as int64 (N,), or an error that says why not.

    Raises:
        DataError: Wrong shapes, no images, values outside [0, 1], rows that do not add up to 1
            within 1e-3, or labels outside 0 ... K - 1.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    y = np.asarray(labels)
    if p.ndim != 2 or p.shape[0] == 0 or p.shape[1] < 2:
        raise DataError(f"probabilities have shape {p.shape}; expected (N, K), N >= 1, K >= 2")
    if y.shape != (p.shape[0],):
        raise DataError(f"labels have shape {y.shape}; expected ({p.shape[0]},)")
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"labels have type {y.dtype}; expected integers, class indices")
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise DataError(
            f"labels run from {y.min()} to {y.max()}; expected class indices 0 to {p.shape[1] - 1}"
        )
    if not (p.min() >= -1e-6 and p.max() <= 1 + 1e-6):  # also false for NaN
        raise DataError(f"probabilities run from {p.min()} to {p.max()}; expected 0 to 1")
    worst = float(np.abs(p.sum(axis=1) - 1.0).max())
    if worst > 1e-3:
        raise DataError(
            f"a row of probabilities misses the sum 1 by {worst:.2g}; expected at most 0.001: "
            "give posteriors, not logits"
        )
    return np.clip(p, 0.0, 1.0), y.astype(np.int64)


def confidence_bin(confidence: npt.ArrayLike, bins: int = TOP_LABEL_BINS) -> IntArray:
    """Index 0 ... bins - 1 of the equal-width bin [low, high) of a confidence; 1 is in the last."""
    index = np.floor(np.asarray(confidence, dtype=np.float64) * bins).astype(np.int64)
    return np.clip(index, 0, bins - 1)


def thesis_binning(probabilities: FloatArray, *, min_pairs: int = MIN_PAIRS) -> Binning:
    """Sort all (image, class) probabilities into the thesis's bins.

    While a bin holds fewer than `min_pairs` pairs, the one with the fewest (leftmost of equals) is
    merged with the neighbour that holds fewer (the left one of equals). Empty bins take part, so
    that the bins left tile [0, 1].

    Args:
        probabilities: Shape (N, K), in [0, 1].
        min_pairs: Smallest number of pairs in a bin.

    Returns:
        At least one bin; `index` has shape (N, K).
    """
    bins = len(THESIS_EDGES) - 1
    raw = np.searchsorted(THESIS_EDGES[1:-1], probabilities, side="right").astype(np.int16)
    flat = raw.ravel()
    count = np.bincount(flat, minlength=bins)
    groups = _merged(count, min_pairs)
    to_group = np.repeat(np.arange(len(groups)), [stop - start for start, stop in groups])
    starts = [start for start, _ in groups]
    stops = [stop for _, stop in groups]
    centres = (THESIS_EDGES[1:] + THESIS_EDGES[:-1]) / 2
    confidence = np.bincount(flat, weights=probabilities.ravel(), minlength=bins)
    return Binning(
        low=THESIS_EDGES[starts],
        high=THESIS_EDGES[stops],
        count=np.add.reduceat(count, starts),
        confidence_sum=np.add.reduceat(confidence, starts),
        centre_sum=np.add.reduceat(count * centres, starts),
        index=to_group[raw].astype(np.int16),
    )


def top_label_binning(probabilities: FloatArray, *, bins: int = TOP_LABEL_BINS) -> Binning:
    """Sort the top class's probabilities into equal-width bins, none merged.

    Args:
        probabilities: Shape (N, K).
        bins: Number of bins.

    Returns:
        `bins` bins, some perhaps empty; `index` has shape (N,).
    """
    if bins < 1:
        raise ConfigError(f"number of bins is {bins}; expected at least 1")
    confidence = probabilities.max(axis=1)
    index = confidence_bin(confidence, bins)
    edges = np.linspace(0.0, 1.0, bins + 1)
    count = np.bincount(index, minlength=bins)
    confidence_sum = np.bincount(index, weights=confidence, minlength=bins).astype(np.float64)
    return Binning(
        low=edges[:-1],
        high=edges[1:],
        count=count,
        confidence_sum=confidence_sum,
        centre_sum=count * (edges[1:] + edges[:-1]) / 2,
        index=index.astype(np.int16),
    )


def thesis_hits(binning: Binning, labels: IntArray) -> IntArray:
    """Right pairs per bin, [y' = label]: shape (bins,). Eq. 5.21 needs this bracket."""
    index = binning.index[np.arange(len(labels)), labels]
    return np.bincount(index, minlength=len(binning.count))


def errors_of_gaps(gaps: FloatArray, binning: Binning) -> FloatArray:
    """ECE, MCE, ICE and their geometric mean of gaps (..., bins); shape (..., 4)."""
    ece = gaps @ binning.count / binning.count.sum()
    mce = gaps.max(axis=-1)
    ice = gaps @ (binning.high - binning.low)
    return np.stack([ece, mce, ice, np.cbrt(ece * mce * ice)], axis=-1)


def named_errors(values: FloatArray) -> CalibrationErrors:
    """The four numbers of `errors_of_gaps` by name."""
    ece, mce, ice, geometric_mean = (float(v) for v in values)
    return CalibrationErrors(ece=ece, mce=mce, ice=ice, geometric_mean=geometric_mean)


def thesis_reliability(
    probabilities: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.integer[Any]],
    *,
    min_pairs: int = MIN_PAIRS,
) -> Reliability:
    """ECE, MCE, ICE and geometric mean in the thesis's bins (Eq. 5.24-5.26).

    Args:
        probabilities: Posteriors, shape (N, K).
        labels: Shape (N,).
        min_pairs: Bins with fewer pairs are merged, see `thesis_binning`.

    Raises:
        DataError: See `checked`.
    """
    p, y = checked(probabilities, labels)
    binning = thesis_binning(p, min_pairs=min_pairs)
    hits = thesis_hits(binning, y)
    centres, means = (
        named_errors(errors_of_gaps(binning.gaps(hits, confidence), binning))
        for confidence in (binning.centre_sum, binning.confidence_sum)
    )
    return Reliability(bins=binning.rows(hits), with_centres=centres, with_mean_confidence=means)


def top_label_reliability(
    probabilities: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.integer[Any]],
    *,
    bins: int = TOP_LABEL_BINS,
) -> tuple[ReliabilityBin, ...]:
    """Reliability of the top class in equal-width bins; empty bins are left out.

    Raises:
        DataError: See `checked`.
    """
    p, y = checked(probabilities, labels)
    binning = top_label_binning(p, bins=bins)
    right = (p.argmax(axis=1) == y).astype(np.float64)
    return binning.rows(np.bincount(binning.index, weights=right, minlength=bins))


def ece_of_bins(rows: Sequence[ReliabilityBin]) -> float:
    """Σ count·|accuracy - mean confidence| / Σ count."""
    total = sum(row.count for row in rows)
    return sum(row.count * abs(row.accuracy - row.mean_confidence) for row in rows) / total


def top_label_ece(
    probabilities: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.integer[Any]],
    *,
    bins: int = TOP_LABEL_BINS,
) -> float:
    """Expected calibration error of the top class, with mean confidences.

    Raises:
        DataError: See `checked`.
    """
    return ece_of_bins(top_label_reliability(probabilities, labels, bins=bins))


def _merged(count: IntArray, min_pairs: int) -> list[tuple[int, int]]:
    """Ranges [start, stop) of bins to be joined, see `thesis_binning`."""
    groups = [(b, b + 1) for b in range(len(count))]
    totals = [int(c) for c in count]
    while len(groups) > 1 and min(totals) < min_pairs:
        b = totals.index(min(totals))
        left_is_smaller = b > 0 and (b + 1 == len(totals) or totals[b - 1] <= totals[b + 1])
        first = b - 1 if left_is_smaller else b
        groups[first : first + 2] = [(groups[first][0], groups[first + 1][1])]
        totals[first : first + 2] = [totals[first] + totals[first + 1]]
    return groups
