"""Calibration of the posterior: temperature, observed accuracy, and a report with its floors.

Temperature is fitted on calibration part A, observed accuracy on part B.

Shapes: N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import log_softmax

from ibinn import metrics, reliability
from ibinn.errors import ConfigError, DataError
from ibinn.metrics import Overconfidence, clopper_pearson
from ibinn.reliability import (
    TOP_LABEL_BINS,
    Binning,
    CalibrationErrors,
    FloatArray,
    Reliability,
    ReliabilityBin,
)
from ibinn.types import ObservedAccuracy

TEMPERATURE_RANGE = (1e-3, 1e3)
FLOOR_PERCENTILE = 95.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceBins:
    """Accuracy observed on calibration images, by confidence of the top class.

    Equal-width bins [low, high) of max p; as many as there are counts.

    Attributes:
        counts: Images per bin.
        correct: Of these, answered rightly.
    """

    counts: tuple[int, ...]
    correct: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.counts or len(self.counts) != len(self.correct):
            raise ConfigError(
                f"confidence bins have {len(self.counts)} counts and {len(self.correct)} correct; "
                "expected as many of both, at least 1"
            )
        if any(not 0 <= right <= n for n, right in zip(self.counts, self.correct, strict=True)):
            raise ConfigError(
                f"confidence bins hold {self.correct} correct of {self.counts}; expected "
                "0 <= correct <= count in each"
            )

    @classmethod
    def fit(
        cls,
        probabilities: npt.NDArray[np.floating[Any]],
        labels: npt.NDArray[np.integer[Any]],
        *,
        bins: int = TOP_LABEL_BINS,
    ) -> ConfidenceBins:
        """Count calibration images.

        Args:
            probabilities: Calibrated posteriors, shape (N, K).
            labels: Shape (N,).
            bins: Number of bins.

        Raises:
            DataError: See `ibinn.reliability.checked`.
        """
        p, y = reliability.checked(probabilities, labels)
        index = reliability.top_label_binning(p, bins=bins).index
        right = index[p.argmax(axis=1) == y]
        return cls(
            counts=tuple(np.bincount(index, minlength=bins).tolist()),
            correct=tuple(np.bincount(right, minlength=bins).tolist()),
        )

    def lookup(self, confidence: float) -> ObservedAccuracy | None:
        """Accuracy at about this confidence with its 95 % interval; None where the bin is empty.

        Raises:
            ConfigError: `confidence` is not in [0, 1].
        """
        if not -1e-6 <= confidence <= 1.0 + 1e-6:
            raise ConfigError(f"confidence is {confidence:g}; expected a probability in [0, 1]")
        index = int(reliability.confidence_bin(confidence, len(self.counts)))
        count, correct = self.counts[index], self.correct[index]
        if count == 0:
            return None
        low, high = clopper_pearson(correct, count)
        return ObservedAccuracy(accuracy=correct / count, low=low, high=high, count=count)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationReport:
    """How well probabilities match what happens, with floors.

    A floor is the 95th percentile of the same figure when labels are drawn from the model's own
    probabilities, that is, for a perfectly calibrated model with as many images: a figure below
    its floor shows no miscalibration.

    Attributes:
        count: Number N of images.
        draws: Number of draws behind the floors.
        accuracy: Of the most probable class.
        nll_nats: Mean of -log p(label).
        nll_floor_nats: Its floor.
        brier: Mean of Σ_y (p_y - [y = label])².
        brier_floor: Its floor.
        top_label_ece: With 15 equal-width bins and mean confidences.
        top_label_ece_floor: Its floor.
        top_label_bins: For the diagram; empty bins are left out.
        thesis: Reliability over all (image, class) pairs, with centres and with mean confidences.
        thesis_floor_with_centres: Floors of the figures with centres, each on its own.
        thesis_floor_with_mean_confidence: Floors of the figures with mean confidences.
        overconfidence: OCE.
    """

    count: int
    draws: int
    accuracy: float
    nll_nats: float
    nll_floor_nats: float
    brier: float
    brier_floor: float
    top_label_ece: float
    top_label_ece_floor: float
    top_label_bins: tuple[ReliabilityBin, ...]
    thesis: Reliability
    thesis_floor_with_centres: CalibrationErrors
    thesis_floor_with_mean_confidence: CalibrationErrors
    overconfidence: Overconfidence


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Drawn:
    """Figures of each draw, shape (draws,) or (draws, 4)."""

    nll: FloatArray
    brier: FloatArray
    top_label_ece: FloatArray
    with_centres: FloatArray
    with_mean_confidence: FloatArray


def fit_temperature(
    logits: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.integer[Any]]
) -> float:
    """The T that minimises the NLL of softmax(logits / T).

    The NLL is convex in 1/T; the root of its derivative is found exactly, within
    `TEMPERATURE_RANGE`. Where every label has the largest logit the NLL falls for ever as T goes
    to 0: such data cannot tell T, and the answer is 1.

    Args:
        logits: w_y + log q(z|y) up to a constant per image, shape (N, K).
        labels: Shape (N,).

    Returns:
        T > 0; above 1 the model was overconfident.

    Raises:
        DataError: Logits that are not finite, or shapes or labels that do not fit.
    """
    array = np.asarray(logits, dtype=np.float64)
    if array.ndim != 2 or not np.isfinite(array).all():
        raise DataError(
            f"logits have shape {array.shape} and {int((~np.isfinite(array)).sum())} values that "
            "are not finite; expected finite (N, K)"
        )
    _, y = reliability.checked(_softmax(array, 1.0), labels)
    relative = array - array.max(axis=1, keepdims=True)
    label_logits = relative[np.arange(len(y)), y]
    if (label_logits == 0.0).all():
        return 1.0

    def slope(log_inverse_t: float) -> float:
        """d NLL / d(1/T) = mean(E_p[logit] - logit of the label); grows with 1/T."""
        p = _softmax(relative, float(np.exp(-log_inverse_t)))
        return float(np.mean((p * relative).sum(axis=1) - label_logits))

    coldest, hottest = TEMPERATURE_RANGE
    if slope(-np.log(hottest)) >= 0.0:
        return hottest
    if slope(-np.log(coldest)) <= 0.0:
        return coldest
    return float(np.exp(-brentq(slope, -np.log(hottest), -np.log(coldest), xtol=1e-9)))


def calibration_report(
    probabilities: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.integer[Any]],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> CalibrationReport:
    """Every calibration figure of a set of posteriors, with floors.

    Args:
        probabilities: Posteriors, shape (N, K); float64 from float64 logits, lest a small
            probability is rounded to 0 and the NLL to infinity.
        labels: Shape (N,).
        draws: Number of label draws for the floors, at least 1.
        seed: Seed of the draws.

    Raises:
        ConfigError: `draws` is below 1.
        DataError: See `ibinn.reliability.checked`.
    """
    if draws < 1:
        raise ConfigError(f"draws is {draws}; expected at least 1")
    p, y = reliability.checked(probabilities, labels)
    top_bins = reliability.top_label_reliability(p, y)
    drawn = _draw_figures(p, draws=draws, generator=np.random.default_rng(seed))

    def floor(figures: FloatArray) -> FloatArray:
        return np.asarray(np.percentile(figures, FLOOR_PERCENTILE, axis=0))

    return CalibrationReport(
        count=len(y),
        draws=draws,
        accuracy=metrics.accuracy(p, y),
        nll_nats=metrics.nll(p, y),
        nll_floor_nats=float(floor(drawn.nll)),
        brier=metrics.brier(p, y),
        brier_floor=float(floor(drawn.brier)),
        top_label_ece=reliability.ece_of_bins(top_bins),
        top_label_ece_floor=float(floor(drawn.top_label_ece)),
        top_label_bins=top_bins,
        thesis=reliability.thesis_reliability(p, y),
        thesis_floor_with_centres=reliability.named_errors(floor(drawn.with_centres)),
        thesis_floor_with_mean_confidence=reliability.named_errors(
            floor(drawn.with_mean_confidence)
        ),
        overconfidence=metrics.overconfidence(p, y),
    )


def _draw_figures(p: FloatArray, *, draws: int, generator: np.random.Generator) -> _Drawn:
    """Draw labels from p (N, K) and compute every figure of each draw."""
    images, classes = p.shape
    thesis, top = reliability.thesis_binning(p), reliability.top_label_binning(p)
    rows = np.arange(images)
    predicted = p.argmax(axis=1)
    square_sum = float((p**2).sum())
    # All rows in one ascending array, row i shifted by i: one search draws every label.
    cumulative = p.cumsum(axis=1)
    cumulative = (cumulative / cumulative[:, -1:] + rows[:, None]).ravel()
    thesis_hits = np.empty((draws, len(thesis.count)))
    top_hits = np.empty((draws, len(top.count)))
    nll, brier = np.empty(draws), np.empty(draws)
    for draw in range(draws):
        found = np.searchsorted(cumulative, rows + generator.random(images), side="right")
        labels = np.clip(found - rows * classes, 0, classes - 1)
        given = p[rows, labels]
        nll[draw] = -np.log(given).mean()
        brier[draw] = (square_sum - 2 * given.sum()) / images + 1
        thesis_hits[draw] = reliability.thesis_hits(thesis, labels)
        top_hits[draw] = np.bincount(top.index[labels == predicted], minlength=len(top.count))
    return _Drawn(
        nll=nll,
        brier=brier,
        top_label_ece=top.gaps(top_hits, top.confidence_sum) @ top.count / images,
        with_centres=_thesis_errors(thesis, thesis_hits, thesis.centre_sum),
        with_mean_confidence=_thesis_errors(thesis, thesis_hits, thesis.confidence_sum),
    )


def _thesis_errors(binning: Binning, hits: FloatArray, confidence_sum: FloatArray) -> FloatArray:
    return reliability.errors_of_gaps(binning.gaps(hits, confidence_sum), binning)


def _softmax(logits: FloatArray, temperature: float) -> FloatArray:
    return np.asarray(np.exp(log_softmax(logits / temperature, axis=1)))
