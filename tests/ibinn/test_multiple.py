import numpy as np
import pytest
from scipy import stats

from ibinn.errors import ConfigError, NotCalibratedError
from ibinn.ood.multiple import benjamini_hochberg, bh_adjusted, fewest_found
from ibinn.ood.p_values import p_values, reference
from ibinn.types import TestKind as Kind


def test_adjusted_values_are_those_of_scipy():
    p = np.random.default_rng(0).random(300) ** 2
    np.testing.assert_allclose(bh_adjusted(p), stats.false_discovery_control(p))


def test_the_images_named_are_those_of_the_step_up_procedure():
    p = np.random.default_rng(1).random(200) ** 3
    ascending = np.sort(p)
    passed = np.flatnonzero(ascending <= 0.1 * np.arange(1, 201) / 200)
    np.testing.assert_array_equal(benjamini_hochberg(p, q=0.1), p <= ascending[passed[-1]])


def test_images_that_were_not_assessed_are_never_named_and_do_not_count():
    p = np.array([np.nan, 0.02, 0.9, np.nan])
    np.testing.assert_allclose(bh_adjusted(p), [np.nan, 0.04, 0.9, np.nan])
    np.testing.assert_array_equal(benjamini_hochberg(p, q=0.05), [False, True, False, False])


@pytest.mark.parametrize("unknown", [0, 10, 50])
def test_the_false_discovery_rate_holds_with_one_shared_calibration_set(unknown):
    rng = np.random.default_rng(2)
    q, count, shares = 0.1, 100, []
    for _ in range(1000):
        stored = reference(rng.standard_normal(400), Kind.HIGH_IS_UNUSUAL)
        scores = rng.standard_normal(count)
        scores[:unknown] += 3.5
        named = benjamini_hochberg(p_values(scores, stored, Kind.HIGH_IS_UNUSUAL), q=q)
        shares.append(named[unknown:].sum() / max(1, named.sum()))
    rate, error = np.mean(shares), np.std(shares) / np.sqrt(len(shares))
    assert rate <= q * (count - unknown) / count + 4 * error
    if unknown:
        assert rate > 0.4 * q * (count - unknown) / count  # it is not merely too careful


def test_fewer_images_than_can_be_named_never_are():
    n, count, q = 99, 500, 0.1
    least = fewest_found(count, n, q=q)
    for extreme in (least - 1, least):
        p = np.full(count, 0.9)
        p[:extreme] = 1 / (n + 1)
        assert benjamini_hochberg(p, q=q).sum() == (extreme if extreme >= least else 0)


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="q is 1"):
        benjamini_hochberg(np.array([0.1]), q=1.0)
    with pytest.raises(ConfigError, match="q is 0"):
        fewest_found(10, 10, q=0.0)
    with pytest.raises(NotCalibratedError):
        fewest_found(10, 0, q=0.1)
