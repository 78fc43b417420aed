from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from jinja2 import Environment, StrictUndefined

from ibinn.assessment import COMBINED
from training import report
from training.chapters import attacks, corruptions
from training.chapters.conditions import Judged, difference, judge, wrong_auroc
from training.chapters.registry import Chapter, fragment
from training.corruptions import CORRUPTIONS, SEVERITIES
from training.evaluation import Rate, _plain
from training.scoring import Scored

COUNT, CLASSES, ALPHA = 40, 3, 0.05


def scored(rng: np.random.Generator, *, right: int, unknown: int) -> tuple[Scored, np.ndarray]:
    """Scores of `COUNT` images: the first `right` answered rightly, the last `unknown` flagged."""
    labels = rng.integers(0, CLASSES, COUNT)
    answers = np.where(np.arange(COUNT) < right, labels, (labels + 1) % CLASSES)
    verdicts = np.where(np.arange(COUNT) >= COUNT - unknown, "UNKNOWN", "NOT_FLAGGED")
    return (
        Scored(
            logits=np.eye(CLASSES)[answers],
            probabilities=0.7 * np.eye(CLASSES)[answers] + 0.1,
            bits_per_dim=np.ones(COUNT),
            p={COMBINED: np.linspace(1.0, 0.01, COUNT)},
            unusual={COMBINED: np.arange(COUNT, dtype=float)},
            statistics={},
            views={},
            verdicts=verdicts,
        ),
        labels,
    )


def judged(
    rng: np.random.Generator,
    name: str,
    severity: int,
    *,
    right: int,
    unknown: int,
    clean: Judged | None = None,
    comparator: Rate | None = None,
) -> Judged:
    scores, labels = scored(rng, right=right, unknown=unknown)
    return judge(
        scores, labels, corruption=name, severity=severity, alpha=ALPHA, clean=clean,
        comparator=comparator,
    )  # fmt: skip


@pytest.fixture
def chapter(rng: np.random.Generator) -> corruptions.Corruptions:
    """Fog is flagged too often, everything else as often as it is answered wrongly."""
    clean = judged(rng, "none", 0, right=36, unknown=2)
    found = [
        judged(
            rng, name, severity, right=36 - 2 * severity,
            unknown=38 if name == "fog" else 4 + 2 * severity, clean=clean,
            comparator=Rate.of(30, COUNT),
        )
        for name in CORRUPTIONS
        for severity in SEVERITIES
    ]  # fmt: skip
    return corruptions.summarise(alpha=ALPHA, count=COUNT, clean=clean, found=found)


def html(name: str, result: object) -> str:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        pct=report.percent, rate=report.rate_text, num=report.number, sci=report.scientific
    )
    return str(fragment(Chapter(name=name, result=result), environment))


def test_mild_damage_that_is_flagged_more_often_than_wrong_is_named(
    chapter: corruptions.Corruptions,
) -> None:
    assert chapter.offenders == ("fog 1", "fog 2")
    assert chapter.undecided == ()
    assert chapter.added_offenders == ("fog 1", "fog 2")


def test_a_condition_counts_what_it_says(rng: np.random.Generator) -> None:
    clean = judged(rng, "none", 0, right=40, unknown=0)
    found = judged(rng, "snow", 1, right=30, unknown=10, clean=clean).condition
    assert found.accuracy.hits == 30
    assert found.unknown.hits == found.unknown_of_wrong.hits == 10
    assert found.accepted_error.value == 0.0
    assert found.wrong_auroc == 1.0
    assert found.flags_over_errors.value == pytest.approx(-ALPHA)
    assert found.flags_over_added_errors is not None
    assert found.flags_over_added_errors.value == 0.0


def test_summaries_average_over_severities(chapter: corruptions.Corruptions) -> None:
    snow = next(s for s in chapter.summaries if s.corruption == "snow")
    assert snow.accuracy == pytest.approx(np.mean([34, 32, 30, 28, 26]) / COUNT)
    assert snow.relative_error == pytest.approx((6 + 8 + 10 + 12 + 14) / 50)
    assert chapter.mean_relative_error == pytest.approx(1.0)


def test_differences_have_the_interval_of_a_mean() -> None:
    found = difference(np.array([0.0, 1.0] * 50))
    assert found.value == 0.5
    assert found.high - found.value == pytest.approx(1.96 * np.sqrt(0.25 * 100 / 99) / 10)


def test_wrong_answers_cannot_be_ranked_where_there_are_none() -> None:
    assert wrong_auroc(np.arange(3.0), np.ones(3, dtype=bool)) is None


def test_scores_that_are_not_finite_count_as_wrong_and_not_assessed(
    rng: np.random.Generator,
) -> None:
    scores, labels = scored(rng, right=COUNT, unknown=0)
    scores.probabilities[0] = np.nan
    scores.p[COMBINED][0] = scores.unusual[COMBINED][0] = np.nan
    verdicts = np.where(np.arange(COUNT) == 0, "NOT_ASSESSED", scores.verdicts)
    scores = dataclasses.replace(scores, verdicts=verdicts)
    found = judge(
        scores, labels, corruption="snow", severity=1, alpha=ALPHA, clean=None, comparator=None
    ).condition
    assert found.accuracy.hits == COUNT - 1
    assert found.not_assessed.hits == 1
    assert np.isfinite([found.nll_nats, found.mean_p, found.top_label_ece]).all()


@pytest.mark.parametrize("compared", [True, False])
def test_the_corruption_chapter_is_a_page_and_json(
    compared: bool, chapter: corruptions.Corruptions
) -> None:
    if not compared:
        chapter = dataclasses.replace(
            chapter, comparator_mean_error=None, mean_relative_error=None, offenders=()
        )
    page = html("corruptions", chapter)
    assert page.count("<svg") == 2
    assert ("fog 1, fog 2" in page) or not compared
    assert ("ResNet" in page) is compared
    json.dumps(_plain(chapter), allow_nan=False)


def attacked(*, jpeg: bool, swaps: bool) -> attacks.Attacks:
    half = Rate.of(5, 10)
    names = (attacks.BLIND, attacks.AWARE, attacks.ADAPTIVE) if jpeg else (attacks.ADAPTIVE,)
    return attacks.Attacks(
        drawn=12,
        attacked=10,
        classes=3,
        alpha=ALPHA,
        jpeg=jpeg,
        search=attacks.Search(),
        restarts=2,
        weights=(0.1, 1.0),
        strengths=tuple(
            attacks.Strength(
                attack=name, title=attacks.TITLES[name], eps_levels=eps, wrong=half,
                wrong_before_jpeg=half if jpeg else None, flagged=Rate.of(0, 0), slipped=half,
                accepted=half, by_weight=((1.0, 3),),
            )
            for name in names
            for eps in attacks.EPS_LEVELS
        ),
        pairs=10 if swaps else 0,
        swaps=tuple(
            attacks.Swap(
                share=share, follows=half, follows_before_jpeg=half if jpeg else None, stays=half,
                unknown=half, slipped=half, accepted=half, distance_levels=9.0, clipped=0.1,
            )
            for share in attacks.SHARES
        )
        if swaps
        else (),
    )  # fmt: skip


@pytest.mark.parametrize(("jpeg", "swaps"), [(True, True), (False, True), (True, False)])
def test_the_attack_chapter_is_a_page_that_claims_nothing_and_json(jpeg: bool, swaps: bool) -> None:
    result = attacked(jpeg=jpeg, swaps=swaps)
    page = html("attacks", result)
    assert "No robustness is claimed" in page
    assert ("JPEG step" in page) is jpeg
    assert page.count("<svg") == 1
    json.dumps(_plain(result), allow_nan=False)


def test_the_manifest_gets_the_worst_cases(chapter: corruptions.Corruptions) -> None:
    found = attacks.headline(attacked(jpeg=True, swaps=True))
    assert found == {f"attack_slipped@{eps}": 0.5 for eps in attacks.EPS_LEVELS}
    assert corruptions.headline(chapter)["mild_corruptions_flagged_too_often"] == 2.0


def test_partners_of_swaps_are_of_another_class() -> None:
    labels = np.array([0, 0, 1, 2, 2])
    assert (labels[attacks._partners(labels)] != labels).all()
    assert len(attacks._partners(np.zeros(4, dtype=np.int64))) == 0
