from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ibinn.assessment import COMBINED
from tests.training.tiny_material import material
from training.chapters import membership
from training.chapters.base import NotMeasured
from training.chapters.membership import attack, compare, true_positive_rate
from training.scoring import Scored


def scored(rng: np.random.Generator, count: int, *, shift: float = 0.0) -> Scored:
    """Scores of three classes; `shift` makes images likelier, more certain and more usual."""
    labels = np.arange(count) % 3
    logits = rng.standard_normal((count, 3))
    logits[np.arange(count), labels] += 1 + shift
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    unusual = rng.standard_normal(count) - shift
    return Scored(
        logits=logits,
        probabilities=probabilities,
        bits_per_dim=rng.standard_normal(count) - shift,
        p={COMBINED: np.clip(rng.random(count) + 0.1 * shift, 1e-3, 1)},
        unusual={COMBINED: unusual},
        statistics={
            "calm": rng.standard_normal(count),
            "moved": rng.standard_normal(count) + shift,
        },
        views={},
        verdicts=np.array(["NOT_FLAGGED"] * count),
    )


def compared(rng, *, shift, count=600, draws=100):
    labels = np.arange(count) % 3
    return compare(
        scored(rng, count, shift=shift), labels, scored(rng, count), labels, draws=draws, seed=0
    )


def test_equal_distributions_are_not_told_apart(rng):
    result = compared(rng, shift=0.0, count=2_000)
    for found in result.attacks:
        assert found.auroc.low < 0.53
        assert found.auroc.high > 0.47
        assert found.true_positive_rate.value == pytest.approx(0.01, abs=0.02)
    assert all(line.right for line in result.calibration)


def test_members_that_score_higher_are_found(rng):
    result = compared(rng, shift=1.0)
    by_name = {found.name: found for found in result.attacks}
    loss = next(found for name, found in by_name.items() if name.startswith("loss"))
    assert loss.needs_label
    assert loss.finds_members
    # Two unit Gaussians one apart: Φ(1/√2).
    assert by_name["likelihood log q(x)"].auroc.value == pytest.approx(0.76, abs=0.03)
    assert result.strongest_statistic == "moved"
    assert result.accuracy_train > result.accuracy_test


def test_ranks_of_members_raise_false_alarms_on_others(rng):
    result = compared(rng, shift=1.0, count=2_000)
    strict, lax = result.calibration
    assert strict.rate > 3 * strict.alpha
    assert not lax.right


def test_attacks_stand_strongest_first(rng):
    values = [found.auroc.value for found in compared(rng, shift=0.5).attacks]
    assert values == sorted(values, reverse=True)


def test_the_true_positive_rate_is_taken_where_the_false_positive_rate_is_kept(rng):
    others, members = rng.standard_normal(5_000), rng.standard_normal(5_000) + 2
    rate = true_positive_rate(members, others, false_positive_rate=0.01)
    # Φ(2 - 2.326) = 0.372.
    assert rate == pytest.approx(0.372, abs=0.03)
    assert true_positive_rate(np.ones(9), np.ones(9)) == 0.0


def test_an_interval_holds_the_value_and_shrinks_with_more_images(rng):
    few, many = (
        attack("guess", rng.random(n) + 0.1, rng.random(n), needs_label=False, draws=200, seed=1)
        for n in (100, 2_000)
    )
    for found in (few, many):
        assert found.auroc.low <= found.auroc.value <= found.auroc.high
    assert many.auroc.high - many.auroc.low < 0.5 * (few.auroc.high - few.auroc.low)


def test_images_that_were_not_assessed_are_left_out(rng):
    members, others = rng.random(200), rng.random(200)
    members[:50] = np.nan
    found = attack("guess", members, others, needs_label=False, draws=20, seed=1)
    assert np.isfinite(found.auroc.value)


def test_only_what_is_asked_for_is_taken(rng):
    whole = scored(rng, 9)
    part = membership.taken(whole, [4, 2])
    assert len(part) == 2
    np.testing.assert_array_equal(part.probabilities, whole.probabilities[[4, 2]])
    np.testing.assert_array_equal(part.statistics["calm"], whole.statistics["calm"][[4, 2]])


def test_the_figure_draws_every_attack(rng):
    drawn = membership.figures(compared(rng, shift=0.3, draws=20))["roc"]
    legend = [text.get_text() for text in drawn.axes[0].get_legend().get_texts()]
    assert len(legend) == 1 + 5


def test_without_training_images_the_chapter_says_so():
    found = membership.measure(replace(material(), train=None))
    assert isinstance(found, NotMeasured)
    assert "split of the run" in found.reason


def test_training_images_are_scored_as_test_images_are():
    found = membership.measure(material())
    assert isinstance(found, membership.Membership)
    assert found.count == 3 * material().limit
