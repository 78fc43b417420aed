from dataclasses import replace

import numpy as np
import pytest

from ibinn.drift import accuracy
from ibinn.drift.accuracy import AccuracyEstimate, Method, fit
from ibinn.drift.by_confidence import density_ratio
from ibinn.drift.transport import rounded_counts, transport_costs
from ibinn.errors import ConfigError, DataError
from tests.ibinn.drift import replays
from tests.ibinn.drift.made import CLASSES, observations, reference
from tests.ibinn.drift.measured import errors_when_weighted, estimate_errors, windows


@pytest.fixture(scope="module")
def errors():
    """Absolute errors of every method over the windows of five corruptions at five severities."""
    return estimate_errors()


def test_the_shipped_estimate_errs_at_most_half_as_much_as_mean_confidence(errors):
    mean = {method: values.mean() for method, values in errors.items()}
    assert len(errors[Method.PLAIN]) == 96
    assert mean[accuracy.SHIPPED] <= 0.5 * mean[Method.PLAIN]
    assert mean[Method.COTT] < mean[Method.ATC] < mean[Method.PLAIN]


def test_where_only_harder_images_come_the_shipped_estimate_stays_right():
    held = replays.calibration()
    weights = np.exp(-4 * replays.scored("clean").probabilities.max(axis=1))
    both = [fit(held, method=method) for method in (accuracy.SHIPPED, Method.COTT)]
    shipped, other = errors_when_weighted(both, weights)
    assert abs(shipped) < 0.03
    assert other < -0.1


def test_on_clean_images_every_estimate_is_right():
    held = replays.calibration()
    for method in Method:
        estimator = fit(held, method=method)
        off = [estimator.estimate(w).accuracy - truth for w, truth in windows("clean", held)]
        assert abs(np.mean(off)) < 0.015


@pytest.mark.parametrize("method", list(Method))
def test_no_estimate_moves_when_the_labels_are_permuted(method):
    # Concept drift: the same images, other truths. The accuracy falls, the estimate stays.
    held = replays.calibration()
    cell = replays.scored("clean").subset(np.arange(1_000))
    permuted = replace(cell, labels=(cell.labels + 1) % 10)
    estimator = fit(held, method=method)
    before, after = (estimator.estimate(c.against(held)) for c in (cell, permuted))
    assert after == before
    assert cell.correct.mean() > 0.75
    assert permuted.correct.mean() < 0.15


@pytest.mark.parametrize("method", list(Method))
def test_every_method_counts_what_was_accepted(method):
    seen = observations(60)
    found = fit(reference(), method=method).estimate(seen)
    assert found.count == 60
    assert found.accepted == seen.accepted.sum()
    assert found.coverage == pytest.approx(seen.accepted.mean())
    assert 0 <= found.expected_correct <= found.accepted
    assert found.accuracy == found.expected_correct / found.accepted


@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("count", [0, 5])
def test_where_nothing_was_accepted_there_is_no_accuracy(method, count):
    seen = observations(count)
    seen.accepted[:] = False
    found = fit(reference(), method=method).estimate(seen)
    assert found == AccuracyEstimate(expected_correct=0.0, accepted=0, count=count)
    assert found.accuracy is None
    assert found.coverage == (0.0 if count else None)


@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("count", [1, 2, 30])
def test_small_windows_are_estimated(method, count):
    seen = observations(count)
    seen.accepted[:] = True
    assert 0 <= fit(reference(), method=method).estimate(seen).accuracy <= 1


def test_a_large_window_is_split():
    seen = observations(1_300)
    seen.accepted[:] = True
    estimator = fit(reference())
    parts = [estimator.estimate(seen.subset(part)) for part in np.array_split(np.arange(1_300), 3)]
    together = sum(part.expected_correct for part in parts)
    assert estimator.estimate(seen).expected_correct == pytest.approx(together)


def test_plain_is_the_mean_confidence():
    seen = observations(50)
    found = fit(reference(), method=Method.PLAIN).estimate(seen)
    assert found.accuracy == pytest.approx(seen.confidence[seen.accepted].mean())


def test_cbpe_on_the_calibration_images_is_their_accuracy():
    held = reference()
    found = fit(held, method=Method.CBPE).estimate(held.observed)
    assert found.accuracy == pytest.approx(held.correct[held.observed.accepted].mean())


def test_weights_make_calibration_images_resemble_the_recent_ones(rng):
    then, now = rng.normal(size=(4_000, 2)), rng.normal([0.7, -0.4], size=(2_000, 2))
    weights = density_ratio(then, now)
    assert (weights > 0).all()
    assert weights.mean() == pytest.approx(1.0)
    np.testing.assert_allclose(np.average(then, axis=0, weights=weights), [0.7, -0.4], atol=0.1)


def test_a_constant_feature_breaks_no_weights(rng):
    same = np.ones((50, 2))
    np.testing.assert_allclose(density_ratio(same, same[:20]), 1.0)


def test_the_cheapest_labels_have_the_balance_asked_for(rng):
    p = rng.dirichlet(np.ones(3), size=40)
    costs = transport_costs(p, np.array([0.2, 0.3, 0.5]))
    labels = np.abs((1 - p) - costs[:, None]).argmin(axis=1)
    assert np.bincount(labels).tolist() == [8, 12, 20]


def test_labels_cost_no_more_than_by_any_other_assignment(rng):
    p = rng.dirichlet(np.ones(3), size=30)
    labels = np.repeat(np.arange(3), 10)
    cheapest = transport_costs(p, np.full(3, 1 / 3)).sum()
    for _ in range(200):
        assert cheapest <= (1 - p[np.arange(30), rng.permutation(labels)]).sum() + 1e-9


def test_counts_add_up():
    for count in range(20):
        counts = rounded_counts(np.array([0.5, 0.25, 0.15, 0.1]), count)
        assert counts.sum() == count
        assert counts.min() >= 0


def test_balance_that_is_told_corrects_for_other_shares():
    held = replays.calibration()
    halved = np.where(np.arange(10) < 5, 0.5, 1.0)
    told, untold = fit(held, priors=halved / 7.5), fit(held, method=accuracy.SHIPPED)
    weights = halved[replays.scored("clean").labels]
    told_off, untold_off = errors_when_weighted([told, untold], weights)
    assert abs(told_off) < 0.03
    assert untold_off < told_off - 0.02


@pytest.mark.parametrize(
    ("priors", "words"),
    [
        (np.full(3, 1 / 3), "expected 4 shares"),
        (np.full(CLASSES, 0.3), "add up to"),
        (np.array([-0.5, 0.5, 0.5, 0.5]), "at least 0"),
    ],
)
def test_shares_that_are_none_are_refused(priors, words):
    with pytest.raises(ConfigError, match=words):
        fit(reference(), priors=priors)


def test_a_share_of_a_class_that_calibration_lacks_is_refused():
    held = reference()
    without = replace(held, labels=np.where(held.labels == 3, 0, held.labels))
    with pytest.raises(ConfigError, match="class 3"):
        fit(without, priors=np.full(CLASSES, 0.25))


def test_without_accepted_calibration_images_there_is_nothing_to_learn_from():
    held = reference()
    none = replace(held, observed=replace(held.observed, accepted=np.zeros(len(held), bool)))
    with pytest.raises(DataError, match="accepts more"):
        fit(none)


@pytest.mark.parametrize("method", [Method.ATC, Method.COT, Method.COTT])
def test_methods_that_need_posteriors_say_so(method):
    seen = replace(observations(10), probabilities=None)
    with pytest.raises(DataError, match="posteriors"):
        fit(reference(), method=method).estimate(seen)
