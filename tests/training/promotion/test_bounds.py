"""The bounds keep their level: exactly for shares, in a simulation for the calibration error."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from training.promotion import calibration_error, paired
from training.promotion.calibration_error import ece_difference
from training.promotion.paired import LEVEL, Pairs, p_value, upper_bound


@pytest.mark.parametrize(("count", "margin"), [(60, 0.05), (90, 0.1), (150, 0.03)])
def test_a_candidate_at_the_margin_passes_with_at_most_the_level(count: int, margin: float) -> None:
    """Summed over every outcome there is, at many shares of images that differ."""
    passing = []
    for lost in range(count + 1):
        low, high = 0, count - lost + 1
        while low < high:  # more gained speaks for the candidate
            gained = (low + high) // 2
            passes = gained + lost <= count
            passes = passes and p_value(Pairs(count=count, lost=lost, gained=gained), margin) <= (
                LEVEL
            )
            low, high = (low, gained) if passes else (gained + 1, high)
        if low + lost <= count:
            passing.append((lost, low))
    errors = []
    for psi in (margin, margin + 0.02, 0.15, 0.3, 0.6):
        lost_p, gained_p = (psi + margin) / 2, (psi - margin) / 2
        errors.append(
            sum(
                stats.binom.pmf(lost, count, lost_p)
                * stats.binom.sf(gained - 1, count - lost, gained_p / (1 - lost_p))
                for lost, gained in passing
            )
        )
    assert max(errors) <= LEVEL
    assert max(errors) >= 0.04


@pytest.mark.parametrize("margin", [0.01, 0.02, 0.1])
@pytest.mark.parametrize("counts", [(400, 0, 0), (1_000, 20, 20), (1_000, 5, 30), (2_000, 60, 10)])
def test_the_bound_agrees_with_the_p_value_at_the_margin(
    counts: tuple[int, int, int], margin: float
) -> None:
    pairs = Pairs(count=counts[0], lost=counts[1], gained=counts[2])
    bound = upper_bound(pairs, margin=margin)
    assert (bound < margin) == (p_value(pairs, margin) <= LEVEL)
    assert p_value(pairs, bound + 1e-3) <= LEVEL < p_value(pairs, bound - 1e-3) + 2e-3


def test_fewest_is_where_agreement_alone_begins_to_pass() -> None:
    fewest = paired.fewest(0.01)
    assert upper_bound(Pairs(count=fewest + 1, lost=0, gained=0), margin=0.01) < 0.01
    assert upper_bound(Pairs(count=fewest - 2, lost=0, gained=0), margin=0.01) >= 0.01


def test_with_as_many_images_as_needed_an_equal_candidate_passes(
    rng: np.random.Generator,
) -> None:
    margin = 0.02
    count = paired.needed(Pairs(count=1_000, lost=25, gained=25), margin)
    drawn = rng.multinomial(count, [0.025, 0.025, 0.95], size=100)
    passed = sum(
        p_value(Pairs(count=count, lost=int(a), gained=int(b)), margin) <= LEVEL
        for a, b, _ in drawn
    )
    assert 80 <= passed <= 98


def confidences(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.clip(rng.beta(6.0, 0.8, count) * 0.9 + 0.1, 0.11, 0.999)


def sharper(p: np.ndarray, factor: float) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-factor * np.log(p / (1 - p)))))


def true_ece(p: np.ndarray, confidence: np.ndarray) -> float:
    """Of a model with these confidences where the top class is right with probability p."""
    bins = np.minimum((confidence * 15).astype(int), 14)
    return float(np.abs(np.bincount(bins, weights=p - confidence)).sum() / len(p))


@pytest.mark.parametrize("factor", [1.55, 0.65])
@pytest.mark.parametrize("own_luck", [0.0, 0.2])
def test_a_candidate_at_the_margin_of_calibration_passes_with_about_the_level_at_most(
    factor: float, own_luck: float
) -> None:
    """200 draws of a calibrated reference and a candidate exactly the margin worse."""
    rng = np.random.default_rng(1)
    p = confidences(rng, 400_000)
    margin = true_ece(p, sharper(p, factor)) - true_ece(p, p)
    passed = 0
    for _ in range(200):
        p = confidences(rng, 3_000)
        right = rng.random(len(p)) < p
        own = np.where(rng.random(len(p)) < own_luck, rng.random(len(p)) < p, right)
        passed += ece_difference((sharper(p, factor), own), (p, right)).bound < margin
    # 16 of 200 has probability 0.044 at a true 5 %.
    assert passed <= 16


def test_an_equally_calibrated_candidate_passes_and_a_better_one_too(
    rng: np.random.Generator,
) -> None:
    equal = better = 0
    for _ in range(40):
        p = confidences(rng, 3_000)
        right = rng.random(len(p)) < p
        own = np.where(rng.random(len(p)) < 0.1, rng.random(len(p)) < p, right)
        equal += ece_difference((p, own), (p, right)).bound < 0.02
        better += ece_difference((p, own), (sharper(p, 1.4), right)).bound < 0.02
    assert equal >= 38
    assert better >= 36


def test_two_models_that_agree_wholly_need_enough_images_all_the_same() -> None:
    fewest = calibration_error.fewest(0.02)
    for count, passes in ((fewest, True), (fewest - 1, False)):
        one = (np.full(count, 0.9), np.arange(count) % 10 > 0)
        assert (ece_difference(one, one).bound < 0.02) is passes


def test_images_needed_for_calibration_shrink_with_the_error(rng: np.random.Generator) -> None:
    p = confidences(rng, 2_000)
    right = rng.random(len(p)) < p
    own = np.where(rng.random(len(p)) < 0.2, rng.random(len(p)) < p, right)
    found = ece_difference((p, own), (p, right))
    assert calibration_error.needed(found, 0.01) > 3 * calibration_error.needed(found, 0.02)
