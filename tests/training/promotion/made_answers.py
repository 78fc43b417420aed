"""Answers of models made by hand: what each is worth is set, and images are shared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from training.promotion.judging import Answers, Counts

CLASSES = ("bolt", "nut", "washer")
PER_CLASS = 1_500
PER_SET = 1_500
SETS = ("noise", "screws")


def made_counts(*, candidate: tuple[str, ...] = CLASSES, retired: tuple[str, ...] = ()) -> Counts:
    return Counts(
        truths=np.repeat(np.array(candidate), PER_CLASS),
        sets=dict.fromkeys(SETS, PER_SET),
        classes={"candidate": candidate, "current": CLASSES, "first": CLASSES},
        retired=frozenset(retired),
    )


def made_answers(rng: np.random.Generator, *, classes: tuple[str, ...] = CLASSES) -> Answers:
    """A calibrated model that is right in nine of ten, flags 1 % and misses 20 %."""
    count = len(classes) * PER_CLASS
    confidence = np.clip(rng.beta(9.0, 1.0, count), 0.4, 0.999)
    return Answers(
        classes=classes,
        right=rng.random(count) < confidence,
        confidence=confidence,
        flagged=rng.random(count) < 0.01,
        missed={name: rng.random(PER_SET) < 0.2 for name in SETS},
    )


def redrawn(answers: Answers, rng: np.random.Generator, *, share: float = 0.1) -> Answers:
    """Another model, exactly as good: on a share of the images its luck is its own."""
    other = made_answers(rng, classes=answers.classes)
    new = rng.random(len(answers.right)) < share
    right = rng.random(len(answers.right)) < answers.confidence
    return replace(
        answers,
        right=np.where(new, right, answers.right),
        flagged=np.where(new, other.flagged, answers.flagged),
        missed={
            name: np.where(rng.random(PER_SET) < share, other.missed[name], missed)
            for name, missed in answers.missed.items()
        },
    )


def all_of(candidate: Answers, reference: Answers) -> dict[str, Answers]:
    return {"candidate": candidate, "current": reference, "first": reference}
