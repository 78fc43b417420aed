from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from ibinn import manifest
from ibinn.console import alarms
from ibinn.console.trade_off import (
    bounds,
    combined_test,
    estimate,
    false_alarms,
    measured_points,
    misses,
)
from ibinn.types import ModelInfo, TestInfo
from tests.ibinn.answers import make_info, make_prediction

POINTS = ((0.01, 0.9), (0.05, 0.6))


def combined(**changes: object) -> TestInfo:
    test = combined_test(make_info())
    assert test is not None
    return dataclasses.replace(test, **changes)  # type: ignore[arg-type]


def with_combined(test: TestInfo) -> ModelInfo:
    info = make_info()
    return dataclasses.replace(info, tests=(*info.tests[:-1], test))


def test_misses_at_a_measured_significance_are_those_measured() -> None:
    for alpha, rate in measured_points(combined(), "digits"):
        (found,) = misses(combined(), alpha)
        assert found.measured
        assert found.low == found.high == rate
        assert found.estimate == pytest.approx(rate)
        assert found.auroc == 0.996


def test_misses_between_are_bounded_by_their_neighbours_and_beyond_by_nothing_more() -> None:
    assert bounds(POINTS, 0.02, smallest_p=0.0004) == (0.6, 0.9)
    assert bounds(POINTS, 0.1, smallest_p=0.0004) == (0.0, 0.6)
    assert bounds(POINTS, 0.005, smallest_p=0.0004) == (0.9, 1.0)
    assert bounds((), 0.05, smallest_p=0.0004) == (0.0, 1.0)


def test_below_the_smallest_p_value_everything_is_missed() -> None:
    (found,) = misses(combined(), 0.0003)
    assert (found.low, found.high, found.estimate) == (1.0, 1.0, 1.0)


def test_the_estimate_is_exact_where_both_kinds_of_images_score_normally() -> None:
    # Scores N(0, 1) and N(1.5, 1.3²): misses are Φ((Φ⁻¹(1 - α) - 1.5)/1.3).
    def missed(alpha: float) -> float:
        return float(norm.cdf((norm.ppf(1 - alpha) - 1.5) / 1.3))

    points = tuple((alpha, missed(alpha)) for alpha in (0.01, 0.05, 0.1))
    for alpha in (0.002, 0.02, 0.07, 0.2):
        assert estimate(points, alpha) == pytest.approx(missed(alpha), abs=1e-9)


def test_one_measured_point_gives_bounds_and_no_estimate() -> None:
    (found,) = misses(combined(miss_rates=(("digits", 0.01, 0.25),)), 0.02)
    assert (found.low, found.high, found.estimate) == (0.0, 0.25, None)


def test_misses_that_were_none_or_all_have_an_estimate_within_their_bounds() -> None:
    for rates in ((1.0, 0.0), (1.0, 1.0), (0.0, 0.0)):
        test = combined(miss_rates=(("x", 0.01, rates[0]), ("x", 0.05, rates[1])))
        for alpha in (0.001, 0.02, 0.2):
            (found,) = misses(test, alpha)
            assert found.estimate is not None
            assert math.isfinite(found.estimate)
            assert found.low <= found.estimate <= found.high


def test_false_alarms_have_the_beta_law_of_the_calibration_images() -> None:
    found = false_alarms(make_info(), 0.01)
    draws = np.random.default_rng(0).random((2000, 2500))
    # The share of images with p <= 25/2501, for 2,000 calibration sets of uniform scores.
    realised = 1 - np.partition(draws, 2500 - 25, axis=1)[:, 2500 - 25]
    assert (found.low, found.high) == pytest.approx(np.quantile(realised, (0.025, 0.975)), rel=0.05)
    assert found.measured is None
    told = dataclasses.replace(make_info(), metrics=(("false_flag_rate@0.01", 0.0103),))
    assert false_alarms(told, 0.01).measured == 0.0103


def test_estimates_of_the_embedded_model_are_near_its_reports_curves(embedded_bundle: Path) -> None:
    report = json.loads((embedded_bundle / "report.json").read_text())
    found = next(
        each for each in manifest.read(embedded_bundle).detections if each.test == "combined"
    )
    test = combined(miss_rates=found.miss_rates, auroc=found.auroc)
    worst = {}
    for name in dict(found.auroc):
        roc = next(roc for roc in report["rocs"] if roc["name"] == name)
        rates = np.array(roc["false_positive_rate"])
        missed = 1 - np.array(roc["true_positive_rate"])
        inside = (rates >= 0.01) & (rates <= 0.05)
        outside = (rates >= 0.002) & (rates <= 0.2) & ~inside
        points = measured_points(test, name)
        guesses = [estimate(points, at) if 0 < at < 1 else math.nan for at in rates]
        off = np.abs(np.array(guesses, dtype=float) - missed)
        worst[name] = (off[inside].max(), off[outside].max())
    print({name: [round(1000 * each) for each in off] for name, off in worst.items()})
    assert max(inside for inside, _ in worst.values()) < 0.04
    assert max(outside for _, outside in worst.values()) < 0.12


@pytest.mark.parametrize(
    ("alpha", "words"),
    [(0.01, "would not be called unknown"), (0.42, "would be called UNKNOWN")],
)
def test_the_page_says_what_another_significance_would_make_of_the_image(
    alpha: float, words: str
) -> None:
    page = alarms.alarms_html(make_info(), make_prediction(), alpha)
    assert words in page
    assert "p = 0.4200" in page


def test_the_page_shows_false_alarms_beside_misses_and_how_each_is_known() -> None:
    page = alarms.alarms_html(make_info(), None, 0.01)
    assert "misses: digits</th><td>250</td><td>measured</td><td>99.6 %</td>" in page
    assert "10 on average" in page
    assert "This image" not in page
    page = alarms.alarms_html(make_info(), None, 0.02)
    assert "estimated; surely between 125 and 250" in page
    assert "Nothing is promised about misses" in page.replace("\n", " ")


def test_a_model_without_measured_misses_or_calibration_says_so() -> None:
    page = alarms.alarms_html(with_combined(combined(miss_rates=(), auroc=())), None, 0.01)
    assert "measured no misses" in page
    uncalibrated = dataclasses.replace(make_info(), tests=())
    assert "not calibrated" in alarms.alarms_html(uncalibrated, make_prediction(), 0.01)


def test_the_slider_begins_at_what_the_calibration_can_test() -> None:
    assert alarms.range_per_1000(make_info()) == (1, 200)
    assert alarms.range_per_1000(with_combined(combined(smallest_p=0.0125))) == (13, 200)
