import math

import numpy as np
import pytest
from scipy import stats

from ibinn.errors import AlphaTooSmallError, ConfigError, DataError, NotCalibratedError
from ibinn.ood.p_values import (
    attainable_count,
    beta_binomial_interval,
    check_alpha,
    holm,
    needed_calibration_count,
    p_values,
    reference,
    smallest_p,
    unusualness,
)
from ibinn.types import TestKind as Kind

KINDS = list(Kind)


def centre_for(kind: Kind) -> float | None:
    return 0.3 if kind is Kind.TYPICALITY else None


@pytest.mark.parametrize("kind", KINDS)
def test_p_values_of_exchangeable_images_are_uniform(kind):
    rng = np.random.default_rng(1)
    centre = centre_for(kind)
    calibration = rng.standard_normal((400, 199))
    fresh = rng.standard_normal((400, 5))
    # Fresh calibration images per repetition: the guarantee is marginal over both.
    p = np.concatenate(
        [
            p_values(x, reference(c, kind, centre=centre), kind, centre=centre)
            for c, x in zip(calibration, fresh, strict=True)
        ]
    )
    assert stats.kstest(p, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [0.02, 0.05, 0.1, 0.5])
def test_false_flags_have_the_attainable_rate(kind, alpha):
    rng = np.random.default_rng(2)
    n, repetitions = 99, 4000
    centre = centre_for(kind)
    flags = 0
    for *calibration, fresh in rng.standard_normal((repetitions, n + 1)):
        stored = reference(np.array(calibration), kind, centre=centre)
        flags += p_values(np.array([fresh]), stored, kind, centre=centre)[0] <= alpha
    rate = attainable_count(alpha, n, kind) / (n + 1)
    assert stats.binomtest(int(flags), repetitions, rate).pvalue > 1e-4
    assert rate <= alpha


@pytest.mark.parametrize("kind", KINDS)
def test_p_values_are_never_zero_and_never_above_one(kind):
    centre = centre_for(kind)
    stored = reference(np.linspace(-1, 1, 50), kind, centre=centre)
    p = p_values(np.array([-1e9, -1.0, 0.0, 0.3, 1.0, 1e9]), stored, kind, centre=centre)
    assert p.min() >= smallest_p(50, kind) > 0
    assert p.max() <= 1
    assert p.min() == smallest_p(50, kind)


def test_one_tailed_p_counts_reference_values_at_least_as_high():
    stored = reference(np.array([3.0, 1.0, 2.0, 2.0]), Kind.HIGH_IS_UNUSUAL)
    p = p_values(np.array([0.0, 2.0, 2.5, 4.0]), stored, Kind.HIGH_IS_UNUSUAL)
    np.testing.assert_array_equal(p, [5 / 5, 4 / 5, 2 / 5, 1 / 5])


def test_low_tailed_p_is_the_high_tailed_one_of_negated_values():
    rng = np.random.default_rng(3)
    ref, x = rng.integers(0, 9, 40).astype(float), rng.integers(-1, 11, 30).astype(float)
    low = p_values(x, reference(ref, Kind.LOW_IS_UNUSUAL), Kind.LOW_IS_UNUSUAL)
    high = p_values(-x, reference(-ref, Kind.HIGH_IS_UNUSUAL), Kind.HIGH_IS_UNUSUAL)
    np.testing.assert_array_equal(low, high)


def test_two_tailed_p_is_the_formula_of_the_thesis():
    rng = np.random.default_rng(4)
    ref = rng.integers(0, 20, 57).astype(float)
    x = rng.integers(-2, 23, 80).astype(float)
    expected = [
        min(1.0, 2 * min(1 + int((ref >= s).sum()), 1 + int((ref <= s).sum())) / 58) for s in x
    ]
    p = p_values(x, reference(ref, Kind.TWO_TAILED), Kind.TWO_TAILED)
    np.testing.assert_array_equal(p, expected)


def test_typicality_is_the_distance_from_the_mean_of_part_a():
    values = np.array([-100.0, -90.0, -110.0, -104.0])
    stored = reference(values, Kind.TYPICALITY, centre=-101.0)
    np.testing.assert_array_equal(stored, [1.0, 3.0, 9.0, 11.0])
    p = p_values(np.array([-101.0, -80.0]), stored, Kind.TYPICALITY, centre=-101.0)
    np.testing.assert_array_equal(p, [1.0, 1 / 5])


@pytest.mark.parametrize("kind", KINDS)
def test_a_statistic_that_is_not_finite_has_no_p_value(kind):
    centre = centre_for(kind)
    stored = reference(np.arange(9.0), kind, centre=centre)
    p = p_values(np.array([np.nan, np.inf, -np.inf, 1.0]), stored, kind, centre=centre)
    assert np.isnan(p[:3]).all()
    assert np.isfinite(p[3])


@pytest.mark.parametrize("kind", KINDS)
def test_unusualness_orders_images_as_the_p_values_do(kind):
    rng = np.random.default_rng(5)
    centre = centre_for(kind)
    stored = reference(rng.standard_normal(200), kind, centre=centre)
    x = 2 * rng.standard_normal(300)
    p = p_values(x, stored, kind, centre=centre)
    by_score = p[np.argsort(unusualness(x, stored, kind, centre=centre))]
    assert (np.diff(by_score) <= 0).all()


def test_holm_agrees_with_an_example_by_hand():
    # Ascending: 0.01·4, 0.02·3, 0.03·2, 0.04·1, each at least the one before.
    p = np.array([[0.03, 0.01, 0.04, 0.02]])
    np.testing.assert_allclose(holm(p), [[0.06, 0.04, 0.06, 0.06]])


def test_holm_keeps_the_order_and_never_lowers_a_p_value():
    p = np.random.default_rng(6).random((200, 7))
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= 1).all()
    assert (adjusted <= np.minimum(1, 7 * p)).all()
    ordered = np.take_along_axis(adjusted, np.argsort(p, axis=1), axis=1)
    assert (np.diff(ordered, axis=1) >= 0).all()


def test_holm_leaves_out_tests_that_were_not_made():
    p = np.array([[np.nan, 0.01, 0.5], [np.nan, np.nan, 0.2], [np.nan] * 3])
    np.testing.assert_allclose(
        holm(p), [[np.nan, 0.02, 0.5], [np.nan, np.nan, 0.2], [np.nan] * 3], equal_nan=True
    )


def test_holm_holds_the_family_wise_rate_of_dependent_tests():
    rng = np.random.default_rng(7)
    shared = rng.standard_normal((20_000, 1))
    z = 0.7 * shared + math.sqrt(1 - 0.49) * rng.standard_normal((20_000, 5))
    rate = float((holm(stats.norm.sf(z)) <= 0.05).any(axis=1).mean())
    assert rate <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 20_000)


@pytest.mark.parametrize(("alpha", "rates"), [(0.01, (0.0041, 0.0188)), (0.05, (0.0353, 0.0673))])
def test_false_flag_interval_is_the_published_one_for_2500_and_10000_images(alpha, rates):
    low, high = beta_binomial_interval(alpha, 2500, 10_000)
    assert (low / 10_000, high / 10_000) == pytest.approx(rates, abs=1e-12)


@pytest.mark.parametrize(("alpha", "n", "m"), [(0.05, 99, 300), (0.3, 40, 7), (0.01, 150, 50)])
def test_false_flag_interval_is_the_quantiles_of_the_beta_binomial(alpha, n, m):
    k = math.floor(alpha * (n + 1))
    law = stats.betabinom(m, k, n + 1 - k)
    low, high = beta_binomial_interval(alpha, n, m, 0.9)
    assert law.cdf(low) >= 0.05 > law.cdf(low - 1)
    assert law.cdf(high) >= 0.95 > law.cdf(high - 1)


def test_no_false_flags_are_expected_below_the_smallest_p():
    assert beta_binomial_interval(0.01, 50, 1000) == (0, 0)


def test_number_of_calibration_images_needed_is_the_smallest_that_works():
    for kind in KINDS:
        for alpha in (0.5, 0.3, 0.1, 0.07, 0.05, 0.01, 1 / 3, 0.001):
            n = needed_calibration_count(alpha, kind)
            assert smallest_p(n, kind) <= alpha
            assert n == 1 or smallest_p(n - 1, kind) > alpha


@pytest.mark.parametrize("n", [1, 9, 28, 99, 999])
@pytest.mark.parametrize("kind", KINDS)
def test_attainable_count_is_the_number_of_ranks_flagged(n, kind):
    tails = 2 if kind is Kind.TWO_TAILED else 1
    for alpha in np.arange(1, 100) / 100:
        ranks = np.arange(1, (n + 1) // tails + 1)
        flagged = int((tails * ranks / (n + 1) <= alpha).sum())
        assert attainable_count(float(alpha), n, kind) == tails * flagged


def test_alpha_below_the_smallest_p_is_refused_with_the_count_needed():
    check_alpha(0.05, 19, Kind.TYPICALITY)
    with pytest.raises(AlphaTooSmallError, match="add 8 calibration images") as caught:
        check_alpha(0.05, 11, Kind.TYPICALITY)
    assert (caught.value.calibration_count, caught.value.needed) == (11, 19)
    with pytest.raises(AlphaTooSmallError) as caught:
        check_alpha(0.05, 38, Kind.TWO_TAILED)
    assert caught.value.needed == 39


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 2.0, math.nan])
def test_alpha_that_is_no_significance_is_refused(alpha):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        check_alpha(alpha, 100, Kind.HIGH_IS_UNUSUAL)


def test_a_reference_must_be_finite_and_not_empty():
    with pytest.raises(NotCalibratedError):
        reference(np.empty(0), Kind.HIGH_IS_UNUSUAL)
    with pytest.raises(NotCalibratedError):
        p_values(np.zeros(1), np.empty(0), Kind.HIGH_IS_UNUSUAL)
    with pytest.raises(DataError, match="1 of 2"):
        reference(np.array([0.0, np.nan]), Kind.HIGH_IS_UNUSUAL)


def test_a_centre_belongs_to_typicality_alone():
    with pytest.raises(ConfigError, match="mean on calibration part A"):
        reference(np.zeros(3), Kind.TYPICALITY)
    with pytest.raises(ConfigError, match="takes None"):
        reference(np.zeros(3), Kind.TWO_TAILED, centre=0.0)
