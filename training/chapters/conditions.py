"""Scores of test images under one condition, clean or damaged, and what they say.

Shapes: N images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ibinn.assessment import COMBINED
from ibinn.metrics import auroc, nll
from ibinn.reliability import top_label_ece
from ibinn.types import Verdict
from training.corruptions import CORRUPTIONS
from training.evaluation import Rate
from training.scoring import FloatArray, Scored

Mask = npt.NDArray[np.bool_]

NORMAL_95 = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A mean over images with its normal 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One corruption at one severity, or the same images undamaged.

    Attributes:
        corruption: Name, or ``none``.
        family: Kind of damage, empty for ``none``.
        severity: 1 to 5, or 0 for ``none``.
        accuracy: Top-1.
        top_label_ece: With 15 equal-width bins; its floor is that of so few images.
        nll_nats: Mean of -log p(label), calibrated posterior.
        mean_p: Mean p-value of the combined test; 0.5 where nothing is unusual.
        unknown: Share with the verdict UNKNOWN.
        ambiguous: Share with the verdict AMBIGUOUS.
        not_assessed: Share with the verdict NOT_ASSESSED.
        accepted_error: Error rate of the images with the verdict NOT_FLAGGED.
        unknown_of_wrong: Share UNKNOWN of the wrong answers.
        unknown_of_right: Share UNKNOWN of the right answers.
        wrong_auroc: How well the combined score tells wrong answers from right ones; None where
            all are right or all wrong.
        flags_over_errors: Share UNKNOWN - α - error rate, paired over images; above 0 the test
            cries more often than the classifier errs.
        flags_over_added_errors: (share UNKNOWN - that of the undamaged images) - (error rate -
            theirs), paired over images: the same against what the damage adds. None for ``none``.
        comparator_accuracy: Of the ResNet of equal training cost, or None.
    """

    corruption: str
    family: str
    severity: int
    accuracy: Rate
    top_label_ece: float
    nll_nats: float
    mean_p: float
    unknown: Rate
    ambiguous: Rate
    not_assessed: Rate
    accepted_error: Rate
    unknown_of_wrong: Rate
    unknown_of_right: Rate
    wrong_auroc: float | None
    flags_over_errors: Difference
    flags_over_added_errors: Difference | None
    comparator_accuracy: Rate | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """One condition image by image.

    Attributes:
        condition: What is stated of it.
        right: Whether the answer is right (N,).
        unknown: Whether the verdict is UNKNOWN (N,).
        accepted: Whether the verdict is NOT_FLAGGED (N,).
        unusual: Combined score (N,); NaN where not assessed.
    """

    condition: Condition
    right: Mask
    unknown: Mask
    accepted: Mask
    unusual: FloatArray


def judge(
    scored: Scored,
    labels: npt.NDArray[np.int64],
    *,
    corruption: str,
    severity: int,
    alpha: float,
    clean: Judged | None,
    comparator: Rate | None,
) -> Judged:
    """What the scores of N images say.

    Args:
        scored: Of the images.
        labels: True classes (N,).
        corruption: Name of the damage.
        severity: Its severity, 0 for none.
        alpha: Of the verdict.
        clean: The same images undamaged, None where these are they.
        comparator: Accuracy of the comparator on the same pixels.
    """
    assessed = np.isfinite(scored.probabilities).all(axis=1)
    answers = np.where(assessed, np.nan_to_num(scored.probabilities).argmax(axis=1), -1)
    right = answers == labels
    unknown = scored.verdicts == Verdict.UNKNOWN.value
    accepted = scored.verdicts == Verdict.NOT_FLAGGED.value
    unusual = scored.unusual[COMBINED]
    over = unknown.astype(np.float64) - ~right
    family = CORRUPTIONS[corruption].family.value if corruption in CORRUPTIONS else ""
    condition = Condition(
        corruption=corruption,
        family=family,
        severity=severity,
        accuracy=share(right),
        top_label_ece=top_label_ece(scored.probabilities[assessed], labels[assessed]),
        nll_nats=nll(scored.probabilities[assessed], labels[assessed]),
        mean_p=float(np.nanmean(scored.p[COMBINED])),
        unknown=share(unknown),
        ambiguous=share(scored.verdicts == Verdict.AMBIGUOUS.value),
        not_assessed=share(scored.verdicts == Verdict.NOT_ASSESSED.value),
        accepted_error=share(~right[accepted]),
        unknown_of_wrong=share(unknown[~right]),
        unknown_of_right=share(unknown[right]),
        wrong_auroc=wrong_auroc(unusual, right),
        flags_over_errors=difference(over - alpha),
        flags_over_added_errors=None
        if clean is None
        else difference(over - (clean.unknown.astype(np.float64) - ~clean.right)),
        comparator_accuracy=comparator,
    )
    return Judged(
        condition=condition, right=right, unknown=unknown, accepted=accepted, unusual=unusual
    )


def share(mask: Mask) -> Rate:
    """The share of True with its interval."""
    return Rate.of(int(mask.sum()), len(mask))


def difference(values: FloatArray) -> Difference:
    """Mean of (N,) values with its normal 95 % interval."""
    mean = float(values.mean())
    half = (
        NORMAL_95 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 1.0
    )
    return Difference(value=mean, low=mean - half, high=mean + half)


def wrong_auroc(unusual: FloatArray, right: Mask) -> float | None:
    """P(a wrong answer's score is above a right one's); None where one kind is missing."""
    assessed = ~np.isnan(unusual)
    of_right, of_wrong = unusual[assessed & right], unusual[assessed & ~right]
    return auroc(of_right, of_wrong) if len(of_right) and len(of_wrong) else None


def joined(parts: Sequence[Judged]) -> tuple[FloatArray, Mask, Mask]:
    """Combined score, whether right and whether accepted, of several conditions' images."""
    return (
        np.concatenate([part.unusual for part in parts]),
        np.concatenate([part.right for part in parts]),
        np.concatenate([part.accepted for part in parts]),
    )
