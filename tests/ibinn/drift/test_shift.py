from dataclasses import replace

import numpy as np
import pytest

from ibinn.drift.shift import (
    covariate_shift,
    prior_shift,
    typicality_p,
    uniformity_p,
    weighted_distance,
)
from ibinn.errors import DataError
from tests.ibinn.drift import replays
from tests.ibinn.drift.made import observations, reference
from tests.ibinn.drift.measured import drawn


def test_a_prior_shift_is_measured_and_leaves_no_covariate_shift():
    held, clean = replays.calibration(), replays.scored("clean")
    weights = np.where(np.arange(10) == 3, 3.0, 1.0)
    true = weights / weights.sum()
    seen = drawn(clean, weights)
    found = prior_shift(seen, held)
    assert found.priors.sum() == pytest.approx(1.0)
    assert found.total_variation == pytest.approx(0.15, abs=0.05)
    assert np.abs(found.priors - true).sum() / 2 < 0.08
    rest = covariate_shift(seen, held, priors=found.priors)
    assert rest.distance < 2 * rest.by_chance
    # Cats are hard: with the old balance the confidences look shifted.
    assert covariate_shift(seen, held).confidence > rest.confidence


def test_a_covariate_shift_is_left_when_the_balance_is_taken_out():
    held = replays.calibration()
    seen = drawn(replays.scored("brightness-3"))
    found = prior_shift(seen, held)
    assert found.total_variation < 3 * found.by_chance
    assert covariate_shift(seen, held, priors=found.priors).score > 0.1


def test_where_nothing_shifted_the_figures_are_what_chance_makes():
    held, clean = replays.calibration(), replays.scored("clean")
    found = [prior_shift(drawn(clean, seed=s), held) for s in range(20)]
    rest = [covariate_shift(drawn(clean, seed=s), held) for s in range(20)]
    by_chance = found[0].by_chance
    assert 0.5 * by_chance < np.mean([f.total_variation for f in found]) < 2 * by_chance
    assert 0.5 < np.mean([r.score / r.by_chance for r in rest]) < 1.6


def test_p_values_of_recent_images_tell_noise_from_clean_images():
    held = replays.calibration()
    clean, noise = drawn(replays.scored("clean"), seed=1), drawn(replays.scored("gaussian_noise-3"))
    for test in (uniformity_p, typicality_p):
        assert test(clean, held) > 0.01
        assert test(noise, held) == pytest.approx(1 / 500)


def test_p_values_of_recent_images_know_that_calibration_is_finite():
    # Against 300 calibration images a window of 300 is off by their error too.
    found = []
    for seed in range(200):
        pool = replays.pool().subset(np.random.default_rng(seed).permutation(12_500)[:600])
        held = pool.subset(np.arange(300)).as_reference()
        seen = pool.subset(np.arange(300, 600)).against(held)
        found.append([
            test(seen, held, draws=99, seed=seed) for test in (uniformity_p, typicality_p)
        ])  # fmt: skip
    # 200 draws with chance 0.05 of a flag: more than 21 have a chance below 0.001.
    assert (np.array(found) <= 0.05).sum(axis=0).max() <= 21


def test_equal_samples_have_no_distance(rng):
    values = rng.normal(size=30)
    assert weighted_distance(values, values, np.full(30, 1 / 30)) == pytest.approx(0.0)
    assert weighted_distance(values, values + 100, np.full(30, 1 / 30)) == pytest.approx(1.0)


def test_windows_without_images_or_posteriors_are_refused():
    with pytest.raises(DataError, match="at least one"):
        prior_shift(observations(0), reference())
    with pytest.raises(DataError, match="at least one"):
        covariate_shift(observations(0), reference())
    with pytest.raises(DataError, match="no posteriors"):
        prior_shift(replace(observations(5), probabilities=None), reference())
