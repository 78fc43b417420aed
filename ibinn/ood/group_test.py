"""Is this hour's traffic still our data? Tests of a *set* of images against calibration part B.

One image that is a little unusual says nothing; a hundred that all are a little unusual do. Four
tests of the hypothesis "these M images are exchangeable with the calibration images":

- typicality of log q(x) (Nalisnick et al. 2019): |mean over the set - mean on part A|;
- typicality of the combined score, the same of the score that the verdict ranks;
- uniformity of the combined p-values: the largest distance of their distribution from the
  uniform one (Kolmogorov-Smirnov);
- excess of small p-values: how many are at most 0.05, which finds a few odd images in many.

Their p-values (`ibinn.ood.group_p_values`) know that part B is finite. The verdict is on the four
Holm-adjusted p-values.

Images of one scene or one burst are not independent, and are rightly flagged: judge groups that
were drawn as the calibration images were.

Shapes: G groups, M images each, n calibration images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ibinn.errors import ConfigError, DataError
from ibinn.ood.group_p_values import (
    DRAWS,
    TAIL,
    group_excess,
    group_typicality,
    group_uniformity,
    uniformity_distance,
)
from ibinn.ood.p_values import attainable_count, holm
from ibinn.types import TestKind

FloatArray = npt.NDArray[np.float64]

LIKELIHOOD = "log_q_x"
"""Statistic of Nalisnick's test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTest:
    """One test of a set.

    Attributes:
        name: Such as ``combined.typicality``.
        statistic: Its value.
        expected: What is expected of the set if it is usual: the value that the statistic is a
            distance from, or the number that it is compared with; None where it is 0.
        p_value: In (0, 1].
        p_adjusted: Holm-adjusted over the tests of the set.
        flagged: ``p_adjusted <= alpha``.
        words: What was found, in a sentence.
    """

    name: str
    statistic: float
    expected: float | None
    p_value: float
    p_adjusted: float
    flagged: bool
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAnswer:
    """Whether a set of images is still like the calibration images.

    Attributes:
        count: Images M that were judged.
        not_assessed: Images left out because their score is not finite.
        calibration_count: Number n of calibration images.
        alpha: Significance of the verdict.
        tests: Every test.
        flagged: Whether any is flagged.
        reason: The verdict in words.
    """

    count: int
    not_assessed: int
    calibration_count: int
    alpha: float
    tests: tuple[GroupTest, ...]
    flagged: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupScores:
    """What is asked of the images of a set.

    Attributes:
        combined_score: Score of the combined test (M,), NaN where not assessed.
        combined_p: Its p-value (M,).
        likelihood: log q(x) (M,), nats.
    """

    combined_score: FloatArray
    combined_p: FloatArray
    likelihood: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupReference:
    """What a set is held against.

    Attributes:
        combined: Combined scores of part B (n,).
        likelihood: log q(x) of part B (n,), or None where the bundle does not hold it.
        likelihood_centre: Mean of log q(x) on part A.
    """

    combined: FloatArray
    likelihood: FloatArray | None
    likelihood_centre: float | None

    @classmethod
    def of(
        cls,
        combined: FloatArray,
        ranks: Mapping[str, FloatArray],
        centres: Mapping[str, float],
    ) -> GroupReference:
        """From the fields of the same names of `ibinn.reference.Reference`."""
        plain = (TestKind.TWO_TAILED, TestKind.HIGH_IS_UNUSUAL, TestKind.LOW_IS_UNUSUAL)
        names = (f"{LIKELIHOOD}.{kind.value}" for kind in plain)
        return cls(
            combined=combined,
            likelihood=next((ranks[name] for name in names if name in ranks), None),
            likelihood_centre=centres.get(LIKELIHOOD),
        )


def group_p_values(
    scores: GroupScores, reference: GroupReference, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, FloatArray]:
    """Raw p-values of every test for groups of one size, by name.

    Args:
        scores: Finite arrays of shape (G, M).
        reference: What they are held against.
        draws: Behind each p-value.
        seed: Of the draws.

    Returns:
        Shape (G,) each.
    """
    n = len(reference.combined)
    found = {}
    if reference.likelihood is not None and reference.likelihood_centre is not None:
        found[f"{LIKELIHOOD}.typicality"] = group_typicality(
            scores.likelihood,
            reference.likelihood,
            centre=reference.likelihood_centre,
            draws=draws,
            seed=seed,
        )
    found["combined.typicality"] = group_typicality(
        scores.combined_score, reference.combined, draws=draws, seed=seed
    )
    found["combined.uniformity"] = group_uniformity(scores.combined_p, n, draws=draws, seed=seed)
    if attainable_count(TAIL, n, TestKind.HIGH_IS_UNUSUAL):
        found["combined.excess"] = group_excess(scores.combined_p, n)
    return found


def judge_group(
    scores: GroupScores,
    reference: GroupReference,
    *,
    alpha: float = 0.01,
    draws: int = DRAWS,
    seed: int = 0,
) -> GroupAnswer:
    """Whether these images, taken together, are still like the calibration images.

    Args:
        scores: Of the images, arrays of shape (M,).
        reference: From the bundle's calibration.
        alpha: Chance of flagging a usual set, in (0, 1).
        draws: Behind each p-value.
        seed: Of the draws: the same set has the same answer.

    Raises:
        DataError: Fewer than two images could be assessed.
        ConfigError: `alpha` is not in (0, 1), or too small for so few draws.
    """
    if not 0.0 < alpha < 1.0:
        raise ConfigError(f"significance α is {alpha:g}; expected a number in (0, 1), such as 0.01")
    finite = (
        np.isfinite(scores.combined_score)
        & np.isfinite(scores.combined_p)
        & np.isfinite(scores.likelihood)
    )
    count = int(finite.sum())
    if count < 2:
        raise DataError(
            f"{count} of {len(finite)} images of the group could be assessed; expected at least 2: "
            "judge a single image by its own verdict"
        )
    kept = GroupScores(
        combined_score=scores.combined_score[None, finite],
        combined_p=scores.combined_p[None, finite],
        likelihood=scores.likelihood[None, finite],
    )
    raw = {
        name: float(found[0])
        for name, found in group_p_values(kept, reference, draws=draws, seed=seed).items()
    }
    if len(raw) / (draws + 1) > alpha:
        raise ConfigError(
            f"significance α = {alpha:g} cannot be tested by {len(raw)} tests of {draws} draws; "
            f"expected at least {math.ceil(len(raw) / alpha) - 1} draws"
        )
    adjusted = holm(np.array([list(raw.values())]))[0]
    tests = tuple(
        _described(name, kept, reference, p, float(q), alpha)
        for (name, p), q in zip(raw.items(), adjusted, strict=True)
    )
    left_out = len(finite) - count
    return GroupAnswer(
        count=count,
        not_assessed=left_out,
        calibration_count=len(reference.combined),
        alpha=alpha,
        tests=tests,
        flagged=any(test.flagged for test in tests),
        reason=_reason(tests, count, left_out, alpha),
    )


def _described(
    name: str,
    scores: GroupScores,
    reference: GroupReference,
    p: float,
    adjusted: float,
    alpha: float,
) -> GroupTest:
    n, count = len(reference.combined), scores.combined_p.shape[1]
    expected: float | None
    match name:
        case "combined.typicality":
            statistic = float(scores.combined_score.mean())
            expected = float(reference.combined.mean())
            words = f"mean combined score {statistic:.3f}, {expected:.3f} on calibration images"
        case "combined.uniformity":
            statistic, expected = float(uniformity_distance(scores.combined_p, n)[0]), None
            words = f"p-values are up to {statistic:.3f} away from uniform"
        case "combined.excess":
            small = int((scores.combined_p <= TAIL).sum())
            share = attainable_count(TAIL, n, TestKind.HIGH_IS_UNUSUAL) / (n + 1)
            statistic, expected = float(small), share * count
            words = f"{small} of {count} p-values are at most {TAIL:g}, {expected:.1f} expected"
        case _:
            statistic = float(scores.likelihood.mean())
            centre = reference.likelihood_centre
            expected = float("nan") if centre is None else centre
            words = f"mean log q(x) {statistic:.1f} nats, {expected:.1f} on calibration images"
    return GroupTest(
        name=name,
        statistic=statistic,
        expected=expected,
        p_value=p,
        p_adjusted=adjusted,
        flagged=adjusted <= alpha,
        words=words,
    )


def _reason(tests: Sequence[GroupTest], count: int, left_out: int, alpha: float) -> str:
    least = min(tests, key=lambda test: test.p_adjusted)
    missing = f" {left_out} more could not be assessed." if left_out else ""
    if least.flagged:
        return (
            f"These {count} images together are unlike the calibration images (adjusted p = "
            f"{least.p_adjusted:.2g} ≤ α = {alpha:g}): {least.words}.{missing}"
        )
    return (
        f"Nothing unusual was found in these {count} images together (adjusted p = "
        f"{least.p_adjusted:.2g} > α = {alpha:g}).{missing}"
    )
