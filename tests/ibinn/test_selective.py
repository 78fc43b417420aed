from __future__ import annotations

import numpy as np
import pytest

from ibinn import selective
from ibinn.errors import ConfigError, DataError
from ibinn.metrics import auroc
from ibinn.selective import risk_coverage
from ibinn.selective_bootstrap import Ranking, bootstrap, part_weights


@pytest.fixture
def ranked(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """400 confidences with ties, and failures that they tell apart a little."""
    failures = rng.random(400) < 0.3
    confidence = np.round(rng.standard_normal(400) - 0.8 * failures, 1)
    return confidence, failures


def brute_force_risks(confidence, failures, rng, rounds=4000):
    """Mean selective risk at every k / N over random orders of tied images."""
    total = np.zeros(len(confidence))
    for _ in range(rounds):
        order = np.lexsort((rng.random(len(confidence)), -confidence))
        total += np.cumsum(failures[order]) / np.arange(1, len(confidence) + 1)
    return total / rounds


def test_selective_risk_is_the_expected_value_over_orders_of_tied_images(rng):
    confidence = np.array([3, 2, 2, 2, 1, 1, 0.0])
    failures = np.array([0, 1, 0, 0, 1, 0, 1], bool)
    expected = brute_force_risks(confidence, failures, rng)
    curve = risk_coverage(confidence, failures)
    found = [curve.selective_risk(k / 7) for k in range(1, 8)]
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_constant_confidence_has_half_the_error_rate_as_augrc(ranked):
    _, failures = ranked
    curve = risk_coverage(np.zeros(len(failures)), failures)
    assert curve.augrc == pytest.approx(failures.mean() / 2)
    assert curve.aurc == pytest.approx(failures.mean())
    assert curve.selective_risk(0.123) == pytest.approx(failures.mean())


def test_a_perfect_confidence_has_the_closed_forms(ranked):
    _, failures = ranked
    e = failures.mean()
    curve = risk_coverage(-failures.astype(float), failures)
    assert curve.augrc == pytest.approx(e**2 / 2)
    assert curve.aurc == pytest.approx(e + (1 - e) * np.log(1 - e))
    assert curve.selective_risk(1 - e) == pytest.approx(0.0)
    assert curve.selective_risk(1.0) == pytest.approx(e)


def test_a_random_confidence_has_half_the_error_rate_on_average(rng):
    failures = rng.random(300) < 0.3
    areas = [risk_coverage(rng.random(300), failures).augrc for _ in range(400)]
    assert np.mean(areas) == pytest.approx(failures.mean() / 2, abs=0.002)


def test_augrc_is_the_published_function_of_error_rate_and_auroc(ranked):
    confidence, failures = ranked
    e = failures.mean()
    area = auroc(-confidence[~failures], -confidence[failures])
    found = selective.augrc(confidence, failures)
    assert found == pytest.approx(e * (1 - e) * (1 - area) + e**2 / 2)


@pytest.mark.parametrize("seed", range(20))
def test_only_the_order_of_confidences_counts(seed):
    rng = np.random.default_rng(seed)
    confidence, failures = rng.integers(0, 9, 40).astype(float), rng.random(40) < 0.4
    first = risk_coverage(confidence, failures)
    second = risk_coverage(np.exp(confidence / 3) - 7, failures)
    np.testing.assert_array_equal(first.generalised_risk, second.generalised_risk)
    shuffled = rng.permutation(40)
    third = risk_coverage(confidence[shuffled], failures[shuffled])
    assert third.augrc == pytest.approx(first.augrc)


def test_a_weight_of_two_is_the_same_image_twice(ranked, rng):
    confidence, failures = ranked
    counts = rng.integers(0, 4, len(confidence))
    weighted = risk_coverage(confidence, failures, weights=counts)
    repeated = risk_coverage(np.repeat(confidence, counts), np.repeat(failures, counts))
    assert weighted.augrc == pytest.approx(repeated.augrc)
    assert weighted.aurc == pytest.approx(repeated.aurc)
    assert weighted.selective_risk(0.37) == pytest.approx(repeated.selective_risk(0.37))


def test_images_without_weight_change_nothing(ranked):
    confidence, failures = ranked
    weights = np.ones(len(confidence))
    weights[::3] = 0
    kept = weights > 0
    with_them = risk_coverage(confidence, failures, weights=weights)
    without = risk_coverage(confidence[kept], failures[kept])
    assert with_them.augrc == pytest.approx(without.augrc)
    assert with_them.aurc == pytest.approx(without.aurc)


def test_images_that_were_not_assessed_are_accepted_last_and_tie():
    confidence = np.array([0.5, -np.inf, -np.inf, 0.9])
    failures = np.array([False, True, False, False])
    curve = risk_coverage(confidence, failures)
    assert curve.selective_risk(0.5) == 0.0
    assert curve.selective_risk(0.75) == pytest.approx(0.5 / 3)


def test_acceptance_gives_the_generalised_risk_back(ranked, rng):
    confidence, failures = ranked
    weights = rng.random(len(confidence))
    weights /= weights.sum()
    for coverage in (0.05, 0.5, 0.8, 1.0):
        accepted = selective.acceptance(confidence, coverage, weights=weights)
        assert weights @ accepted == pytest.approx(coverage)
        found = (weights * accepted) @ failures / coverage
        expected = selective.selective_risk(confidence, failures, coverage, weights=weights)
        assert found == pytest.approx(expected)


def test_parts_keep_their_shares_however_many_images_they_hold():
    parts = np.array([0, 0, 0, 1, 2, 2])
    counts = np.array([2, 0, 1, 5, 1, 1])
    shares = np.array([0.5, 0.2, 0.3])
    weights = part_weights(parts, shares, counts)
    np.testing.assert_allclose(np.bincount(parts, weights=weights), shares)
    assert weights[1] == 0.0
    assert weights[0] == 2 * weights[2]


def test_a_part_with_a_share_and_no_image_is_refused():
    with pytest.raises(DataError, match=r"parts \[1\] of the mix have a share and no image"):
        part_weights(np.array([0, 0]), np.array([0.5, 0.5]))


def two_rankings(rng, count=300, gap=0.0):
    failures = rng.random(count) < 0.3
    confidence = rng.standard_normal(count) - failures
    other = rng.standard_normal(count) - (1 + gap) * failures
    return (
        Ranking(name="one", confidence=confidence, failures=failures),
        Ranking(name="other", confidence=other, failures=failures),
    )


def drawn(rankings, *, parts=None, shares=(1.0,), sources=None, draws=200):
    count = len(rankings[0].confidence)
    return bootstrap(
        rankings,
        parts=np.zeros(count, np.int64) if parts is None else parts,
        shares=np.array(shares),
        sources=np.arange(count) if sources is None else sources,
        coverages=(0.95, 0.8),
        draws=draws,
        seed=3,
    )


def test_figures_on_the_images_as_they_are_are_those_of_the_curve(rng):
    one, other = two_rankings(rng)
    figures = drawn((one, other), draws=2)
    curve = risk_coverage(other.confidence, other.failures)
    assert figures.augrc_of("other").value == pytest.approx(curve.augrc)
    assert figures.risk_of("other", 0.8).value == pytest.approx(curve.selective_risk(0.8))


def test_a_ranking_against_itself_differs_by_nothing_in_every_draw(rng):
    one, _ = two_rankings(rng)
    twin = Ranking(name="twin", confidence=2 * one.confidence, failures=one.failures)
    difference = drawn((one, twin)).augrc_difference("one", "twin")
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)
    assert not difference.excludes_zero


def test_paired_intervals_are_narrower_than_those_of_unpaired_draws(rng):
    one, _ = two_rankings(rng)
    nudged = one.confidence + 0.05 * rng.standard_normal(len(one.confidence))
    near = Ranking(name="near", confidence=nudged, failures=one.failures)
    figures = drawn((one, near))
    paired = figures.augrc_difference("one", "near")
    alone = figures.augrc_of("one")
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(11)
    held = 0
    for _ in range(80):
        one, _ = two_rankings(rng, count=200)
        found = drawn((one,), draws=100).augrc_of("one")
        # AUROC of failures is Φ(1/√2) = 0.7602.
        truth = 0.3 * 0.7 * (1 - 0.7602) + 0.3**2 / 2
        held += found.low <= truth <= found.high
    # 76 expected; a binomial falls below 67 less than once in ten thousand times.
    assert held >= 67


def test_a_confidence_that_is_better_is_found_better(rng):
    one, better = two_rankings(rng, count=2_000, gap=1.0)
    difference = drawn((better, one)).augrc_difference("other", "one")
    assert difference.high < 0
    assert difference.excludes_zero


def test_copies_of_an_image_are_drawn_together(rng):
    one, _ = two_rankings(rng)
    doubled = Ranking(
        name="one",
        confidence=np.tile(one.confidence, 2),
        failures=np.tile(one.failures, 2),
    )
    parts = np.repeat([0, 1], 300)
    together = drawn((doubled,), parts=parts, shares=(0.5, 0.5), sources=np.tile(np.arange(300), 2))
    apart = drawn((doubled,), parts=parts, shares=(0.5, 0.5), sources=np.arange(600))
    alone = drawn((one,))
    # Copies bring no information: the draws are those of the originals.
    np.testing.assert_allclose(together.drawn_augrc, alone.drawn_augrc)
    assert together.drawn_augrc.std() > 1.2 * apart.drawn_augrc.std()


def test_strata_keep_the_number_of_images_of_every_part(rng):
    one, _ = two_rankings(rng, count=200)
    failures = np.repeat([False, True], 100)
    ranking = Ranking(name="one", confidence=one.confidence, failures=failures)
    parts = np.repeat([0, 1], 100)
    figures = drawn((ranking,), parts=parts, shares=(0.75, 0.25))
    curve = risk_coverage(
        ranking.confidence, failures, weights=part_weights(parts, np.array([0.75, 0.25]))
    )
    assert curve.at(1.0) == pytest.approx(0.25)
    assert figures.drawn_augrc.std() > 0


def test_a_thousand_draws_of_twenty_thousand_images_take_seconds(rng):
    import time

    rankings = two_rankings(rng, count=20_000)
    started = time.process_time()
    drawn(rankings, draws=100)
    assert time.process_time() - started < 2.0


def test_a_confidence_that_is_nan_is_refused():
    with pytest.raises(DataError, match="1 of 2 confidences are NaN; give an image"):
        risk_coverage(np.array([np.nan, 1.0]), np.array([True, False]))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"confidence has shape \(2,\), failures \(3,\)"):
        risk_coverage(np.zeros(2), np.zeros(3, bool))
    with pytest.raises(DataError, match=r"weights have shape \(3,\)"):
        risk_coverage(np.zeros(2), np.zeros(2, bool), weights=np.ones(3))


@pytest.mark.parametrize("coverage", [0.0, -0.1, 1.01])
def test_a_coverage_that_no_share_can_have_is_refused(coverage):
    with pytest.raises(ConfigError, match="expected a share in"):
        selective.selective_risk(np.zeros(2), np.zeros(2, bool), coverage)


def test_a_bootstrap_of_nothing_is_refused(rng):
    with pytest.raises(ConfigError, match="expected at least 1 of both"):
        drawn(two_rankings(rng), draws=0)


def test_trust_is_the_posterior_times_the_probability_of_being_known():
    p = np.array([1.0, 0.5, 1 / np.e])
    # No p-value above 1/e speaks against the image: only the prior odds remain.
    found = selective.trust_score(np.array([0.7, 0.8, 0.9]), p, unknown_odds=0.25)
    np.testing.assert_allclose(found, np.array([0.7, 0.8, 0.9]) / 1.25)
    p = np.array([0.01])
    odds = 0.25 / (-np.e * 0.01 * np.log(0.01))
    assert selective.trust_score(np.array([0.8]), p, unknown_odds=0.25) == pytest.approx(
        0.8 / (1 + odds)
    )


def test_trust_grows_with_the_posterior_and_with_the_p_value(rng):
    posterior, p = np.meshgrid(np.linspace(0.1, 1.0, 50), np.geomspace(1e-6, 1.0, 200))
    score = selective.trust_score(posterior, p)
    assert (np.diff(score, axis=1) > 0).all()
    assert (np.diff(score, axis=0) >= -1e-15).all()
    assert ((score >= 0) & (score <= posterior)).all()


def test_trust_never_exceeds_what_any_alternative_of_its_family_says():
    p = np.array([0.001, 0.02, 0.2])
    found = selective.trust_score(np.ones(3), p, unknown_odds=1.0)
    for a in np.linspace(0.01, 1.0, 100):
        known = 1 / (1 + a * p ** (a - 1))
        assert (found <= known + 1e-12).all()


def test_an_image_that_was_not_assessed_is_trusted_least():
    found = selective.trust_score(np.array([0.9, np.nan, 0.1]), np.array([np.nan, 0.5, 0.0004]))
    assert (found[:2] == -np.inf).all()
    assert np.isfinite(found[2])


def test_odds_of_nothing_are_refused():
    with pytest.raises(ConfigError, match="unknown_odds is 0; expected a number above 0"):
        selective.trust_score(np.ones(1), np.ones(1), unknown_odds=0.0)
