"""What the chapters on uncertainty, groups and many images together find in made-up scores."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from ibinn.assessment import COMBINED
from ibinn.metrics import clopper_pearson
from ibinn.ood.group_test import LIKELIHOOD, GroupReference
from ibinn.ood.p_values import p_values, reference
from ibinn.types import SetMethod
from ibinn.types import TestKind as Kind
from tests.training.tiny_material import material
from training.chapters import group_test, groups, uncertainty
from training.chapters.base import NotMeasured
from training.scoring import Scored

N = 400
PART_B = np.random.default_rng(0).standard_normal(N)


def scored(
    rng: np.random.Generator, count: int, *, shift: float = 0.0, sharpness: float = 3.0
) -> Scored:
    """Images with combined scores that lie `shift` above usual ones."""
    logits = sharpness * rng.standard_normal((count, 3))
    scores = rng.standard_normal(count) + shift
    stored = reference(PART_B, Kind.HIGH_IS_UNUSUAL)
    return Scored(
        logits=logits,
        probabilities=softmax(logits, axis=1),
        bits_per_dim=np.ones(count),
        p={COMBINED: p_values(scores, stored, Kind.HIGH_IS_UNUSUAL)},
        unusual={COMBINED: scores},
        statistics={LIKELIHOOD: rng.normal(-shift, 1.0, count)},
        views={},
        verdicts=np.full(count, "NOT_FLAGGED"),
    )


def held_against() -> GroupReference:
    likelihood = np.random.default_rng(1).standard_normal(N)
    return GroupReference.of(
        np.sort(PART_B), {f"{LIKELIHOOD}.two_tailed": np.sort(likelihood)}, {LIKELIHOOD: 0.0}
    )


def test_entropy_increase_is_the_difference_of_the_means_within_its_interval():
    rng = np.random.default_rng(2)
    sure, unsure = scored(rng, 300, sharpness=5.0), scored(rng, 200, sharpness=0.5)
    (found,) = uncertainty.entropy_increases(sure, {"odd": unsure}, draws=200)
    expected = uncertainty.entropies(unsure).mean() - uncertainty.entropies(sure).mean()
    assert found.increase.value == pytest.approx(expected)
    assert 0 < found.increase.low < expected < found.increase.high


def test_the_confident_threshold_flags_fewer_and_misses_more():
    rng = np.random.default_rng(3)
    low, high = uncertainty.thresholds(
        scored(rng, 2000).p[COMBINED], {"odd": scored(rng, 500, shift=2.0).p[COMBINED]}, N
    )
    assert low.applied is not None
    assert low.applied < low.alpha
    for found in (low, high):
        assert found.confident is not None
        assert found.confident.hits < found.plain.hits
        ((_, at_alpha, confident),) = found.misses
        assert confident is not None
        assert confident > at_alpha


def test_a_confident_threshold_that_needs_more_images_is_refused_with_their_number():
    p = np.linspace(0.001, 1.0, 100)
    (found,) = uncertainty.thresholds(p, {"odd": p}, 250, alphas=(0.01,))
    assert (found.applied, found.confident, found.needed) == (None, None, 299)


def test_the_same_posterior_twice_shows_no_difference():
    rng = np.random.default_rng(4)
    p, labels = scored(rng, 150).probabilities, rng.integers(0, 3, 150)
    crops = uncertainty.compare_crops(p, p, labels, draws=30)
    assert all((e.value, e.low, e.high) == (0.0, 0.0, 0.0) for _, e in crops.difference)


def test_sets_are_measured_as_they_stand_in_the_bundle_and_reach_the_manifest():
    found = uncertainty.measure(material())
    assert not isinstance(found, NotMeasured)
    assert [(s.method, s.report.target) for s in found.sets] == [
        (SetMethod.PLAIN, 0.9),
        (SetMethod.RAPS, 0.9),
        (SetMethod.PLAIN, 0.95),
        (SetMethod.RAPS, 0.95),
    ]
    assert found.adaptive_note == ""
    assert uncertainty.headline(found)["raps_coverage@0.9"] == found.sets[1].report.overall.rate


def test_a_bundle_without_adaptive_sets_has_them_fitted_for_the_report():
    full = material()
    reference_with = full.classifier.reference
    assert reference_with is not None
    stored = {fit.coverage: fit for fit in reference_with.raps}
    full.classifier.reference = dataclasses.replace(reference_with, raps=())
    try:
        fits, note = uncertainty._adaptive_fits(full)
        absent, why = uncertainty._adaptive_fits(dataclasses.replace(full, calibration_a=None))
    finally:
        full.classifier.reference = reference_with
    assert "fitted for this report" in note
    assert {target: fit.config for target, fit in fits.items()} == {
        target: fit.config for target, fit in stored.items()
    }
    assert all(fits[t].quantile == pytest.approx(stored[t].quantile, abs=1e-6) for t in fits)
    assert absent == {}
    assert "not at hand" in why


def grouped(rng: np.random.Generator, **changes: Any) -> groups.Groups:
    test = scored(rng, 900)
    labels = np.where(rng.random(900) < 0.7, test.probabilities.argmax(1), rng.integers(0, 3, 900))
    logits = rng.standard_normal((N, 3)).astype(np.float32)
    loo = (N - np.argsort(np.argsort(PART_B))) / N
    calibrated = SimpleNamespace(
        combined=np.sort(PART_B),
        held_out=SimpleNamespace(logits=logits, combined_p=loo),
        quantile=lambda coverage: 0.8,
    )
    info = SimpleNamespace(classes=("a", "b", "c"), alpha=0.05, conformal_coverage=0.9)
    arguments: dict[str, Any] = {
        "info": info,
        "reference": calibrated,
        "brightness": rng.random(900),
    }
    sets = {"odd": scored(rng, 300, shift=2.0)}
    return groups.compare(test, labels, sets, **(arguments | changes))


def test_every_image_is_in_one_group_of_each_kind():
    found = grouped(np.random.default_rng(5))
    for measured in found.properties[:3]:
        kinds = {g.kind for g in measured.groups}
        assert kinds == {"true class", "predicted class", "brightness", "confidence"}
        for kind in kinds:
            assert sum(g.count for g in measured.groups if g.kind == kind) == 900
    misses = found.named("misses")
    assert misses is not None
    assert sum(g.count for g in misses.groups) == 300


def test_the_worst_is_the_worst_and_its_interval_is_for_all_groups_together():
    found = grouped(np.random.default_rng(6))
    alarms = found.named("false_alarms")
    assert alarms is not None
    assert alarms.worst is not None
    assert alarms.worst.value == max(g.value for g in alarms.groups)
    level = 1 - 0.05 / alarms.compared
    ends = clopper_pearson(alarms.worst.hits, alarms.worst.count, level=level)
    assert (alarms.worst.low, alarms.worst.high) == ends
    accuracy = found.named("accuracy")
    assert accuracy is not None
    assert accuracy.worst is not None
    assert accuracy.worst.kind != "confidence"
    assert f"accuracy:{accuracy.worst.kind} {accuracy.worst.group}" in groups.headline(found)


def test_usual_images_without_a_bad_group_show_none_in_nearly_all_cases():
    rng = np.random.default_rng(7)
    shown = 0
    for _ in range(200):
        masks = {f"{i}": np.arange(600) % 6 == i for i in range(6)}
        found = groups.property_of(
            "false_alarms", rng.random(600) < 0.05, {"made": masks}, worst_is_high=True
        )
        shown += bool(found.shown)
    assert shown <= 12


def test_a_group_that_is_worse_is_shown_to_be():
    rng = np.random.default_rng(8)
    bad = np.arange(900) % 3 == 0
    found = groups.property_of(
        "false_alarms",
        rng.random(900) < np.where(bad, 0.3, 0.02),
        {"made": {"bad": bad, "good": ~bad}},
        worst_is_high=True,
    )
    assert found.shown
    assert found.worst is not None
    assert found.worst.group == "bad"


def test_class_thresholds_are_refused_where_calibration_images_are_too_few():
    found = grouped(np.random.default_rng(9)).class_wise
    assert len(found) == 2 * 3
    for threshold in found:
        assert threshold.needed == (99 if threshold.alpha == 0.01 else 19)
        assert (threshold.own is None) == (threshold.calibration_count < threshold.needed)
        assert threshold.own is None or threshold.own < 6 * threshold.alpha


def test_scores_of_part_b_are_those_that_its_held_out_p_values_rank():
    calibrated: Any = SimpleNamespace(
        combined=np.sort(PART_B),
        held_out=SimpleNamespace(combined_p=(N - np.argsort(np.argsort(PART_B))) / N),
    )
    np.testing.assert_array_equal(groups._part_b_scores(calibrated), PART_B)


@pytest.fixture(scope="module")
def power() -> group_test.GroupPower:
    rng = np.random.default_rng(10)
    return group_test.simulate(
        scored(rng, 1500),
        {"odd": scored(rng, 400, shift=2.5), "same": scored(rng, 400)},
        held_against(),
        sizes=(10, 100, 1_000),
        groups=40,
        draws=499,
    )


def test_usual_groups_are_rarely_flagged_and_unusual_ones_nearly_always(power):
    assert {level.size for level in power.levels} == {10, 100}  # 1,000 leaves too few to draw from
    assert all(level.flagged.value <= 0.2 for level in power.levels)
    rates = {(p.name, p.share, p.size): p.flagged.value for p in power.powers}
    assert rates["odd", 1.0, 100] == 1.0
    assert rates["odd", 0.2, 100] > rates["odd", 0.05, 100]
    assert rates["same", 1.0, 100] <= 0.2


def test_lists_name_unknown_images_within_their_false_discovery_rate(power):
    odd = [x for x in power.lists if x.name == "odd"]
    assert power.list_size == 750
    assert power.fewest_found == 19
    assert [x.unknown for x in odd] == [150, 38]
    assert all(x.false_share <= 0.2 for x in power.lists)
    assert odd[0].found > 0.1


def test_each_panel_of_the_figure_is_a_share_of_unknown_images(power):
    figure = group_test.figures(power)["power"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "100% unknown",
        "20% unknown",
        "5% unknown",
    ]
