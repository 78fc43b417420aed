import numpy as np
import pytest
from scipy import stats

from ibinn.drift.ranks import CELLS, OnlineRanks, cells_of
from ibinn.errors import DataError


def ranks(scores: np.ndarray, seed: int = 0) -> OnlineRanks:
    return OnlineRanks(scores, np.random.default_rng(seed))


def test_cells_ascend_with_the_score_over_the_whole_range():
    scores = np.array([-np.inf, -1e9, -3.0, -1e-9, 0.0, 1e-3, 1.0, 1.01, 65e3, 1e9, np.inf])
    cells = cells_of(scores)
    assert (np.diff(cells) >= 0).all()
    assert 0 <= cells.min() <= cells.max() < CELLS
    assert cells_of(np.array([-0.0])) == cells_of(np.array([0.0]))


@pytest.mark.parametrize("score", [-np.inf, -70e3, -2.5, -0.0, 0.0, 1e-7, 3.14159, 1e6, np.inf])
def test_one_score_has_the_same_cell_as_among_many(score):
    one, many = ranks(np.array([1.0, 2.0])), ranks(np.array([1.0, 2.0]))
    singly = [one.observe(score) for _ in range(40)]
    np.testing.assert_array_equal(many.observe_many(np.full(40, score)), singly)
    np.testing.assert_array_equal(one.to_arrays()["cells"], many.to_arrays()["cells"])


def test_a_score_that_is_not_a_number_is_refused():
    with pytest.raises(DataError, match="NaN"):
        ranks(np.array([1.0])).observe(float("nan"))
    with pytest.raises(DataError, match="NaN"):
        ranks(np.array([1.0])).observe_many(np.array([1.0, np.nan]))


def test_many_at_once_are_ranked_as_one_after_the_other(rng):
    calibration, stream = rng.normal(size=50), rng.normal(size=700).round(1)
    one, many = ranks(calibration), ranks(calibration)
    singly = [one.observe(score) for score in stream]
    parts = [many.observe_many(part) for part in np.split(stream, (3, 40, 71, 400))]
    np.testing.assert_array_equal(np.concatenate(parts), singly)
    assert len(one) == len(many) == 750


def test_the_p_value_is_the_share_below_with_ties_drawn():
    u = ranks(np.array([1.0, 2.0, 2.0, 3.0]), seed=1).observe(2.0)
    tau = np.random.default_rng(1).random()
    assert u == pytest.approx((1 + tau * 3) / 5)


def test_p_values_of_a_tiny_calibration_set_are_uniform_and_independent(rng):
    # Ranked among the five alone they would be neither.
    found = np.stack([ranks(rng.gamma(2, size=5), seed=s).observe_many(rng.gamma(2, size=8))
                      for s in range(4_000)])  # fmt: skip
    for column in found.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    correlations = np.corrcoef(found.T)[np.triu_indices(8, k=1)]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(4_000)


def test_coarse_scores_keep_p_values_uniform(rng):
    found = np.concatenate([
        ranks(rng.integers(3, size=4).astype(float), seed=s).observe_many(
            rng.integers(3, size=5).astype(float)
        )
        for s in range(2_000)
    ])  # fmt: skip
    assert stats.kstest(found, "uniform").pvalue > 1e-3


def test_the_bag_does_not_grow_with_the_stream(rng):
    bag = ranks(rng.normal(size=100))
    bag.observe_many(rng.normal(size=5_000))
    held = bag.to_arrays()
    assert len(held["cells"]) <= CELLS
    assert held["counts"].sum() == 5_100
