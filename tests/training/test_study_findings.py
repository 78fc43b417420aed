"""What a study claims follows from its numbers by the rules that it states."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import spearmanr, ttest_rel

from training.study.findings import Answer, decide, rank_correlation
from training.study.page import spread_text
from training.study.summary import Spread


def test_a_spread_is_the_paired_t_interval() -> None:
    one, two = np.array([3.0, 4.5, 5.0, 4.0]), np.array([1.0, 2.0, 3.5, 1.5])
    spread = Spread.of((one - two).tolist())
    expected = ttest_rel(one, two).confidence_interval(0.95)
    assert (spread.low, spread.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("values", "margin", "answer"),
    [
        ((50.0, 52.0, 51.0), 10.0, Answer.APPEARS),
        ((1.0, 2.0, 1.5), 10.0, Answer.ABSENT),
        ((1.0, 30.0, 12.0), 10.0, Answer.UNDECIDABLE),
        ((-1.0, -1.2, -1.1), 0.0, Answer.ABSENT),
        ((0.1, -0.1, 0.2), 0.0, Answer.UNDECIDABLE),
        ((51.0,), 10.0, Answer.UNDECIDABLE),
    ],
)
def test_an_effect_is_decided_by_its_whole_interval(
    values: tuple[float, ...], margin: float, answer: Answer
) -> None:
    found, words = decide(Spread.of(values), margin=margin, unit="points")
    assert found is answer
    assert "points over" in words


def test_a_small_effect_in_the_published_direction_is_told_from_none() -> None:
    _, words = decide(Spread.of((1.9, 2.0, 2.1)), margin=10.0, unit="points")
    assert "The direction is the published one, its size is not." in words
    _, words = decide(Spread.of((-0.1, 0.1, 0.0)), margin=10.0, unit="points")
    assert "direction" not in words


def test_nothing_is_decided_without_runs() -> None:
    assert decide(None, margin=0.0, unit="points")[0] is Answer.UNDECIDABLE


def test_the_rank_correlations_p_counts_every_order_of_two_seeds() -> None:
    rows = [(3.0, 1.0, 2.0, 0.0), (4.0, 3.0, 1.0, 2.0)]
    rho, p = rank_correlation(rows, rising=False)
    order = range(4)
    observed = np.mean([spearmanr(order, row).statistic for row in rows])
    assert rho == pytest.approx(observed)
    law = [spearmanr(order, o).statistic for o in itertools.permutations(range(4))]
    draws = [(one + two) / 2 for one, two in itertools.product(law, law)]
    assert p == pytest.approx(np.mean(np.array(draws) <= observed + 1e-9))
    assert rank_correlation(rows, rising=True)[0] == pytest.approx(observed)


def test_tied_values_share_their_rank() -> None:
    rows = [(1.0, 1.0, 2.0)]
    rho, p = rank_correlation(rows, rising=True)
    assert rho == pytest.approx(spearmanr(range(3), rows[0]).statistic)
    assert p == pytest.approx(1 / 3)


def test_a_constant_figure_has_no_trend() -> None:
    assert rank_correlation([(1.0, 1.0, 1.0)], rising=True) == (None, None)
    assert rank_correlation([], rising=True) == (None, None)


def test_a_cell_shows_its_spread_only_where_there_is_one() -> None:
    assert spread_text(Spread.of([1.25])) == "1.25"
    assert spread_text(Spread.of([1.0, 2.0])) == "1.50 ± 0.71"
