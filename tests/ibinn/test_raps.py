import math

import numpy as np
import pytest
from scipy import stats

from ibinn.conformal import coverage_rank
from ibinn.decoding import pixels_sha256
from ibinn.errors import ConfigError, DataError
from ibinn.raps import (
    RapsConfig,
    RapsFit,
    choose_raps,
    fit_raps,
    raps_report,
    raps_scores,
    raps_set,
    u_of,
)

CONFIGS = [
    RapsConfig(k_reg=1, penalty=0.0),
    RapsConfig(k_reg=2, penalty=0.01),
    RapsConfig(k_reg=1, penalty=0.3),
    RapsConfig(k_reg=50, penalty=0.1),
]


def predictions(
    n: int, rng: np.random.Generator, *, spread: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Miscalibrated posteriors, labels and u; a smaller spread is an easier problem."""
    truth = rng.dirichlet(np.full(6, spread), n)
    labels = (truth.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    sharp = truth**1.5 + 1e-6
    return sharp / sharp.sum(axis=1, keepdims=True), labels, rng.random(n)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("target", [0.8, 0.9, 0.95])
def test_coverage_of_a_fresh_image_is_exactly_that_of_its_rank(config, target):
    rng = np.random.default_rng(1)
    n, repetitions = 39, 2000
    covered = 0
    for _ in range(repetitions):
        p, y, u = predictions(n + 1, rng)
        quantile = fit_raps(p[:n], y[:n], u[:n], coverage=target, config=config)
        covered += raps_set(p[n:], u[n:], quantile=quantile, config=config)[0, y[n]]
    rate = coverage_rank(target, n) / (n + 1)
    assert stats.binomtest(int(covered), repetitions, rate).pvalue > 1e-4


def test_coverage_lies_in_the_beta_binomial_interval_and_no_set_is_empty():
    rng = np.random.default_rng(0)
    config = CONFIGS[1]
    quantile = fit_raps(*predictions(1000, rng), coverage=0.9, config=config)
    assert quantile > 0
    p, y, u = predictions(8000, rng)
    fit = RapsFit(coverage=0.9, quantile=quantile, config=config)
    report = raps_report(p, y, u, fit=fit, calibration_count=1000, not_flagged=u > 0.5)
    assert report.right
    # A model that is right less often than asked needs no filling of sets.
    assert report.overall.covered == report.within_threshold
    assert sum(s.coverage.count for s in report.by_size) == 8000
    assert report.by_size[0].smallest == 1
    assert report.by_size[-1].largest == 6
    assert report.not_flagged is not None


def test_a_model_right_more_often_than_asked_covers_more_but_its_scores_obey_the_law():
    rng = np.random.default_rng(3)
    config = CONFIGS[0]
    fit = RapsFit(
        coverage=0.6,
        quantile=fit_raps(*predictions(500, rng, spread=0.05), coverage=0.6, config=config),
        config=config,
    )
    assert fit.quantile < 0
    p, y, u = predictions(4000, rng, spread=0.05)
    report = raps_report(p, y, u, fit=fit, calibration_count=500)
    assert report.right
    assert report.overall.mean_size == 1.0
    assert report.overall.covered == int((p.argmax(axis=1) == y).sum()) > report.law_high


@pytest.mark.parametrize("config", CONFIGS)
def test_scores_ascend_with_rank_so_a_set_is_the_most_probable_classes(config):
    rng = np.random.default_rng(4)
    p, _, u = predictions(400, rng)
    scores = raps_scores(p, u, config)
    by_rank = np.take_along_axis(scores, np.argsort(-p, axis=1, kind="stable"), axis=1)
    assert (np.diff(by_rank, axis=1) >= 0).all()
    assert (by_rank[:, 0] < 0).all()
    sets = raps_set(p, u, quantile=0.7, config=config)
    members = np.take_along_axis(sets, np.argsort(-p, axis=1, kind="stable"), axis=1)
    assert (np.diff(members.astype(int), axis=1) <= 0).all()
    assert members[:, 0].all()


def test_scores_are_the_published_ones_from_the_second_rank_on():
    p = np.array([[0.1, 0.6, 0.3]])
    scores = raps_scores(p, np.array([0.5]), RapsConfig(k_reg=1, penalty=0.2))
    np.testing.assert_allclose(scores, [[0.9 + 0.05 + 0.4, -0.5, 0.6 + 0.15 + 0.2]])


def test_sets_grow_with_the_quantile():
    p, _, u = predictions(300, np.random.default_rng(5))
    small = raps_set(p, u, quantile=0.5, config=CONFIGS[1])
    large = raps_set(p, u, quantile=0.9, config=CONFIGS[1])
    assert (large >= small).all()
    assert large.sum() > small.sum()


def test_u_is_uniform_over_images_and_the_same_for_the_same_image():
    rng = np.random.default_rng(6)
    images = rng.integers(0, 255, (800, 2, 2, 3), dtype=np.uint8)
    u = np.array([u_of(pixels_sha256(image)) for image in images])
    assert u_of(pixels_sha256(images[7].copy())) == u[7]
    assert (u >= 0).all()
    assert (u < 1).all()
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    assert u_of("f" * 64) < 1.0


def test_too_few_calibration_images_put_every_class_in_the_set():
    p, y, u = predictions(18, np.random.default_rng(7))
    quantile = fit_raps(p, y, u, coverage=0.95, config=CONFIGS[0])
    assert quantile == math.inf
    assert raps_set(p, u, quantile=quantile, config=CONFIGS[0]).all()


def test_the_choice_gives_sets_no_larger_than_without_a_penalty():
    rng = np.random.default_rng(8)
    p, y, u = predictions(1500, rng)
    fresh = predictions(4000, rng)
    chosen = choose_raps(p, y, u, coverage=0.9)
    assert chosen == choose_raps(p, y, u, coverage=0.9)

    def size(config: RapsConfig) -> float:
        quantile = fit_raps(p, y, u, coverage=0.9, config=config)
        sets = raps_set(fresh[0], fresh[2], quantile=quantile, config=config)
        return float(sets.sum(axis=1).mean())

    assert size(chosen) <= size(RapsConfig(k_reg=1, penalty=0.0)) + 0.02


def test_arguments_out_of_range_are_refused():
    p, y, u = predictions(20, np.random.default_rng(9))
    with pytest.raises(ConfigError, match="k_reg=0"):
        RapsConfig(k_reg=0, penalty=0.1)
    with pytest.raises(ConfigError, match="expected a sha256"):
        u_of("abc")
    with pytest.raises(ConfigError, match="expected a sha256"):
        u_of("x" * 64)
    with pytest.raises(DataError, match="u has shape"):
        raps_scores(p, u[:3], CONFIGS[0])
    with pytest.raises(ConfigError, match="quantile is NaN"):
        raps_set(p, u, quantile=math.nan, config=CONFIGS[0])
    with pytest.raises(ConfigError, match="no λ"):
        choose_raps(p, y, u, coverage=0.9, penalties=())
