"""The combined test: tails, views, and that its p-values stay valid."""

import numpy as np
import pytest

from ibinn.ood.activation import fit_whitening, out_of_fold_distances, squared_distances
from ibinn.ood.combination import DensityOfStates
from ibinn.ood.combined import JOINT, TAIL_SHARE, CombinedTest, Tail
from ibinn.ood.p_values import p_values
from ibinn.types import TestKind as Kind

GROUPS = {"pixel": (0,), "style": (1, 2), "semantic": (3,)}


def fitted(seed: int = 0, count: int = 600) -> CombinedTest:
    values = np.random.default_rng(seed).standard_normal((count, 4))
    return CombinedTest.fit(
        DensityOfStates.fit(values), values, alone={"energy": 0, "entropy": 3}, groups=GROUPS
    )


def test_a_tail_has_the_rank_p_value_within_part_a():
    values = np.random.default_rng(0).standard_normal(99)
    tail = Tail.fit(values)
    scores = np.linspace(-3.0, tail.threshold, 50)
    expected = [(1 + np.count_nonzero(values >= s)) / 100 for s in scores]
    np.testing.assert_allclose(np.exp(-tail.surprise(scores)), expected)


def test_a_tail_is_exponential_beyond_its_threshold_and_never_ends():
    tail = Tail.fit(np.random.default_rng(0).exponential(2.0, 5000))
    beyond = tail.threshold + np.array([1.0, 10.0, 1000.0])
    np.testing.assert_allclose(
        tail.surprise(beyond), (beyond - tail.threshold) / tail.scale - np.log(TAIL_SHARE)
    )
    assert tail.scale == pytest.approx(2.0, rel=0.15)  # the mean excess of an exponential


def test_surprise_rises_with_the_score():
    tail = Tail.fit(np.random.default_rng(1).standard_normal(500))
    nats = tail.surprise(np.linspace(-5, 20, 2001))
    assert (np.diff(nats) >= -1e-2).all()  # where ranks meet the exponential
    assert (nats >= 0).all()


def test_a_tail_of_equal_values_is_usable():
    tail = Tail.fit(np.zeros(50))
    assert np.isfinite(tail.surprise(np.array([-1.0, 0.0, 1e-3]))).all()


def test_fisher_is_the_sum_and_min_p_the_largest_of_the_views():
    surprises = fitted().surprises(np.random.default_rng(3).standard_normal((20, 4)))
    assert set(surprises.views) == {JOINT, "energy", "entropy"}
    stacked = np.stack(list(surprises.views.values()))
    np.testing.assert_allclose(surprises.fisher, stacked.sum(0))
    np.testing.assert_allclose(surprises.smallest_p, stacked.max(0))


def test_combined_p_values_of_fresh_images_are_uniform():
    rng = np.random.default_rng(5)
    test = fitted()
    reference = np.sort(test.surprises(rng.standard_normal((999, 4))).fisher)
    fresh = test.surprises(rng.standard_normal((4000, 4))).fisher
    p = p_values(fresh, reference, Kind.HIGH_IS_UNUSUAL)
    for alpha in (0.01, 0.05, 0.5):
        # Ranks of a fresh image are uniform; the reference is drawn once.
        spread = np.sqrt(alpha * (1 - alpha) * (1 / 4000 + 1 / 1000))
        assert abs((p <= alpha).mean() - alpha) < 4 * spread


def test_an_image_unusual_in_one_statistic_is_found_in_its_group():
    usual = np.zeros((1, 4))
    unusual = np.array([[0.0, 0.0, 0.0, 9.0]])
    test = fitted()
    surprises = test.surprises(np.concatenate((usual, unusual)))
    assert surprises.fisher[1] > surprises.fisher[0] + 5
    assert max(surprises.groups, key=lambda group: surprises.groups[group][1]) == "semantic"


def test_a_statistic_that_is_not_finite_leaves_no_score():
    values = np.zeros((3, 4))
    values[1, 2] = np.nan
    values[2, 0] = np.inf
    surprises = fitted().surprises(values)
    assert np.isfinite(surprises.fisher).tolist() == [True, False, False]
    for found in (*surprises.views.values(), *surprises.groups.values()):
        assert np.isfinite(found).tolist() == [True, False, False]


def test_whitened_distances_are_mahalanobis_distances_of_many_images():
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((3, 3))
    samples = rng.standard_normal((50_000, 3)) @ mixing.T + 7.0
    centre, whitening = fit_whitening(samples)
    fresh = rng.standard_normal((100, 3))
    np.testing.assert_allclose(
        squared_distances(fresh @ mixing.T + 7.0, centre, whitening),
        np.square(fresh).sum(1),
        rtol=0.1,
        atol=0.1,
    )


def test_out_of_fold_distances_are_those_of_fresh_images():
    rng = np.random.default_rng(0)
    scales = np.geomspace(1.0, 30.0, 80)
    mixing = np.linalg.qr(rng.standard_normal((80, 80)))[0] * scales
    samples = rng.standard_normal((200, 80)) @ mixing.T
    fresh = rng.standard_normal((2000, 80)) @ mixing.T
    fit = fit_whitening(samples)
    outside = squared_distances(fresh, *fit).mean()
    assert squared_distances(samples, *fit).mean() < 0.95 * outside
    assert out_of_fold_distances(samples).mean() == pytest.approx(outside, rel=0.1)


def test_no_observed_channels_give_no_parameters():
    centre, whitening = fit_whitening(np.zeros((5, 0)))
    assert centre.shape == (0,)
    assert whitening.shape == (0, 0)
