from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibinn.json_lines import json_line
from ibinn.load_test.report import LoadReport, Quantiles, Tally


def report_of(tally: Tally) -> LoadReport:
    return tally.report(
        target="localhost:1",
        method="/tests.Echo/Echo",
        offered_per_s=None,
        concurrency=None,
        connections=1,
        generator_cpu_s=0.0,
    )


@given(st.lists(st.floats(0, 100), min_size=1))
def test_a_quantile_is_the_smallest_value_that_its_share_does_not_exceed(
    values: list[float],
) -> None:
    found = Quantiles.of(values)
    for q, value in ((0.5, found.p50_s), (0.9, found.p90_s), (0.99, found.p99_s)):
        assert value is not None
        needed = math.ceil(q * len(values))
        assert sum(v <= value for v in values) >= needed
        assert sum(v < value for v in values) < needed
    assert found.max_s == max(values)
    assert found.count == len(values)


def test_quantiles_of_nothing_are_none() -> None:
    found = Quantiles.of([])
    assert (found.count, found.p50_s, found.max_s) == (0, None, None)


def test_only_calls_meant_for_the_measured_time_count() -> None:
    tally = Tally(begin=10.0, duration_s=2.0, deadline_s=1.0)
    for intended in (9.99, 10.0, 11.99, 12.0):
        tally.send(intended, intended, 1)
        tally.settle(intended, intended + 0.1, "OK")
    found = report_of(tally)
    assert (found.sent, found.answered, found.goodput) == (2, 2, 1.0)


def test_counts_and_shares_add_up_and_late_answers_are_no_goodput() -> None:
    tally = Tally(begin=0.0, duration_s=2.0, deadline_s=0.5)
    outcomes = [
        (0.0, 0.1, "OK"),
        (0.1, 0.5, "OK"),
        (0.2, 0.7, "OK"),
        (1.0, 0.01, "RESOURCE_EXHAUSTED"),
        (1.1, 0.5, "DEADLINE_EXCEEDED"),
        (1.2, 0.0, "UNAVAILABLE"),
        (1.3, 0.2, "OK"),
        (1.4, 0.02, "RESOURCE_EXHAUSTED"),
    ]
    for intended, latency, code in outcomes:
        tally.send(intended, intended, 1)
        tally.settle(intended, intended + latency, code)
    found = report_of(tally)
    assert (found.sent, found.answered, found.good, found.late) == (8, 4, 3, 1)
    assert (found.rejected, found.expired, found.failed) == (2, 1, 1)
    assert found.sent == found.good + found.late + found.rejected + found.expired + found.failed
    assert (found.goodput, found.sent_per_s) == (1.5, 4.0)
    assert (found.good_share, found.late_share, found.rejected_share) == (3 / 8, 1 / 8, 2 / 8)
    assert found.latency.max_s == pytest.approx(0.7)
    assert {figures.code: figures.latency.count for figures in found.codes} == {
        "OK": 4, "RESOURCE_EXHAUSTED": 2, "DEADLINE_EXCEEDED": 1, "UNAVAILABLE": 1,
    }  # fmt: skip
    assert found.codes[0].code == "OK"
    first, second = found.seconds
    assert (first.sent, first.good, first.late) == (3, 2, 1)
    assert (second.sent, second.good) == (5, 1)
    assert (second.rejected, second.expired, second.failed) == (2, 1, 1)
    assert first.p50_s == pytest.approx(0.5)


def test_an_image_without_any_status_has_failed() -> None:
    tally = Tally(begin=0.0, duration_s=1.0, deadline_s=0.5)
    tally.send(0.0, 0.0, 2)
    tally.settle(0.0, 0.1, "OK")
    assert report_of(tally).failed == 1


def test_a_generator_that_sends_late_says_so() -> None:
    tally = Tally(begin=0.0, duration_s=1.0, deadline_s=0.5)
    for index in range(100):
        tally.send(index / 100, index / 100 + (0.006 if index < 2 else 0.0), 1)
    assert not report_of(tally).kept_up


def test_a_run_without_any_call_is_still_a_report() -> None:
    found = report_of(Tally(begin=0.0, duration_s=0.5, deadline_s=0.5))
    assert (found.sent, found.goodput, found.rejected_share) == (0, 0, 0)
    assert json.loads(json_line(found))["latency"]["p50_s"] is None
