"""Whose statements count: trusted sources, and others once they were found to agree.

Anybody who may send feedback can send wrong feedback, by mistake or on purpose. A source that the
operator has not listed as trusted contributes nothing until it has been checked against what is
known otherwise:

- on images that a trusted source labelled too, against that label;
- else on images that the base model itself answered with the verdict NOT_FLAGGED and a confidence
  of at least `Probation.confidence`, against that answer.

An image counts once however often it was sent. With k agreements in n checks the source is
released if n >= `Probation.checks` and the one-sided 95 % Clopper-Pearson lower bound of its
agreement is at least `Probation.agreement`. It stays in quarantine if in any single class the
*upper* bound lies below that: whoever is right but for one class is not right.

This finds random, flipped and careless labels. It does not find somebody who agrees wherever a
check is possible and lies elsewhere; the cap on shares bounds what such a source can do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy.stats import beta

from ibinn.errors import ConfigError
from ibinn.records import TruthKind
from ibinn.types import Verdict
from training.retraining.candidates import Candidate, is_class, sources_of

LEVEL = 0.95
"""Confidence of the one-sided bounds."""


class Standing(StrEnum):
    """Whether a source's statements count."""

    TRUSTED = "trusted"
    RELEASED = "released"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probation:
    """What a source that is not trusted has to show.

    Attributes:
        checks: Least number of images on which it could be checked.
        agreement: Least lower bound of its agreement, in (0, 1).
        confidence: From where on the base model's own answers serve as a check, in (0, 1].

    Raises:
        ConfigError: A value out of range.
    """

    checks: int = 20
    agreement: float = 0.8
    confidence: float = 0.99

    def __post_init__(self) -> None:
        if self.checks < 1:
            raise ConfigError(f"min-checks is {self.checks}; expected at least 1")
        for name, value in (("agreement", self.agreement), ("check-confidence", self.confidence)):
            if not 0.0 < value <= 1.0:
                raise ConfigError(f"{name} is {value}; expected a number in (0, 1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReport:
    """What was found about a source.

    Attributes:
        name: The source.
        standing: Whether its statements count.
        images: Images that it made a statement about.
        checks: Of those, how many could be checked.
        agreed: Of those, how many agreed.
        lower: Lower bound of its agreement; None without checks.
        reason: The standing in words.
    """

    name: str
    standing: Standing
    images: int
    checks: int
    agreed: int
    lower: float | None
    reason: str


def judge(
    candidates: Sequence[Candidate],
    *,
    trusted: Collection[str],
    base_weights: str,
    probation: Probation,
) -> tuple[SourceReport, ...]:
    """Every source's standing, sorted by name.

    Args:
        candidates: All labelled images, those without a file too.
        trusted: Sources that the operator vouches for.
        base_weights: Digest of the base model's weights; answers of others check nothing.
        probation: What the others have to show.
    """
    vouched = _vouched(candidates, trusted)
    found = []
    for name in sources_of(candidates):
        checks: dict[str, tuple[str, bool]] = {}
        images = set()
        for candidate in candidates:
            own = candidate.last_by_source().get(name)
            if own is None:
                continue
            images.add(candidate.id)
            expected = vouched.get(candidate.id)
            if expected is None and is_class(own.truth):
                expected = _confident(candidate, base_weights, probation)
            if expected is not None and own.truth.kind is not TruthKind.UNREADABLE:
                agrees = own.truth.text == expected
                # One wrong word about an image is not made good by a right one.
                before = checks.get(candidate.id, (expected, True))[1]
                checks[candidate.id] = (expected, agrees and before)
        found.append(
            _report(
                name,
                images=len(images),
                checks=list(checks.values()),
                trusted=name in trusted,
                probation=probation,
            )
        )
    return tuple(found)


def _vouched(candidates: Sequence[Candidate], trusted: Collection[str]) -> dict[str, str]:
    """What trusted sources say of each image, where they say the same."""
    said: dict[str, set[str]] = {}
    for candidate in candidates:
        for name, statement in candidate.last_by_source().items():
            if name in trusted and statement.truth.kind is not TruthKind.UNREADABLE:
                said.setdefault(candidate.id, set()).add(statement.truth.text)
    return {key: next(iter(texts)) for key, texts in said.items() if len(texts) == 1}


def _confident(candidate: Candidate, weights: str, probation: Probation) -> str | None:
    sure = (
        candidate.weights == weights
        and candidate.verdict is Verdict.NOT_FLAGGED
        and candidate.confidence >= probation.confidence
    )
    return candidate.answer if sure else None


def _report(
    name: str,
    *,
    images: int,
    checks: Sequence[tuple[str, bool]],
    trusted: bool,
    probation: Probation,
) -> SourceReport:
    count, agreed = len(checks), sum(right for _, right in checks)
    lower = lower_bound(agreed, count) if count else None
    standing = Standing.QUARANTINED
    if trusted:
        standing, reason = Standing.TRUSTED, "listed as trusted"
    elif count < probation.checks or lower is None:
        reason = (
            f"{count} of its images could be checked, {probation.checks} are needed; list it as "
            "trusted or wait for more"
        )
    elif lower < probation.agreement:
        reason = (
            f"agrees on {agreed} of {count} checked images, lower bound {lower:.1%}; expected "
            f"{probation.agreement:.0%}"
        )
    elif worst := _worst_class(checks, probation.agreement):
        reason = f"{worst}; no class may be shown to be below {probation.agreement:.0%}"
    else:
        standing = Standing.RELEASED
        reason = f"agrees on {agreed} of {count} checked images, lower bound {lower:.1%}"
    return SourceReport(
        name=name,
        standing=standing,
        images=images,
        checks=count,
        agreed=agreed,
        lower=lower,
        reason=reason,
    )


def _worst_class(checks: Sequence[tuple[str, bool]], least: float) -> str | None:
    counts = Counter(expected for expected, _ in checks)
    right = Counter(expected for expected, agrees in checks if agrees)
    for expected in sorted(counts):
        upper = upper_bound(right[expected], counts[expected])
        if upper < least:
            return (
                f"agrees on {right[expected]} of {counts[expected]} checked images of "
                f"{expected!r}, upper bound {upper:.1%}"
            )
    return None


def lower_bound(right: int, count: int) -> float:
    """One-sided 95 % Clopper-Pearson lower bound of a share.

    >>> round(lower_bound(20, 20), 3)
    0.861
    """
    return 0.0 if right == 0 else float(beta.ppf(1.0 - LEVEL, right, count - right + 1))


def upper_bound(right: int, count: int) -> float:
    """One-sided 95 % Clopper-Pearson upper bound of a share.

    >>> round(upper_bound(0, 5), 3)
    0.451
    """
    return 1.0 if right == count else float(beta.ppf(LEVEL, right + 1, count - right))
