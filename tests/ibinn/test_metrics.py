import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from ibinn.errors import ConfigError, DataError
from ibinn.metrics import (
    accuracy,
    auroc,
    auroc_and_misses,
    brier,
    clopper_pearson,
    geometric_mean,
    nll,
    overconfidence,
)
from ibinn.ood.p_values import p_values, reference, unusualness
from ibinn.types import TestKind as Kind

POSTERIORS = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]])
LABELS = np.array([0, 2])


def test_nll_brier_and_accuracy_agree_with_values_by_hand():
    assert nll(POSTERIORS, LABELS) == pytest.approx(-(math.log(0.7) + math.log(0.2)) / 2)
    # (0.09 + 0.04 + 0.01) and (0.25 + 0.09 + 0.64)
    assert brier(POSTERIORS, LABELS) == pytest.approx((0.14 + 0.98) / 2)
    assert accuracy(POSTERIORS, LABELS) == 0.5


def test_nll_is_infinite_where_the_truth_was_excluded():
    assert nll(np.array([[1.0, 0.0]]), np.array([1])) == math.inf


def test_auroc_agrees_with_scikit_learn_ties_included():
    rng = np.random.default_rng(0)
    inside = rng.integers(0, 20, 300).astype(float)
    outside = rng.integers(5, 25, 200).astype(float)
    truth = np.repeat([0, 1], [300, 200])
    expected = roc_auc_score(truth, np.concatenate([inside, outside]))
    assert auroc(inside, outside) == pytest.approx(expected, abs=1e-12)


def test_auroc_of_a_set_against_itself_is_one_half():
    scores = np.random.default_rng(1).standard_normal(50)
    assert auroc(scores, scores) == pytest.approx(0.5)


def test_auroc_refuses_nan_and_empty_sets():
    with pytest.raises(DataError, match="1 NaN"):
        auroc(np.array([0.0]), np.array([np.nan]))
    with pytest.raises(DataError, match="in-distribution"):
        auroc(np.empty(0), np.array([1.0]))


def test_clopper_pearson_agrees_with_scipy():
    for successes, count in ((0, 7), (3, 7), (7, 7), (41, 1000)):
        interval = stats.binomtest(successes, count).proportion_ci(0.95, "exact")
        expected = pytest.approx((interval.low, interval.high))
        assert clopper_pearson(successes, count) == expected
    with pytest.raises(ConfigError, match="5 successes of 4"):
        clopper_pearson(5, 4)


def test_overconfidence_is_undefined_without_confident_predictions():
    result = overconfidence(POSTERIORS, LABELS)
    assert (result.count, result.value, result.low, result.high) == (0, None, None, None)


def test_overconfidence_is_the_error_rate_over_three_per_mille():
    p = np.array([[0.997, 0.003]] * 500 + [[0.99, 0.01]] * 100)
    y = np.array([1] * 3 + [0] * 497 + [1] * 100)
    result = overconfidence(p, y)
    assert (result.count, result.errors) == (500, 3)
    assert result.value == pytest.approx(3 / 500 / 0.003)
    assert result.low is not None
    assert result.high is not None
    assert result.low < result.value < result.high


@pytest.mark.parametrize("kind", list(Kind))
def test_detection_report_counts_misses_and_holds_false_flags_in_their_interval(kind):
    rng = np.random.default_rng(2)
    centre = 0.0 if kind is Kind.TYPICALITY else None
    stored = reference(rng.standard_normal(500), kind, centre=centre)
    shift = -2.0 if kind is Kind.LOW_IS_UNUSUAL else 2.0
    inside, outside = rng.standard_normal(2000), shift + rng.standard_normal(1000)
    p_in = p_values(inside, stored, kind, centre=centre)
    p_out = p_values(outside, stored, kind, centre=centre)
    report = auroc_and_misses(
        in_scores=unusualness(inside, stored, kind, centre=centre),
        out_scores=unusualness(outside, stored, kind, centre=centre),
        in_p=p_in,
        out_p=p_out,
        calibration_count=500,
        kind=kind,
        alphas=(0.01, 0.05, 0.2),
    )
    assert 0.75 < report.auroc < 1
    assert report.not_assessed == 0
    assert [at.alpha for at in report.at] == [0.01, 0.05, 0.2]
    misses = [at.miss_rate for at in report.at]
    assert misses == sorted(misses, reverse=True)
    for at in report.at:
        assert at.missed == int((p_out > at.alpha).sum())
        assert at.flags == int((p_in <= at.alpha).sum())
        assert at.miss_low <= at.miss_rate <= at.miss_high
        assert at.flags_right


def test_an_image_without_a_p_value_is_neither_flagged_nor_missed():
    report = auroc_and_misses(
        in_scores=np.array([0.0, np.nan]),
        out_scores=np.array([np.nan, 1.0, 2.0]),
        in_p=np.array([0.5, np.nan]),
        out_p=np.array([np.nan, 0.02, 0.2]),
        calibration_count=99,
        kind=Kind.HIGH_IS_UNUSUAL,
        alphas=(0.05,),
    )
    (at,) = report.at
    assert (report.auroc, report.not_assessed, at.missed, at.flags) == (1.0, 2, 1, 0)


def test_detection_report_refuses_scores_that_do_not_match_p_values():
    with pytest.raises(DataError, match="out-of-distribution p-values"):
        auroc_and_misses(
            in_scores=np.zeros(2),
            out_scores=np.zeros(3),
            in_p=np.ones(2),
            out_p=np.ones(2),
            calibration_count=9,
            kind=Kind.HIGH_IS_UNUSUAL,
        )


def test_published_average_of_aurocs_is_a_geometric_mean():
    assert geometric_mean([78.80, 67.30, 77.19, 54.59]) == pytest.approx(68.75, abs=0.05)
    with pytest.raises(ConfigError, match="no geometric mean"):
        geometric_mean([])
