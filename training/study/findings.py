"""What a study shows, in words that follow from its numbers by rules fixed beforehand.

An effect is a difference between two models, paired by seed; its interval is Student's t at
95 %. It *appears* where the whole interval lies beyond the margin in the published direction, it
*does not appear* where the whole interval lies below the margin, and otherwise the study is
*not decidable*. With one seed nothing is decidable.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.stats import spearmanr

from training.study.summary import (
    Figure,
    Results,
    Spread,
    average_auroc,
    bits_per_dim,
    calibration,
    error,
)

COLLAPSE_MARGIN = 10.0
"""Percentage points of error by which class-NLL must exceed γ = 1 to be called a collapse; the
published gap is 51."""


class Answer(StrEnum):
    """Whether a published effect is in our runs."""

    APPEARS = "appears"
    ABSENT = "does not appear"
    UNDECIDABLE = "not decidable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One published effect and what our runs say of it.

    Attributes:
        data: Name of the data set.
        claim: The published effect, in words, with its published size.
        answer: Whether it is there.
        words: The numbers behind the answer, in a sentence.
        difference: The paired difference over seeds; None where a model has no finished run.
        margin: What the difference must exceed.
    """

    data: str
    claim: str
    answer: Answer
    words: str
    difference: Spread | None
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Rank correlation of a figure with γ over the series.

    Attributes:
        data: Name of the data set.
        figure: Name of the figure.
        rho: Spearman's ρ, the mean over seeds; None where it is undefined.
        p: Exact one-sided permutation p, γ exchanged within each seed, in the published
            direction; None like `rho`.
        rising: Whether the published figure rises with γ.
        seeds: Seeds with the whole series.
    """

    data: str
    figure: str
    rho: float | None
    p: float | None
    rising: bool
    seeds: int


def findings_of(results: Sequence[Results]) -> tuple[Finding, ...]:
    """Every finding of every data set."""
    found = []
    for part in results:
        names = {entry.name for entry in part.entries}
        for effect in _EFFECTS:
            if effect.high in names and effect.low in names:
                found.append(_finding(part, effect))
    return tuple(found)


def trends_of(results: Sequence[Results]) -> tuple[Trend, ...]:
    """Rank correlations with γ of every data set; γ = 0 sees no label and takes no part in those
    of the posterior."""
    return tuple(
        trend
        for part in results
        for trend in (
            _trend(part, "error", error, rising=False, from_zero=False),
            _trend(part, "bits/dim", bits_per_dim, rising=True, from_zero=True),
            _trend(part, "calibration error", calibration, rising=True, from_zero=False),
            _trend(
                part,
                "OoD AUROC (typicality)",
                average_auroc(part.block, combined=False),
                rising=False,
                from_zero=True,
            ),
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Effect:
    """`figure` of `high` minus that of `low` exceeds `margin`, as published."""

    claim: str
    high: str
    low: str
    unit: str
    margin: float
    figure: str


_EFFECTS = (
    _Effect(
        claim="Trade-off, classification: γ = 0.1 errs more than γ → ∞ (published, CIFAR-10: "
        "10.27 % at γ = 1 against 8.72 %)",
        high="gamma-0.1",
        low="gamma-inf",
        unit="percentage points of error",
        margin=0.0,
        figure="error",
    ),
    _Effect(
        claim="Trade-off, density: γ → ∞ costs bits/dim against γ = 0 (published: 17.27 against "
        "4.80)",
        high="gamma-inf",
        low="gamma-0",
        unit="bits/dim",
        margin=0.0,
        figure="bits",
    ),
    _Effect(
        claim="Trade-off, calibration: γ → ∞ is worse calibrated than γ = 1 (published geometric "
        "means: 3.98 % against 1.26 %)",
        high="gamma-inf",
        low="gamma-1",
        unit="percentage points of the geometric mean",
        margin=0.0,
        figure="calibration",
    ),
    _Effect(
        claim="Trade-off, detection: γ = 1 detects better than γ → ∞ by typicality of log q(x) "
        "(published averages: 68.7 against 61.8)",
        high="gamma-1",
        low="gamma-inf",
        unit="points of AUROC",
        margin=0.0,
        figure="auroc",
    ),
    _Effect(
        claim="Collapse: class-NLL errs far more than γ = 1 (published: 61.75 % against 10.27 %)",
        high="class-nll",
        low="gamma-1",
        unit="percentage points of error",
        margin=COLLAPSE_MARGIN,
        figure="error",
    ),
    _Effect(
        claim="Collapse with means fixed on a sphere: class-NLL errs far more than γ = 1 "
        "(published: 40.04 % against 10.27 %)",
        high="class-nll-fixed",
        low="gamma-1",
        unit="percentage points of error",
        margin=COLLAPSE_MARGIN,
        figure="error",
    ),
)


def _figure(results: Results, name: str) -> Figure:
    match name:
        case "error":
            return error
        case "bits":
            return bits_per_dim
        case "calibration":
            return calibration
        case _:
            return average_auroc(results.block, combined=False)


def _finding(results: Results, effect: _Effect) -> Finding:
    figure = _figure(results, effect.figure)
    high, low = results.figures(effect.high), results.figures(effect.low)
    pairs = [(figure(high[seed]), figure(low[seed])) for seed in sorted(high.keys() & low.keys())]
    differences = [one - two for one, two in pairs if one is not None and two is not None]
    difference = Spread.of(differences) if differences else None
    answer, words = decide(difference, margin=effect.margin, unit=effect.unit)
    return Finding(
        data=results.block.name,
        claim=effect.claim,
        answer=answer,
        words=words,
        difference=difference,
        margin=effect.margin,
    )


def decide(difference: Spread | None, *, margin: float, unit: str) -> tuple[Answer, str]:
    """Whether an effect is there, and why, in words.

    Args:
        difference: Over seeds, positive in the published direction.
        margin: What it must exceed.
        unit: Of the difference.
    """
    if difference is None:
        return Answer.UNDECIDABLE, "No seed has both models."
    got = f"{difference.mean:+.2f} {unit} over {difference.count} seed"
    if difference.low is None or difference.high is None:
        return Answer.UNDECIDABLE, f"{got}: one seed has no interval."
    interval = f"{got}s, 95 % interval {difference.low:+.2f} to {difference.high:+.2f}"
    bar = f"the margin of {margin:g}" if margin else "zero"
    if difference.low > margin:
        return Answer.APPEARS, f"{interval}, all of it above {bar}."
    if difference.high < margin:
        sentence = f"{interval}, all of it below {bar}."
        if difference.low > 0.0:
            sentence += " The direction is the published one, its size is not."
        return Answer.ABSENT, sentence
    return Answer.UNDECIDABLE, f"{interval}, which holds {bar}."


def _trend(results: Results, name: str, figure: Figure, *, rising: bool, from_zero: bool) -> Trend:
    series = sorted(
        (entry.gamma, entry.name)
        for entry in results.entries
        if entry.gamma is not None and (from_zero or entry.gamma > 0.0)
    )
    by_model = [results.figures(entry) for _, entry in series]
    seeds = sorted(set.intersection(*(set(found) for found in by_model))) if by_model else []
    rows = []
    for seed in seeds:
        values = [value for found in by_model if (value := figure(found[seed])) is not None]
        if len(values) == len(series):
            rows.append(values)
    rho, p = rank_correlation(rows, rising=rising)
    return Trend(data=results.block.name, figure=name, rho=rho, p=p, rising=rising, seeds=len(rows))


def rank_correlation(
    rows: Sequence[Sequence[float]], *, rising: bool
) -> tuple[float | None, float | None]:
    """Mean Spearman ρ of rows with 0 … n - 1, and its exact one-sided permutation p.

    Under the null every order of a row is equally likely, rows independently. The law of the sum
    is the convolution of the rows' laws, so that no order is drawn.

    Args:
        rows: One per seed, ordered by γ; all of one length of at least 3.
        rising: The direction that is tested.

    Returns:
        (ρ, p), or (None, None) where a row is constant or there is none.
    """
    if not rows or len(rows[0]) < 3 or any(len(set(values)) == 1 for values in rows):
        return None, None
    law = {0.0: 1.0}
    observed = 0.0
    for values in rows:
        order = np.arange(len(values))
        sign = 1.0 if rising else -1.0
        observed += sign * float(spearmanr(order, values).statistic)
        orders = [np.array(o) for o in itertools.permutations(values)]
        centred = order - order.mean()
        ranks = np.array([np.argsort(np.argsort(o, kind="stable"), kind="stable") for o in orders])
        if len(set(values)) < len(values):  # tied values share their rank
            found = [float(spearmanr(order, o).statistic) for o in orders]
        else:
            found = (
                (ranks - ranks.mean(1, keepdims=True)) @ centred / (centred @ centred)
            ).tolist()
        share = 1.0 / len(found)
        row_law: dict[float, float] = {}
        for value in found:
            key = round(sign * value, 9)
            row_law[key] = row_law.get(key, 0.0) + share
        joint: dict[float, float] = {}
        for (one, p_one), (two, p_two) in itertools.product(law.items(), row_law.items()):
            key = round(one + two, 9)
            joint[key] = joint.get(key, 0.0) + p_one * p_two
        law = joint
    p = math.fsum(chance for value, chance in law.items() if value >= observed - 1e-6)
    rho = observed / len(rows) * (1.0 if rising else -1.0)
    return rho, min(1.0, p)
