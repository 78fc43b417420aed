import numpy as np
import pytest

from ibinn.conformal import coverage_rank, coverage_report, fit_quantile, prediction_set
from ibinn.errors import ConfigError, DataError


def predictions(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Miscalibrated posteriors with labels: coverage must hold all the same."""
    truth = rng.dirichlet(np.full(6, 0.3), n)
    labels = (truth.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    sharp = truth**1.5 + 1e-6
    return sharp / sharp.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("target", [0.8, 0.95, 0.99])
def test_coverage_lies_in_its_beta_binomial_interval(target):
    rng = np.random.default_rng(0)
    quantile = fit_quantile(*predictions(1000, rng), target)
    report = coverage_report(
        *predictions(5000, rng), quantile=quantile, target=target, calibration_count=1000
    )
    assert report.right
    assert report.overall.rate == pytest.approx(target, abs=0.04)
    assert report.overall.covered >= report.within_threshold


def test_coverage_is_at_least_the_target_on_average():
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(200):
        quantile = fit_quantile(*predictions(50, rng), 0.9)
        p, y = predictions(200, rng)
        rates.append(prediction_set(p, quantile)[np.arange(200), y].mean())
    assert np.mean(rates) > 0.9 - 4 * np.std(rates) / np.sqrt(200)


def test_quantile_is_the_kth_smallest_score():
    p = np.stack([np.arange(1, 20) / 20, 1 - np.arange(1, 20) / 20], axis=1)
    # Scores 0.95, 0.90, ..., 0.05; k = ceil(0.9 · 20) = 18.
    assert fit_quantile(p, np.zeros(19, int), 0.9) == pytest.approx(0.90)
    assert coverage_rank(0.95, 19) == 19
    assert coverage_rank(0.7, 9) == 7


def test_too_few_calibration_images_put_every_class_in_the_set():
    p, y = predictions(18, np.random.default_rng(2))
    quantile = fit_quantile(p, y, 0.95)
    assert quantile == 1.0
    assert prediction_set(p, quantile).all()


def test_no_set_is_empty():
    p = np.array([[0.4, 0.35, 0.25], [0.98, 0.01, 0.01]])
    np.testing.assert_array_equal(prediction_set(p, 0.0).sum(axis=1), [1, 1])
    np.testing.assert_array_equal(prediction_set(p, 0.65)[0], [True, True, False])


def test_float32_posteriors_give_the_sets_of_their_float64_values():
    p, _ = predictions(500, np.random.default_rng(3))
    single = p.astype(np.float32)
    quantile = fit_quantile(single, p.argmax(axis=1), 0.9)
    np.testing.assert_array_equal(
        prediction_set(single, quantile), prediction_set(single.astype(np.float64), quantile)
    )


def test_coverage_is_split_by_class_and_by_flag():
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]])
    y = np.array([0, 1, 1, 1])
    report = coverage_report(
        p,
        y,
        quantile=0.65,
        target=0.5,
        calibration_count=100,
        not_flagged=np.array([True, True, False, False]),
    )
    assert (report.overall.covered, report.overall.count) == (3, 4)
    assert [(c.covered, c.count) for c in report.per_class] == [(1, 1), (2, 3)]
    assert report.not_flagged is not None
    assert (report.not_flagged.covered, report.not_flagged.mean_size) == (2, 1.5)


def test_a_class_without_images_has_no_coverage():
    p = np.array([[0.9, 0.1]])
    report = coverage_report(p, np.array([0]), quantile=0.5, target=0.5, calibration_count=9)
    assert report.per_class[1].count == 0
    assert report.per_class[1].rate is None


def test_coverage_arguments_out_of_range_are_refused():
    p, y = predictions(20, np.random.default_rng(4))
    with pytest.raises(ConfigError, match="coverage is 1"):
        fit_quantile(p, y, 1.0)
    with pytest.raises(ConfigError, match=r"quantile is 1\.2"):
        prediction_set(p, 1.2)
    with pytest.raises(DataError, match="mask has shape"):
        coverage_report(
            p, y, quantile=0.5, target=0.5, calibration_count=9, not_flagged=np.ones(3, bool)
        )
