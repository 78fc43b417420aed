"""Which candidates pass: each figure alone refuses, and an equal candidate is let through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ibinn.errors import ConfigError, DataError
from tests.training.promotion.made_answers import (
    CLASSES,
    PER_CLASS,
    PER_SET,
    all_of,
    made_answers,
    made_counts,
    redrawn,
)
from training.promotion.judging import Answers, Figure, FigureKind, Outcome, judge, too_few
from training.promotion.terms import Terms

TERMS = Terms(accuracy=0.02, calibration=0.02, false_positives=0.02, misses=0.05, recall=0.06)


def failed(candidate: Answers, reference: Answers) -> list[Figure]:
    figures = judge(made_counts(), all_of(candidate, reference), TERMS)
    return [figure for figure in figures if figure.outcome is not Outcome.PASSED]


def kinds(figures: list[Figure]) -> set[FigureKind]:
    return {figure.kind for figure in figures}


def spoilt(good: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """`good` made false on a share of all images."""
    bad = rng.permutation(np.flatnonzero(good))[: round(share * len(good))]
    result = good.copy()
    result[bad] = False
    return result


def test_the_same_answers_pass_every_figure(rng: np.random.Generator) -> None:
    reference = made_answers(rng)
    figures = judge(made_counts(), all_of(reference, reference), TERMS)
    assert {figure.outcome for figure in figures} == {Outcome.PASSED}
    assert kinds(list(figures)) == set(FigureKind) - {FigureKind.NEW_CLASS_RECALL}
    assert {figure.against for figure in figures} == {"current", "first"}


def test_an_equal_candidate_with_its_own_errors_passes_nearly_always(
    rng: np.random.Generator,
) -> None:
    passed = 0
    for _ in range(12):
        reference = made_answers(rng)
        passed += not failed(redrawn(reference, rng), reference)
    assert passed >= 10


def test_a_candidate_inferior_in_accuracy_is_refused_for_it(rng: np.random.Generator) -> None:
    reference = made_answers(rng)
    # As sure as it is right, so that only the accuracy is worse, of each class by less than 6 %.
    right = spoilt(reference.right, rng, 0.035)
    lost = reference.right.mean() - right.mean()
    confidence = np.clip(reference.confidence - lost, 0.0, 1.0)
    found = failed(replace(reference, right=right, confidence=confidence), reference)
    assert kinds(found) == {FigureKind.ACCURACY}
    assert all(figure.outcome is Outcome.INFERIOR for figure in found)
    assert "accuracy against current: inferior beyond its margin (+0.03" in found[0].sentence()


def test_a_candidate_inferior_in_calibration_is_refused_for_it(rng: np.random.Generator) -> None:
    reference = made_answers(rng)
    surer = replace(reference, confidence=1.0 - (1.0 - reference.confidence) / 3)
    found = failed(surer, reference)
    assert kinds(found) == {FigureKind.CALIBRATION}
    assert found[0].outcome is Outcome.INFERIOR


def test_a_candidate_inferior_in_false_positives_is_refused_for_it(
    rng: np.random.Generator,
) -> None:
    reference = made_answers(rng)
    found = failed(replace(reference, flagged=~spoilt(~reference.flagged, rng, 0.04)), reference)
    assert kinds(found) == {FigureKind.FALSE_POSITIVE_RATE}


def test_a_candidate_that_misses_more_of_one_set_is_refused_for_that_set(
    rng: np.random.Generator,
) -> None:
    reference = made_answers(rng)
    missed = {**reference.missed, "screws": ~spoilt(~reference.missed["screws"], rng, 0.08)}
    found = failed(replace(reference, missed=missed), reference)
    assert {(figure.kind, figure.subject) for figure in found} == {(FigureKind.MISS_RATE, "screws")}
    assert "miss_rate of screws against first" in {figure.name for figure in found}


def test_a_candidate_inferior_in_one_class_is_refused_for_that_class(
    rng: np.random.Generator,
) -> None:
    reference = made_answers(rng)
    right = reference.right.copy()
    # Nuts get worse and the others better: the accuracy over all classes stays.
    nuts = slice(PER_CLASS, 2 * PER_CLASS)
    right[nuts] = spoilt(right[nuts], rng, 0.09)
    wrong = np.flatnonzero(~right[:PER_CLASS])[: round(0.09 * PER_CLASS)]
    right[wrong] = True
    found = failed(replace(reference, right=right), reference)
    assert (FigureKind.CLASS_RECALL, "nut") in {(f.kind, f.subject) for f in found}
    assert FigureKind.ACCURACY not in kinds(found)
    assert {f.subject for f in found if f.kind is FigureKind.CLASS_RECALL} == {"nut"}


def test_small_steps_away_from_the_first_model_are_refused_against_it(
    rng: np.random.Generator,
) -> None:
    first = made_answers(rng)
    current = replace(first, flagged=~spoilt(~first.flagged, rng, 0.016))
    candidate = replace(current, flagged=~spoilt(~current.flagged, rng, 0.01))
    answers = {"candidate": candidate, "current": current, "first": first}
    found = [f for f in judge(made_counts(), answers, TERMS) if f.outcome is not Outcome.PASSED]
    assert [(f.kind, f.against) for f in found] == [(FigureKind.FALSE_POSITIVE_RATE, "first")]


def test_within_the_margin_and_not_shown_says_how_many_images_are_needed(
    rng: np.random.Generator,
) -> None:
    reference = made_answers(rng)
    candidate = redrawn(reference, rng, share=0.9)
    figures = judge(made_counts(), all_of(candidate, reference), replace_terms(accuracy=0.005))
    found = next(f for f in figures if f.kind is FigureKind.ACCURACY)
    assert found.outcome in (Outcome.NOT_SHOWN, Outcome.INFERIOR)
    assert found.needed > 5 * found.count


def replace_terms(**changes: float) -> Terms:
    return replace(TERMS, **changes)


def test_too_few_images_are_told_before_anything_is_measured() -> None:
    counts = replace(made_counts(), truths=np.repeat(np.array(CLASSES), 40))
    scarce = too_few(counts, TERMS)
    assert {figure.kind for figure in scarce} == {
        FigureKind.ACCURACY,
        FigureKind.CALIBRATION,
        FigureKind.FALSE_POSITIVE_RATE,
        FigureKind.CLASS_RECALL,
    }
    assert "too few images to show anything (40 images, 49 needed)" in scarce[3].sentence()
    without = replace(made_counts(), truths=np.repeat(np.array(CLASSES[:2]), PER_CLASS))
    assert {(f.subject, f.count) for f in too_few(without, TERMS)} == {("washer", 0)}


@pytest.mark.parametrize(("share", "outcome"), [(0.05, Outcome.PASSED), (0.3, Outcome.INFERIOR)])
def test_a_new_class_is_held_to_its_bar_and_to_nobody(
    rng: np.random.Generator, share: float, outcome: Outcome
) -> None:
    classes = (*CLASSES, "screw")
    reference = made_answers(rng, classes=classes)
    new = np.arange(len(reference.right)) >= 3 * PER_CLASS
    reference = replace(reference, classes=CLASSES, right=reference.right & ~new)
    wrong = rng.random(len(new)) < share
    candidate = replace(reference, classes=classes, right=np.where(new, ~wrong, reference.right))
    counts = made_counts(candidate=classes)
    figures = judge(counts, all_of(candidate, reference), TERMS)
    bars = [figure for figure in figures if figure.kind is FigureKind.NEW_CLASS_RECALL]
    assert [(bar.subject, bar.against, bar.outcome) for bar in bars] == [("screw", "bar", outcome)]
    assert {f.outcome for f in figures if f not in bars} == {Outcome.PASSED}
    assert next(f for f in figures if f.kind is FigureKind.ACCURACY).count == 3 * PER_CLASS


def test_a_class_that_the_candidate_lost_refuses_it_unless_it_was_given_up(
    rng: np.random.Generator,
) -> None:
    reference = made_answers(rng)
    lost = np.repeat(np.array(CLASSES) == "washer", PER_CLASS)
    candidate = replace(reference, classes=CLASSES[:2], right=reference.right & ~lost)
    known = {"candidate": CLASSES[:2], "current": CLASSES, "first": CLASSES}
    counts = replace(made_counts(), classes=known)
    figures = judge(counts, all_of(candidate, reference), TERMS)
    assert ("class_recall of washer against current") in {
        f.name for f in figures if f.outcome is Outcome.INFERIOR
    }
    retired = replace(counts, retired=frozenset({"washer"}))
    figures = judge(retired, all_of(candidate, reference), TERMS)
    assert {f.outcome for f in figures} == {Outcome.PASSED}


def test_sets_that_do_not_fit_the_models_are_refused() -> None:
    with pytest.raises(DataError, match="there is no out-of-distribution set"):
        replace(made_counts(), sets={}).check()
    with pytest.raises(DataError, match="set 'nut' is a class that the candidate knows"):
        replace(made_counts(), sets={"nut": PER_SET}).check()
    with pytest.raises(DataError, match="acceptance class 'hook' is known to none"):
        replace(made_counts(), truths=np.array(["hook"])).check()


def test_margins_outside_their_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"accuracy is 0\.0; expected a fraction"):
        Terms(accuracy=0.0)
    with pytest.raises(ConfigError, match="no bound is weaker than 95 %"):
        Terms(level=0.2)
