"""Selective classification: what goes wrong when a classifier may decline to answer.

Images are accepted in the order of a confidence, the most confident first. Accepting an image
fails where its class is wrong, or where it shows none of the classes (out of distribution):

- coverage c: share of images accepted;
- generalised risk G(c) = P(accepted and failed), errors per image that is *offered*;
- selective risk G(c)/c, errors per image that is *accepted*;
- AUGRC = ∫ G(c) dc over [0, 1] (Traub et al. 2024, arXiv 2407.01032);
- AURC = ∫ G(c)/c dc over [0, 1] (Geifman et al. 2019).

Images of equal confidence come in random order: G is linear between distinct confidences, which
is its expected value over those orders. With error rate e, a constant confidence has AUGRC e/2, a
perfect one e²/2, and any one e·(1 - e)·(1 - AUROC of failures) + e²/2.

`ibinn.selective_bootstrap` gives the figures intervals.

Shapes: N images, L distinct confidences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ibinn.errors import ConfigError, DataError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

LEVEL = 0.95
"""Probability of the intervals."""

UNKNOWN_ODDS = 1 / 3
"""One unknown image for three known ones, in `trust_score`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RiskCoverage:
    """A generalised risk-coverage curve, linear between its points.

    Attributes:
        coverage: From 0 to 1, ascending (L + 1,).
        generalised_risk: G at these coverages, from 0 to the error rate (L + 1,).
    """

    coverage: FloatArray
    generalised_risk: FloatArray

    def at(self, coverage: float) -> float:
        """G at a coverage in [0, 1]."""
        return float(np.interp(coverage, self.coverage, self.generalised_risk))

    def selective_risk(self, coverage: float) -> float:
        """Error rate among the accepted images, G(c)/c.

        Args:
            coverage: In (0, 1]; where it falls among images of equal confidence, the expected
                value over their orders.

        Raises:
            ConfigError: `coverage` is out of range.
        """
        check_coverage(coverage)
        return self.at(coverage) / coverage

    @property
    def augrc(self) -> float:
        """Area under the curve, in [0, ½]; low is good."""
        return float(np.trapezoid(self.generalised_risk, self.coverage))

    @property
    def aurc(self) -> float:
        """Mean selective risk over all coverages, in [0, 1]; low is good."""
        # On a stretch G = a + b c, so that ∫ G/c dc = a ln(c1/c0) + b (c1 - c0); a = 0 from c = 0.
        c0, c1 = self.coverage[:-1], self.coverage[1:]
        g0, g1 = self.generalised_risk[:-1], self.generalised_risk[1:]
        slope = (g1 - g0) / (c1 - c0)
        intercept = g0 - slope * c0
        logs = np.log(c1[1:] / c0[1:])
        return float((slope * (c1 - c0)).sum() + (intercept[1:] * logs).sum())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranked:
    """Images sorted by a confidence once, for their curves under many weightings.

    Attributes:
        order: Images by falling confidence (N,).
        ends: Last position in `order` of each distinct confidence (L,).
        failures: 1 where accepting the image is an error, in that order (N,).
    """

    order: IntArray
    ends: IntArray
    failures: FloatArray

    @classmethod
    def of(cls, confidence: npt.NDArray[np.floating[Any]], failures: BoolArray) -> Ranked:
        """Sort; arguments and errors as in `risk_coverage`."""
        values, failed = _checked(confidence, failures)
        order = np.argsort(-values, kind="stable")
        falling = values[order]
        ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
        return cls(order=order, ends=ends, failures=failed[order].astype(np.float64))

    def curve(self, weights: FloatArray) -> RiskCoverage:
        """The curve when image i counts weights[i] (N,), not all of them 0."""
        in_order = weights[self.order]
        accepted = np.cumsum(in_order)[self.ends]
        failed = np.cumsum(in_order * self.failures)[self.ends]
        # Images without weight would make stretches without length.
        kept = np.diff(accepted, prepend=0.0) > 0
        total = accepted[-1]
        return RiskCoverage(
            coverage=np.concatenate(([0.0], accepted[kept] / total)),
            generalised_risk=np.concatenate(([0.0], failed[kept] / total)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval.

    Attributes:
        value: On the images as they are.
        low: 2.5th percentile over the bootstrap draws.
        high: 97.5th percentile.
    """

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside of the interval."""
        return self.low > 0.0 or self.high < 0.0


def trust_score(
    max_posterior: npt.NDArray[np.floating[Any]],
    combined_p: npt.NDArray[np.floating[Any]],
    *,
    unknown_odds: float = UNKNOWN_ODDS,
) -> FloatArray:
    """P(accepting the image is right): the one confidence by which images are ranked.

    Accepting an image is right if it shows one of the classes and the answer is its class, so
    P(right) = P(known) · P(class right | known). The second factor is the calibrated posterior of
    the top class. The first follows from the p-value by Bayes' theorem,
    P(known) = 1 / (1 + odds / B(p)), with Sellke, Bayarri & Berger's (2001) calibration of
    p-values B(p) = -e·p·ln p for p < 1/e, else 1: the smallest Bayes factor for "known" that any
    alternative with density a·p^(a - 1) gives, so the score errs on the careful side.

    Args:
        max_posterior: Calibrated posterior of the top class, in [0, 1] (N,).
        combined_p: p-value of the combined test, in (0, 1] (N,).
        unknown_odds: Unknown images expected for every known one. The order of images depends
            little on it: between 0.1 and 1, AUGRC moves by 1.5 % on the validation images,
            corruptions and unknown images on which this form was chosen (a quarter unknown).

    Returns:
        In [0, 1] (N,); -inf where one of the two is NaN, so that an image that was not assessed
        is accepted last.

    Raises:
        ConfigError: `unknown_odds` is not above 0.

    >>> trust_score(np.array([0.99, 0.99, 0.6]), np.array([0.5, 0.001, 0.5])).round(3)
    array([0.742, 0.053, 0.45 ])
    """
    if not unknown_odds > 0.0:
        raise ConfigError(f"unknown_odds is {unknown_odds:g}; expected a number above 0")
    posterior = np.asarray(max_posterior, dtype=np.float64)
    p = np.asarray(combined_p, dtype=np.float64)
    assessed = np.isfinite(posterior) & np.isfinite(p)
    small = np.where(assessed, np.minimum(p, 1.0 / np.e), 1.0 / np.e)
    bayes_factor = -np.e * small * np.log(small)
    score = posterior * bayes_factor / (bayes_factor + unknown_odds)
    return np.where(assessed, score, -np.inf)


def risk_coverage(
    confidence: npt.NDArray[np.floating[Any]],
    failures: BoolArray,
    *,
    weights: npt.NDArray[np.floating[Any]] | None = None,
) -> RiskCoverage:
    """The generalised risk-coverage curve of one confidence.

    Args:
        confidence: High is accepted first (N,); infinite is allowed, NaN is not.
        failures: Where accepting the image is an error (N,).
        weights: How much each image counts, 0 or more (N,); None: all the same.

    Raises:
        DataError: Shapes do not fit, a confidence is NaN, or no image has weight.

    >>> curve = risk_coverage(np.array([0.9, 0.8, 0.3, 0.2]), np.array([False, False, False, True]))
    >>> curve.selective_risk(0.75), curve.selective_risk(1.0), curve.augrc
    (0.0, 0.25, 0.03125)
    """
    ranked = Ranked.of(confidence, failures)
    count = len(ranked.order)
    return ranked.curve(np.ones(count) if weights is None else _checked_weights(weights, count))


def selective_risk(
    confidence: npt.NDArray[np.floating[Any]],
    failures: BoolArray,
    coverage: float,
    *,
    weights: npt.NDArray[np.floating[Any]] | None = None,
) -> float:
    """Error rate among the `coverage` most confident images; see `RiskCoverage.selective_risk`."""
    return risk_coverage(confidence, failures, weights=weights).selective_risk(coverage)


def augrc(
    confidence: npt.NDArray[np.floating[Any]],
    failures: BoolArray,
    *,
    weights: npt.NDArray[np.floating[Any]] | None = None,
) -> float:
    """Area under the generalised risk-coverage curve; see `RiskCoverage.augrc`.

    >>> augrc(np.zeros(4), np.array([True, False, False, False]))
    0.125
    """
    return risk_coverage(confidence, failures, weights=weights).augrc


def acceptance(
    confidence: npt.NDArray[np.floating[Any]],
    coverage: float,
    *,
    weights: npt.NDArray[np.floating[Any]] | None = None,
) -> FloatArray:
    """Probability that each image is among the `coverage` most confident ones (N,).

    1 above the threshold, 0 below it, and the same share for all images on it, so that
    Σ weight · acceptance = coverage · Σ weight.

    Args:
        confidence: High is accepted first (N,).
        coverage: In (0, 1].
        weights: How much each image counts (N,); None: all the same.

    Raises:
        ConfigError: `coverage` is out of range.
        DataError: As `risk_coverage`.

    >>> acceptance(np.array([0.9, 0.5, 0.5, 0.1]), 0.5)
    array([1. , 0.5, 0.5, 0. ])
    """
    check_coverage(coverage)
    values, _ = _checked(confidence, np.zeros(np.shape(confidence), dtype=np.bool_))
    count = np.ones(len(values)) if weights is None else _checked_weights(weights, len(values))
    distinct, group = np.unique(-values, return_inverse=True)
    totals = np.bincount(group, weights=count, minlength=len(distinct))
    room = coverage * totals.sum() - (np.cumsum(totals) - totals)
    result: FloatArray = np.clip(room / np.maximum(totals, 1e-300), 0.0, 1.0)[group]
    return result


def estimate(value: float, drawn: FloatArray) -> Estimate:
    """A figure with the percentile interval of its bootstrap draws (draws,)."""
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(drawn, (tail, 100 - tail))
    return Estimate(value=float(value), low=float(low), high=float(high))


def check_coverage(coverage: float) -> None:
    """Refuse a coverage that no share of images can have.

    Raises:
        ConfigError: `coverage` is not in (0, 1].
    """
    if not 0.0 < coverage <= 1.0:
        raise ConfigError(f"coverage is {coverage:g}; expected a share in (0, 1], such as 0.8")


def _checked(
    confidence: npt.NDArray[np.floating[Any]], failures: BoolArray
) -> tuple[FloatArray, BoolArray]:
    values, failed = np.asarray(confidence, dtype=np.float64), np.asarray(failures, dtype=np.bool_)
    if values.ndim != 1 or values.shape != failed.shape or not len(values):
        raise DataError(
            f"confidence has shape {values.shape}, failures {failed.shape}; expected (N,) for "
            "both, N >= 1"
        )
    if missing := int(np.isnan(values).sum()):
        raise DataError(
            f"{missing} of {len(values)} confidences are NaN; give an image that was not "
            "assessed -inf: it is accepted last"
        )
    return values, failed


def _checked_weights(weights: npt.NDArray[np.floating[Any]], count: int) -> FloatArray:
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (count,) or not (array >= 0).all() or not array.sum() > 0:
        raise DataError(
            f"weights have shape {array.shape} and the sum {array.sum():g}; expected ({count},), "
            "0 or more each, more than 0 together"
        )
    return array
