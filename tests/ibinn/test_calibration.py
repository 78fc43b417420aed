import subprocess
import sys
import time

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from ibinn.calibration import ConfidenceBins, calibration_report, fit_temperature
from ibinn.errors import ConfigError, DataError
from ibinn.metrics import nll


def drawn(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels from the probabilities themselves: a perfectly calibrated predictor."""
    return (probabilities.cumsum(axis=1) < rng.random((len(probabilities), 1))).sum(axis=1)


def thesis_figures(report, which):
    errors = getattr(report.thesis, which)
    floors = getattr(report, f"thesis_floor_{which}")
    names = ("ece", "mce", "ice", "geometric_mean")
    return [(getattr(errors, name), getattr(floors, name)) for name in names]


@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.5, 40.0])
def test_temperature_recovers_the_one_that_spoilt_the_logits(temperature):
    rng = np.random.default_rng(0)
    logits = log_softmax(3 * rng.standard_normal((20_000, 10)), axis=1)
    labels = drawn(softmax(logits, axis=1), rng)
    fitted = fit_temperature(temperature * logits - 1e4, labels)
    assert fitted == pytest.approx(temperature, rel=0.03)


def test_temperature_is_where_the_nll_is_smallest():
    rng = np.random.default_rng(1)
    logits, labels = 2 * rng.standard_normal((300, 4)), rng.integers(0, 4, 300)
    logits[np.arange(300), labels] += 1.5
    best = fit_temperature(logits, labels)

    def loss(t: float) -> float:
        return nll(softmax(logits / t, axis=1), labels)

    assert loss(best) < min(loss(best * 1.01), loss(best / 1.01))


def test_temperature_stays_one_where_every_answer_is_right():
    logits = np.array([[5.0, 0.0], [0.0, 3.0]])
    assert fit_temperature(logits, np.array([0, 1])) == 1.0


def test_temperature_is_capped_where_the_logits_know_nothing():
    logits = np.array([[5.0, 0.0], [0.0, 3.0]])
    assert fit_temperature(logits, np.array([1, 0])) == 1e3


def test_temperature_refuses_logits_that_are_not_finite():
    with pytest.raises(DataError, match="1 values"):
        fit_temperature(np.array([[np.inf, 0.0]]), np.array([0]))


def test_a_calibrated_predictor_is_under_its_floors():
    # Each figure exceeds its 95th percentile in 5 % of data sets: of 20, 6 or more is p < 1e-3.
    rng = np.random.default_rng(2)
    above = np.zeros(7)
    for seed in range(20):
        p = rng.dirichlet(np.full(10, 0.15), 1000)
        report = calibration_report(p, drawn(p, rng), draws=200, seed=seed)
        figures = [
            (report.top_label_ece, report.top_label_ece_floor),
            (report.nll_nats, report.nll_floor_nats),
            (report.brier, report.brier_floor),
            *thesis_figures(report, "with_mean_confidence"),
        ]
        above += [value > floor for value, floor in figures]
    assert above.max() < 6


def test_an_overconfident_predictor_is_over_its_floors():
    rng = np.random.default_rng(3)
    logits = log_softmax(2 * rng.standard_normal((4000, 10)), axis=1)
    labels = drawn(softmax(logits, axis=1), rng)
    report = calibration_report(softmax(2.5 * logits, axis=1), labels, draws=100)
    assert report.top_label_ece > 2 * report.top_label_ece_floor
    assert report.nll_nats > report.nll_floor_nats
    for which in ("with_centres", "with_mean_confidence"):
        assert all(value > floor for value, floor in thesis_figures(report, which))
    assert report.overconfidence.value is not None
    assert report.overconfidence.low > 1


def test_floors_are_the_95th_percentile_of_the_figure_on_drawn_labels():
    rng = np.random.default_rng(4)
    p = rng.dirichlet(np.full(5, 0.3), 400)
    report = calibration_report(p, drawn(p, rng), draws=1000)
    reports = [calibration_report(p, drawn(p, rng), draws=1) for _ in range(300)]
    for figure, floor in (
        ("top_label_ece", report.top_label_ece_floor),
        ("nll_nats", report.nll_floor_nats),
        ("brier", report.brier_floor),
    ):
        below = np.mean([getattr(r, figure) <= floor for r in reports])
        assert 0.9 < below <= 0.99
    floor = report.thesis_floor_with_centres.geometric_mean
    below = np.mean([r.thesis.with_centres.geometric_mean <= floor for r in reports])
    assert 0.9 < below <= 0.99


def test_the_same_seed_gives_the_same_report():
    rng = np.random.default_rng(5)
    p = rng.dirichlet(np.ones(3), 100)
    y = drawn(p, rng)
    assert calibration_report(p, y, draws=20) == calibration_report(p, y, draws=20)
    assert calibration_report(p, y, draws=20) != calibration_report(p, y, draws=20, seed=1)


def test_a_certain_predictor_has_floors_of_zero_and_finite_nll():
    labels = np.arange(600) % 3
    report = calibration_report(np.eye(3)[labels], labels, draws=10)
    assert (report.nll_nats, report.nll_floor_nats, report.brier_floor) == (0, 0, 0)
    assert report.thesis_floor_with_centres.ece == pytest.approx(0.005)


def test_floors_of_ten_thousand_images_take_less_than_fifteen_seconds():
    rng = np.random.default_rng(6)
    p = rng.dirichlet(np.full(10, 0.2), 10_000)
    start = time.process_time()
    calibration_report(p, drawn(p, rng), draws=1000)
    assert time.process_time() - start < 15


def test_observed_accuracy_is_that_of_images_of_the_same_confidence():
    p = np.array([[0.7, 0.3]] * 4 + [[0.05, 0.95]] * 2)
    bins = ConfidenceBins.fit(p, np.array([0, 0, 0, 1, 1, 1]))
    assert sum(bins.counts) == 6
    found = bins.lookup(0.69)
    assert found is not None
    assert (found.accuracy, found.count) == (0.75, 4)
    assert found.low < 0.75 < found.high
    sure = bins.lookup(1.0)
    assert sure is not None
    assert (sure.accuracy, sure.high) == (1.0, 1.0)
    assert bins.lookup(0.5) is None


def test_confidence_bins_refuse_counts_that_cannot_be():
    with pytest.raises(ConfigError, match="correct <= count"):
        ConfidenceBins(counts=(1,), correct=(2,))
    with pytest.raises(ConfigError, match="as many of both"):
        ConfidenceBins(counts=(1, 2), correct=(1,))
    with pytest.raises(ConfigError, match="probability"):
        ConfidenceBins(counts=(1,), correct=(1,)).lookup(1.5)


def test_figures_need_no_torch():
    code = (
        "import sys, ibinn.calibration, ibinn.conformal, ibinn.metrics, ibinn.reliability, "
        "ibinn.ood.p_values; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
