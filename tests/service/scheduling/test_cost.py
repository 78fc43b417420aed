"""What is learned of a batch's cost, and what it predicts."""

from __future__ import annotations

import pytest

from service.scheduling.admission import Delay, predicted_wait_s
from service.scheduling.cost import BatchCost


def learned(fixed: float, each: float, sizes: tuple[int, ...]) -> BatchCost:
    cost = BatchCost()
    for size in sizes:
        cost.observe(size, fixed + each * size)
    return cost


def test_nothing_is_predicted_before_the_first_batch() -> None:
    cost = BatchCost()
    assert cost.seconds(32) == cost.fixed_s == 0


def test_a_line_through_batches_of_several_sizes_is_found() -> None:
    cost = learned(0.008, 0.001, (1, 4, 32, 8, 2, 16))
    assert cost.line() == pytest.approx((0.008, 0.001))
    assert cost.seconds(32) == pytest.approx(0.040)


def test_batches_of_one_size_count_as_fixed_and_grow_in_proportion_above() -> None:
    cost = learned(0.05, 0.0, (8, 8, 8))
    assert cost.seconds(8) == cost.seconds(1) == pytest.approx(0.05)
    assert cost.seconds(16) == pytest.approx(0.1)


def test_neither_part_is_ever_negative() -> None:
    falling = BatchCost()
    for size, seconds in ((1, 0.5), (8, 0.1), (16, 0.05)):
        falling.observe(size, seconds)
    steep = BatchCost()
    for size, seconds in ((1, 0.001), (8, 0.1), (16, 0.3)):
        steep.observe(size, seconds)
    for cost in (falling, steep):
        fixed, each = cost.line()
        assert fixed >= 0
        assert each >= 0


def test_old_batches_are_forgotten() -> None:
    cost = learned(0.5, 0.0, (1, 8) * 50)
    for size in (1, 8) * 200:
        cost.observe(size, 0.001 * size)
    assert cost.seconds(8) == pytest.approx(0.008, rel=0.05)


COST = learned(0.05, 0.0, (1, 8, 8))


def wait_s(**changes: float) -> float:
    values = {"ahead": 0, "own": 0, "callers": 0, "running_s": 0.0, "decode_s": 0.0} | changes
    return predicted_wait_s(batch_size=8, cost=COST, **values)  # type: ignore[arg-type]


def test_an_idle_server_answers_after_one_batch() -> None:
    assert wait_s() == pytest.approx(0.05)


def test_whole_batches_come_before_the_last_one() -> None:
    assert wait_s(ahead=7, own=7, callers=1) == pytest.approx(0.05)
    assert wait_s(ahead=8, own=8, callers=1) == pytest.approx(0.10)
    assert wait_s(ahead=80, own=80, callers=1, running_s=0.02) == pytest.approx(0.57)


def test_a_newcomer_waits_for_turns_and_not_for_the_queue_of_a_greedy_caller() -> None:
    assert wait_s(ahead=200, own=0, callers=2) == pytest.approx(0.05)
    assert wait_s(ahead=200, own=200, callers=2) > 1


def test_answers_that_come_late_make_predictions_longer_and_are_forgotten_in_time() -> None:
    delay = Delay()
    assert delay.factor(100.0) == 1
    for _ in range(200):
        delay.observe(100.0, actual_s=0.3, predicted_s=0.1)
    assert delay.factor(100.0) == pytest.approx(3, rel=0.01)
    assert delay.factor(120.0) == pytest.approx(1, rel=0.01)


def test_a_delay_has_a_limit_and_short_times_do_not_count() -> None:
    delay = Delay()
    for _ in range(500):
        delay.observe(1.0, actual_s=100.0, predicted_s=0.1)
    assert delay.factor(1.0) <= 5
    quick = Delay()
    quick.observe(1.0, actual_s=1.0, predicted_s=0.001)
    quick.observe(1.0, actual_s=0.01, predicted_s=0.1)
    assert quick.factor(1.0) == 1
