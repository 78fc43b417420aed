import numpy as np
import pytest
from scipy import stats

from ibinn.errors import AlphaTooSmallError, ConfigError
from ibinn.ood.p_values import p_values, reference
from ibinn.ood.tolerance import (
    conditional_p_values,
    confident_alpha,
    needed_for_confidence,
    simes_envelope,
)
from ibinn.types import TestKind as Kind


def realised_rates(n: int, alpha: float, draws: int, rng: np.random.Generator) -> np.ndarray:
    """The true false-positive rate of p <= alpha, for each of many calibration sets."""
    usual = np.sort(rng.standard_normal((draws, n)), axis=1)
    k = round(alpha * (n + 1))
    # p <= k/(n + 1) exactly where the score is above the k-th largest reference value.
    return stats.norm.sf(usual[:, n - k])


@pytest.mark.parametrize(("n", "alpha"), [(299, 0.01), (500, 0.05), (2500, 0.01), (2500, 0.05)])
def test_the_realised_rate_exceeds_alpha_in_at_most_one_of_twenty_calibration_sets(n, alpha):
    rng = np.random.default_rng(0)
    draws = 2000
    exceeded = int((realised_rates(n, confident_alpha(alpha, n), draws, rng) > alpha).sum())
    assert stats.binomtest(exceeded, draws, 0.05, alternative="greater").pvalue > 1e-3
    # The usual threshold, in comparison, exceeds it about every second time.
    k = int(alpha * (n + 1))
    assert k < 5 or (realised_rates(n, k / (n + 1), draws, rng) > alpha).mean() > 0.3


def test_the_rate_in_the_test_is_that_of_the_p_values():
    rng = np.random.default_rng(1)
    n, alpha = 400, confident_alpha(0.05, 400)
    calibration = rng.standard_normal(n)
    threshold = np.sort(calibration)[n - round(alpha * (n + 1))]
    fresh = rng.standard_normal(5000)
    stored = reference(calibration, Kind.HIGH_IS_UNUSUAL)
    flagged = p_values(fresh, stored, Kind.HIGH_IS_UNUSUAL) <= alpha
    np.testing.assert_array_equal(flagged, fresh > threshold)


@pytest.mark.parametrize("n", [60, 300, 999, 2500])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_the_significance_is_the_largest_rank_that_keeps_the_confidence(n, confidence):
    for alpha in (0.01, 0.05, 0.2):
        if n < needed_for_confidence(alpha, confidence=confidence):
            continue
        k = round(confident_alpha(alpha, n, confidence=confidence) * (n + 1))
        assert k >= 1
        assert stats.beta.cdf(alpha, k, n + 1 - k) >= confidence
        assert stats.beta.cdf(alpha, k + 1, n - k) < confidence


def test_it_is_refused_with_the_number_of_images_that_it_needs():
    needed = needed_for_confidence(0.01)
    assert 1 - 0.99**needed >= 0.95 > 1 - 0.99 ** (needed - 1)
    assert confident_alpha(0.01, needed) == 1 / (needed + 1)
    with pytest.raises(AlphaTooSmallError, match=r"with confidence 0\.95: 298 .*299 are needed"):
        confident_alpha(0.01, needed - 1)


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="significance α is 0"):
        confident_alpha(0.0, 100)
    with pytest.raises(ConfigError, match="confidence is 1"):
        confident_alpha(0.1, 100, confidence=1.0)
    with pytest.raises(ConfigError, match="no envelope for 1"):
        simes_envelope(1)


@pytest.mark.parametrize(("n", "confidence"), [(50, 0.9), (301, 0.95)])
def test_the_envelope_holds_at_every_rank_at_once(n, confidence):
    rng = np.random.default_rng(2)
    draws = 4000
    rates = np.sort(rng.random((draws, n)), axis=1)  # of p <= i/(n + 1), in rank order
    held = int((rates <= simes_envelope(n, confidence=confidence)).all(axis=1).sum())
    assert stats.binomtest(held, draws, confidence, alternative="less").pvalue > 1e-3
    assert held / draws < confidence + 0.05  # nearly as sharp as it can be


def test_conditional_p_values_keep_the_order_and_are_never_below_the_raw_ones():
    n = 999
    raw = np.append(np.arange(1, n + 2) / (n + 1), np.nan)
    found = conditional_p_values(raw, n)
    assert np.isnan(found[-1])
    assert (found[:-1] >= raw[:-1]).all()
    assert (np.diff(found[:-1]) >= 0).all()
    assert found[-2] == 1.0
