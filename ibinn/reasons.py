"""A verdict's reason in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ibinn.ood.registry import Statistic
from ibinn.types import ConformalSet, Group, TestResult, Verdict

FloatArray = npt.NDArray[np.float64]


class ScoresLike(Protocol):
    """The numbers of a batch that a reason speaks of; `ibinn.assessment.Scores` has them."""

    @property
    def statistics(self) -> Mapping[str, FloatArray]: ...
    @property
    def group_p(self) -> Mapping[str, FloatArray]: ...
    @property
    def group_excess(self) -> Mapping[str, FloatArray]: ...


_GROUP_WORDS = {
    Group.PIXEL: "its pixels (brightness, noise, compression or detail)",
    Group.STYLE: "its style (texture, contrast or layout)",
    Group.SEMANTIC: "its content (it resembles none of the classes)",
}


def reason(
    verdict: Verdict,
    scores: ScoresLike,
    i: int,
    driver: Group | None,
    statistics: Sequence[Statistic],
    tests: Sequence[TestResult],
    combined: TestResult | None,
    conformal: ConformalSet | None,
    *,
    calibrated: bool,
) -> str:
    """One sentence that says why image `i` of a batch got its verdict."""
    if verdict is Verdict.NOT_ASSESSED:
        if not calibrated:
            return "The model is not calibrated, so nothing can be said about how usual this is."
        broken = [name for name, values in scores.statistics.items() if not np.isfinite(values[i])]
        return f"Not finite for this image: {', '.join(broken) or 'the likelihood'}."
    assert combined is not None
    assert combined.p_value is not None
    if verdict is Verdict.UNKNOWN:
        assert driver is not None
        phrase = _phrase(driver, statistics, tests)
        return (
            f"Unlike the calibration images (p = {combined.p_value:.2g} ≤ α = "
            f"{combined.alpha:g}), above all in {_GROUP_WORDS[driver]}: {phrase}."
        )
    if verdict is Verdict.AMBIGUOUS:
        assert conformal is not None
        names = conformal.classes
        listed = (
            f"{', '.join(names[:-1])} or {names[-1]}"
            if len(names) <= 4
            else (f"any of {len(names)} classes, {names[0]} first")
        )
        return (
            f"Nothing unusual was found, but it could be {listed} "
            f"(set of {conformal.target_coverage:.0%} coverage)."
        )
    return f"Nothing unusual was found (p = {combined.p_value:.2g} > α = {combined.alpha:g})."


def driving_group(scores: ScoresLike, i: int) -> Group:
    """The group of statistics with the smallest p-value; of equals the one farthest out."""
    name = min(
        scores.group_p,
        key=lambda group: (scores.group_p[group][i], -scores.group_excess[group][i]),
    )
    return Group(name)


def _phrase(group: Group, statistics: Sequence[Statistic], tests: Sequence[TestResult]) -> str:
    """The most unusual statistic of a group in words."""
    phrases = {s.name: s.phrase for s in statistics}
    candidates = [t for t in tests if t.group is group and t.p_value is not None]
    worst = min(candidates, key=lambda t: t.p_value if t.p_value is not None else 1.0)
    return phrases[worst.name.rsplit(".", 1)[0]]
