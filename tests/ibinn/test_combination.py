"""The density of states."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from ibinn.errors import DataError
from ibinn.ood.combination import MARGIN, DensityOfStates

STATISTICS = 4


def two_clusters(count: int, seed: int = 0) -> np.ndarray:
    """Correlated statistics of very different units, in two clusters."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((count, STATISTICS))
    drawn[:, 1] += drawn[:, 0]
    drawn[rng.random(count) < 0.4] += np.array([3.0, 0.0, 2.0, 0.0])
    return drawn * np.array([1e3, 1.0, 1e-4, 10.0]) + np.array([-5e4, 0.0, 1.0, 2.0])


@pytest.fixture(scope="module")
def states() -> DensityOfStates:
    return DensityOfStates.fit(two_clusters(800))


def mixture_of(states: DensityOfStates, columns: list[int]) -> GaussianMixture:
    """scikit-learn's mixture with the parameters of some statistics."""
    mixture = GaussianMixture(len(states.weights))
    mixture.weights_ = np.exp(states.weights)
    mixture.means_ = states.means[:, columns]
    mixture.covariances_ = states.covariances[:, columns][:, :, columns]
    mixture.precisions_cholesky_ = np.stack(
        [np.linalg.cholesky(np.linalg.inv(c)) for c in mixture.covariances_]
    )
    return mixture


@pytest.mark.parametrize("columns", [None, [0], [2, 1], [0, 1, 3]])
def test_score_is_minus_the_log_density_of_the_mixture(states, columns):
    chosen = list(range(STATISTICS)) if columns is None else columns
    fresh = two_clusters(100, seed=1)
    standard = (fresh - states.median) / states.scale
    within = np.abs(standard).max(axis=1) < MARGIN
    assert within.sum() > 90
    expected = -mixture_of(states, chosen).score_samples(standard[:, chosen])
    got = states.score(fresh, columns=columns)
    np.testing.assert_allclose(got[within], expected[within], rtol=1e-9)


def test_more_than_one_cluster_is_found(states):
    assert len(states.weights) >= 2
    assert np.exp(states.weights).sum() == pytest.approx(1.0)


def test_one_gaussian_is_recovered():
    rng = np.random.default_rng(0)
    covariance = np.array([[2.0, 0.9], [0.9, 1.0]])
    states = DensityOfStates.fit(rng.multivariate_normal([1.0, -2.0], covariance, 4000))
    assert len(states.weights) == 1
    points = np.array([[1.0, -2.0], [3.0, 0.0], [3.0, -4.0]])
    expected = -multivariate_normal([1.0, -2.0], covariance).logpdf(points)
    got = states.score(points) + np.log(states.scale).sum()
    np.testing.assert_allclose(got, expected, rtol=0.05)


def test_a_score_does_not_depend_on_the_units(states):
    units = np.array([1e-6, 1e4, 3.0, 1.0])
    fresh = two_clusters(50, seed=2)
    other = DensityOfStates.fit(two_clusters(800) * units)
    np.testing.assert_allclose(other.score(fresh * units), states.score(fresh), rtol=1e-4)


def test_a_combination_that_no_single_statistic_shows_scores_high(states):
    # Each coordinate is common; against the correlation of the first two, the pair is not.
    standard = np.zeros((2, STATISTICS))
    standard[0, :2] = (1.5, 1.5)
    standard[1, :2] = (1.5, -1.5)
    along, against = states.score(standard * states.scale + states.median)
    assert against > along + 2


def test_the_same_data_give_the_same_states(states):
    again = DensityOfStates.fit(two_clusters(800))
    assert np.array_equal(again.means, states.means)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_farther_is_more_unusual_however_far(states, sign):
    far = np.tile(states.median, (60, 1))
    far[:, 1] += sign * states.scale[1] * np.geomspace(5.0, 1e12, 60)
    scores = states.score(far)
    assert np.isfinite(scores).all()
    assert (np.diff(scores) > 0).all()


def test_compression_begins_smoothly_and_keeps_the_order():
    identity = DensityOfStates(
        median=np.zeros(1),
        scale=np.ones(1),
        weights=np.zeros(1),
        means=np.zeros((1, 1)),
        covariances=np.ones((1, 1, 1)),
    )
    # For N(0, 1) the score gives the compressed value back.
    values = np.array([1.0, MARGIN, MARGIN * np.e, -MARGIN * np.e**2])[:, None]
    compressed = np.sqrt(2 * identity.score(values) - np.log(2 * np.pi))
    np.testing.assert_allclose(compressed, [1.0, MARGIN, 2 * MARGIN, 3 * MARGIN], rtol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_has_no_score_and_leaves_the_others_alone(states, bad):
    fresh = two_clusters(5, seed=3)
    broken = fresh.copy()
    broken[2, 1] = bad
    scores = states.score(broken)
    assert np.isnan(scores[2])
    np.testing.assert_array_equal(np.delete(scores, 2), np.delete(states.score(fresh), 2))
    # A statistic that is not asked for does not matter.
    assert np.isfinite(states.score(broken, columns=[0, 3])).all()


def test_a_score_does_not_depend_on_the_batch(states):
    fresh = two_clusters(7, seed=4)
    alone = np.concatenate([states.score(row[None]) for row in fresh])
    np.testing.assert_allclose(states.score(fresh), alone, rtol=1e-12)


def test_constant_and_duplicate_statistics_do_not_break_the_fit():
    values = two_clusters(200)
    values[:, 3] = 7.0
    values[:, 2] = values[:, 0]
    states = DensityOfStates.fit(values)
    assert np.isfinite(states.score(values)).all()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.full((50, 2), np.nan), "100 values that are not finite"),
        (np.zeros(50), r"shape \(50,\)"),
        (np.random.default_rng(0).random((4, 4)), "needs at least 5"),
    ],
)
def test_statistics_that_cannot_be_fitted_are_refused(values, says):
    with pytest.raises(DataError, match=says):
        DensityOfStates.fit(values)
