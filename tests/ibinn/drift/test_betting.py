import math

import numpy as np
import pytest

from ibinn.drift.betting import SPREAD_EVERY, STEPS, Capital
from ibinn.errors import DataError


@pytest.mark.parametrize("beta_bets", [True, False])
@pytest.mark.parametrize("count", [0, 1, SPREAD_EVERY - 1, SPREAD_EVERY, 150])
def test_the_capital_stays_the_same_on_average_over_a_uniform_number(beta_bets, count):
    # The martingale property, exactly: over every step that the next number can fall into.
    capital = Capital(beta_bets=beta_bets)
    capital.observe_many(np.random.default_rng(count).beta(0.8, 1.1, size=count))
    before, state = capital.log_value, capital.to_arrays()
    grown = []
    for step in range(STEPS):
        capital.restore(state)
        capital.observe((step + 0.5) / STEPS)
        grown.append(capital.log_value - before)
    assert np.exp(grown).mean() == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("beta_bets", [True, False])
def test_many_at_once_are_bet_on_as_one_after_the_other(beta_bets):
    numbers = np.random.default_rng(1).random(101)
    one, many = Capital(beta_bets=beta_bets), Capital(beta_bets=beta_bets)
    singly = []
    for u in numbers:
        one.observe(float(u))
        singly.append(one.log_value)
    path = np.concatenate([many.observe_many(part) for part in np.split(numbers, (7, 40, 41))])
    np.testing.assert_allclose(path, singly, rtol=0, atol=1e-12)
    assert one.highest == pytest.approx(many.highest, abs=1e-12)
    assert one.count == many.count == 101


def test_the_ends_of_the_interval_are_bet_on():
    capital = Capital()
    capital.observe(0.0)
    capital.observe(1.0)
    assert math.isfinite(capital.log_value)


def test_a_stationary_stream_leaves_most_of_the_capital_for_later():
    capital = Capital()
    capital.observe_many(np.random.default_rng(2).random(20_000))
    assert capital.log_value > math.log(0.05)


@pytest.mark.parametrize(
    ("a", "b"), [(2.0, 1.0), (1.0, 2.0), (0.6, 0.6), (3.0, 3.0)],
    ids=["larger", "smaller", "more extreme", "more alike"],
)  # fmt: skip
def test_every_change_of_shape_makes_the_capital_grow(a, b):
    rng = np.random.default_rng(3)
    capital = Capital()
    capital.observe_many(rng.random(2_000))
    path = capital.observe_many(rng.beta(a, b, size=500))
    assert path[-1] > 10


def test_capital_neither_overflows_nor_loses_its_last_part():
    capital = Capital()
    capital.observe_many(np.full(20_000, 1e-9))
    assert math.isfinite(capital.log_value)
    assert capital.log_value > 1_000
    capital.observe_many(np.random.default_rng(4).random(20_000))
    assert math.isfinite(capital.log_value)


def test_a_state_of_other_bets_is_refused():
    with pytest.raises(DataError, match="another version"):
        Capital(beta_bets=False).restore(Capital().to_arrays())
