"""Is a candidate at least as trustworthy as the models before it? From scores alone.

Every figure is held against the current and against the first approved model, each on the images
of the classes that this model knows; against the first as well, because margins add up over many
promotions. A class that the candidate lost counts as answered wrongly. A class that the current
model does not know has nobody to be held against: it is held to a bar. Promotion needs every
figure (an intersection–union test), so that a candidate that is worse by more than its margin in
any of them passes with at most the level of one bound, and no adjustment for their number is
needed; what their number costs is power, and `Figure.needed` has that in it.

Shapes: N acceptance images, M images of an out-of-distribution set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from ibinn.errors import DataError
from ibinn.metrics import clopper_pearson
from training.promotion import calibration_error, paired
from training.promotion.calibration_error import CalibrationDifference, ece_difference
from training.promotion.paired import Pairs
from training.promotion.terms import Terms

Flags = npt.NDArray[np.bool_]


class FigureKind(StrEnum):
    """The figures, in the order in which they are told."""

    ACCURACY = "accuracy"
    CALIBRATION = "calibration"
    FALSE_POSITIVE_RATE = "false_positive_rate"
    MISS_RATE = "miss_rate"
    CLASS_RECALL = "class_recall"
    NEW_CLASS_RECALL = "new_class_recall"


class Outcome(StrEnum):
    """What became of a figure."""

    PASSED = "passed"
    INFERIOR = "inferior"
    """Worse by more than the margin, as far as can be told."""
    NOT_SHOWN = "not_shown"
    """Within the margin, with a bound beyond it: more images may tell."""
    TOO_FEW = "too_few"
    """So few images that no answers could have passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One comparison.

    Attributes:
        kind: Which.
        subject: The class or the out-of-distribution set; empty where there is but one.
        against: ``current``, ``first``, or ``bar``.
        count: Number of images.
        candidate: The candidate's figure; None where nothing was measured.
        reference: That of the other model, or the bar.
        worsening: How much worse the candidate is; below 0 it is better.
        bound: Upper bound of the worsening.
        margin: The bound must lie below.
        needed: Images with which a candidate that is as good as the other model would pass, in all
            figures at once with 90 % probability. Of a bar: one that is half-way above it.
        outcome: What became of it.
    """

    kind: FigureKind
    subject: str
    against: str
    count: int
    candidate: float | None
    reference: float | None
    worsening: float | None
    bound: float | None
    margin: float
    needed: int
    outcome: Outcome

    @property
    def name(self) -> str:
        """Such as ``miss_rate of noise against current``."""
        of = f" of {self.subject}" if self.subject else ""
        where = "against its bar" if self.against == "bar" else f"against {self.against}"
        return f"{self.kind.value}{of} {where}"

    def sentence(self) -> str:
        """The outcome in words."""
        enough = f"{self.count:,} images, {self.needed:,} needed"
        if self.outcome is Outcome.TOO_FEW or self.worsening is None or self.bound is None:
            return f"{self.name}: too few images to show anything ({enough})"
        worse = f"{self.worsening:+.4f} worse, bound {self.bound:+.4f}, margin {self.margin:.4f}"
        match self.outcome:
            case Outcome.PASSED:
                return f"{self.name}: passed ({worse})"
            case Outcome.INFERIOR:
                return f"{self.name}: inferior beyond its margin ({worse})"
            case _:
                return f"{self.name}: not shown to be within its margin ({worse}; {enough})"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What one model makes of the acceptance images and the out-of-distribution sets.

    Attributes:
        classes: That it knows.
        right: Whether its most probable class is the image's (N,).
        confidence: Probability of that class (N,).
        flagged: Whether it is called unknown, or not assessed (N,).
        missed: Out-of-distribution set -> whether it is not flagged (M,).
    """

    classes: tuple[str, ...]
    right: Flags
    confidence: npt.NDArray[np.float64]
    flagged: Flags
    missed: Mapping[str, Flags]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counts:
    """What can be judged before any answer: which classes, and how many images of each.

    Attributes:
        truths: Class name per acceptance image (N,).
        sets: Out-of-distribution set -> number of images.
        classes: Role (``candidate``, ``current``, ``first``) -> the classes that it knows.
        retired: Classes that the operator gave up; nothing is compared on them.
    """

    truths: npt.NDArray[np.str_]
    sets: Mapping[str, int]
    classes: Mapping[str, tuple[str, ...]]
    retired: frozenset[str] = frozenset()

    def known(self, role: str) -> tuple[str, ...]:
        """Classes of a model that were not given up."""
        return tuple(name for name in self.classes[role] if name not in self.retired)

    @property
    def new(self) -> tuple[str, ...]:
        """Classes of the candidate that the current model does not know."""
        return tuple(n for n in self.known("candidate") if n not in self.classes["current"])

    def check(self) -> None:
        """Refuse sets that do not fit the models.

        Raises:
            DataError: No out-of-distribution set; one that is a class of the candidate; or an
                acceptance class that none of the models knows.
        """
        if not self.sets:
            raise DataError(
                "there is no out-of-distribution set, so that misses cannot be compared; expected "
                "one folder per kind of image in --ood, such as --ood/noise/0001.png"
            )
        if wrong := sorted(set(self.sets) & set(self.known("candidate"))):
            raise DataError(
                f"out-of-distribution set {wrong[0]!r} is a class that the candidate knows; move "
                "its images to the acceptance set, or rename the set"
            )
        everything = {name for known in self.classes.values() for name in known} | self.retired
        if unknown := sorted(set(self.truths.tolist()) - everything):
            raise DataError(
                f"acceptance class {unknown[0]!r} is known to none of the models; expected folders "
                f"named {', '.join(sorted(everything))}"
            )


def too_few(counts: Counts, terms: Terms) -> tuple[Figure, ...]:
    """The figures that no answers could pass, told before anything is measured."""
    return tuple(
        Figure(
            kind=question.kind,
            subject=question.subject,
            against=question.against,
            count=question.count,
            candidate=None,
            reference=None,
            worsening=None,
            bound=None,
            margin=question.margin,
            needed=question.fewest,
            outcome=Outcome.TOO_FEW,
        )
        for question in _questions(counts, terms)
        if question.count < question.fewest
    )


def judge(counts: Counts, answers: Mapping[str, Answers], terms: Terms) -> tuple[Figure, ...]:
    """Every figure with its bound and outcome.

    Args:
        counts: Of the sets, with at least one image for every figure.
        answers: Role (``candidate``, ``current``, ``first``) -> answers to the same images.
        terms: Margins.
    """
    questions = tuple(_questions(counts, terms))
    power = 1.0 - (1.0 - paired.POWER) / len(questions)
    return tuple(_answer(question, answers, terms, power=power) for question in questions)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Question:
    """A figure before its answer.

    Attributes:
        chosen: Whether each acceptance image takes part (N,); None: an out-of-distribution set.
        fewest: Images under which no answers pass.
    """

    kind: FigureKind
    subject: str
    against: str
    count: int
    margin: float
    fewest: int
    chosen: Flags | None


def _questions(counts: Counts, terms: Terms) -> Iterator[_Question]:
    truths, level = counts.truths, terms.level

    def ask(
        kind: FigureKind, against: str, margin: float, classes: Sequence[str], subject: str = ""
    ) -> _Question:
        chosen = np.isin(truths, list(classes))
        least = calibration_error.fewest if kind is FigureKind.CALIBRATION else paired.fewest
        return _Question(
            kind=kind,
            subject=subject,
            against=against,
            count=int(chosen.sum()),
            margin=margin,
            fewest=least(margin, level=level),
            chosen=chosen,
        )

    for role in ("current", "first"):
        known = counts.known(role)
        yield ask(FigureKind.ACCURACY, role, terms.accuracy, known)
        yield ask(FigureKind.CALIBRATION, role, terms.calibration, known)
        yield ask(FigureKind.FALSE_POSITIVE_RATE, role, terms.false_positives, known)
        for name, count in counts.sets.items():
            yield _Question(
                kind=FigureKind.MISS_RATE,
                subject=name,
                against=role,
                count=count,
                margin=terms.misses,
                fewest=paired.fewest(terms.misses, level=level),
                chosen=None,
            )
        for name in known:
            yield ask(FigureKind.CLASS_RECALL, role, terms.recall, [name], name)
    for name in counts.new:
        # Of the bar: the shortfall that a perfect class's bound leaves is bar - level^(1/n).
        asked = ask(FigureKind.NEW_CLASS_RECALL, "bar", 1.0 - terms.new_class_recall, [name], name)
        yield asked


def _answer(
    question: _Question, answers: Mapping[str, Answers], terms: Terms, *, power: float
) -> Figure:
    candidate = answers["candidate"]
    if question.kind is FigureKind.NEW_CLASS_RECALL:
        return _against_bar(question, candidate, terms, power=power)
    reference = answers[question.against]
    if question.kind is FigureKind.CALIBRATION:
        chosen = question.chosen
        found = ece_difference(
            (candidate.confidence[chosen], candidate.right[chosen]),
            (reference.confidence[chosen], reference.right[chosen]),
            level=terms.level,
        )
        return _calibration(question, found, terms, power=power)
    good, other = _good(question, candidate), _good(question, reference)
    pairs = Pairs.of(good, other)
    bound = paired.upper_bound(pairs, margin=question.margin, level=terms.level)
    counted_bad = question.kind in (FigureKind.FALSE_POSITIVE_RATE, FigureKind.MISS_RATE)
    return _figure(
        question,
        candidate=float(np.mean(~good if counted_bad else good)),
        reference=float(np.mean(~other if counted_bad else other)),
        worsening=pairs.worsening,
        bound=bound,
        needed=paired.needed(pairs, question.margin, level=terms.level, power=power),
    )


def _good(question: _Question, answers: Answers) -> Flags:
    """What speaks for a model, per image of the question."""
    match question.kind:
        case FigureKind.MISS_RATE:
            return ~answers.missed[question.subject]
        case FigureKind.FALSE_POSITIVE_RATE:
            return ~answers.flagged[question.chosen]
        case _:
            return answers.right[question.chosen]


def _against_bar(question: _Question, candidate: Answers, terms: Terms, *, power: float) -> Figure:
    """A new class: the lower Clopper–Pearson bound of its recall must reach the bar."""
    bar = terms.new_class_recall
    good = (candidate.right & ~candidate.flagged)[question.chosen]
    low, _ = clopper_pearson(int(good.sum()), len(good), level=1.0 - 2 * terms.level)
    recall = float(good.mean())
    half_way = Pairs(count=1_000, lost=round(500 * (1.0 - bar)), gained=0)
    return _figure(
        question,
        candidate=recall,
        reference=bar,
        worsening=bar - recall,
        bound=bar - low,
        margin=0.0,
        needed=paired.needed(half_way, (1.0 - bar) / 2, level=terms.level, power=power),
    )


def _calibration(
    question: _Question, found: CalibrationDifference, terms: Terms, *, power: float
) -> Figure:
    return _figure(
        question,
        candidate=found.candidate,
        reference=found.reference,
        worsening=found.candidate - found.reference,
        bound=found.bound,
        needed=calibration_error.needed(found, question.margin, level=terms.level, power=power),
    )


def _figure(question: _Question, *, margin: float | None = None, **values: Any) -> Figure:
    margin = question.margin if margin is None else margin
    outcome = Outcome.PASSED
    if values["bound"] >= margin and not (margin == 0.0 and values["bound"] <= 0.0):
        outcome = Outcome.INFERIOR if values["worsening"] >= margin else Outcome.NOT_SHOWN
    return Figure(
        kind=question.kind,
        subject=question.subject,
        against=question.against,
        count=question.count,
        margin=margin,
        outcome=outcome,
        **values,
    )
