"""Learn-then-Test: validity, monotonicity, and refusals that say what is needed."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibinn.errors import AlphaTooSmallError, ConfigError, DataError, NotCertifiableError
from ibinn.policy import Costs, decide_many
from ibinn.policy.fitting import fit, in_use, model_answers, unfitted
from ibinn.policy.risk import STARTS, candidates, certify, fewest_without_error
from ibinn.policy.terms import Terms
from tests.ibinn.policies import K, draw_scores, make_facts, make_policy

few = settings(deadline=None, max_examples=40)

Answered = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]
"""Probability, wrong, eligible, as `certify` takes them."""

TERMS = Terms(costs=Costs.zero_one(K, defer=0.5, reject=0.1))


def draw(count: int, rng: np.random.Generator, *, power: float = 1.0):
    """Confidences and errors; at power 1 the error rate is 1 - confidence."""
    confidence = 1 - rng.beta(0.35, 2.0, count)
    wrong = rng.random(count) < (1 - confidence) ** power
    return confidence, wrong, np.ones(count, dtype=bool)


@pytest.mark.parametrize("power", [1.0, 0.7])
def test_the_risk_is_exceeded_in_at_most_delta_of_the_sets(power: float) -> None:
    rng = np.random.default_rng(1)
    confidence, wrong, _ = draw(200_000, rng, power=power)
    draws, exceeded, delta = 300, 0, 0.1
    for _ in range(draws):
        try:
            found = certify(*draw(800, rng, power=power), max_risk=0.05, delta=delta)
        except NotCertifiableError:
            continue
        exceeded += wrong[confidence >= found.threshold].mean() > 0.05
    # Three standard errors of a share of δ.
    assert exceeded / draws <= delta + 3 * math.sqrt(delta * (1 - delta) / draws)


@few
@given(
    seed=st.integers(0, 10_000),
    risks=st.tuples(st.floats(0.005, 0.5), st.floats(0.005, 0.5)),
    deltas=st.tuples(st.floats(0.001, 0.5), st.floats(0.001, 0.5)),
)
def test_a_stricter_risk_or_delta_never_accepts_more(seed, risks, deltas) -> None:
    drawn = draw(300, np.random.default_rng(seed))

    def threshold(risk: float, delta: float) -> float:
        try:
            return certify(*drawn, max_risk=risk, delta=delta).threshold
        except NotCertifiableError:
            return math.inf

    strict = threshold(min(risks), min(deltas))
    assert strict >= threshold(max(risks), min(deltas))
    assert strict >= threshold(min(risks), max(deltas))


def test_the_levels_dealt_out_add_up_to_delta() -> None:
    assert sum(share for _, share in STARTS) == pytest.approx(1.0)
    assert set(dict(STARTS)) <= set(candidates().tolist())
    assert (np.diff(candidates()) < 0).all()
    assert candidates()[-1] == 0.0


def test_the_p_value_is_the_exact_binomial_tail() -> None:
    wrong = np.arange(40) < 2
    found = certify(np.full(40, 0.6), wrong, np.ones(40, bool), max_risk=0.3, delta=0.9)
    expected = sum(math.comb(40, k) * 0.3**k * 0.7 ** (40 - k) for k in range(3))
    assert found.p_value == pytest.approx(expected)


@few
@given(risk=st.floats(0.001, 0.9), level=st.floats(1e-6, 0.9))
def test_the_fewest_images_without_error_are_the_fewest(risk: float, level: float) -> None:
    count = fewest_without_error(risk, level)
    assert (1 - risk) ** count <= level * (1 + 1e-9)
    assert (1 - risk) ** (count - 1) > level * (1 - 1e-9)


def test_too_few_images_are_refused_with_the_number_needed() -> None:
    confidence = np.full(60, 0.995)
    right = np.zeros(60, dtype=bool)
    with pytest.raises(NotCertifiableError, match="60 images") as caught:
        certify(confidence, right, ~right, max_risk=0.02, delta=0.05)
    needed = caught.value.needed
    assert needed is not None
    assert needed > 60
    enough = np.full(needed, 0.995)
    certify(enough, np.zeros(needed, bool), np.ones(needed, bool), max_risk=0.02, delta=0.05)


def test_the_number_needed_is_more_than_there_are_and_enough_where_some_are_wrong() -> None:
    def answered(count: int, errors: int) -> Answered:
        return np.full(count, 0.995), np.arange(count) < errors, np.ones(count, bool)

    with pytest.raises(NotCertifiableError, match=r"about \d+ are needed .* add \d+,") as caught:
        certify(*answered(300, 2), max_risk=0.02, delta=0.05)
    needed = caught.value.needed
    assert needed is not None
    assert needed > 300
    assert str(needed - 300) in str(caught.value)
    certify(*answered(needed, math.ceil(needed * 2 / 300)), max_risk=0.02, delta=0.05)


def test_the_number_needed_grows_with_what_is_left_out_by_other_rules() -> None:
    confidence = np.full(60, 0.995)
    right = np.zeros(60, dtype=bool)
    half = np.arange(60) % 2 == 0
    errors = []
    for eligible in (~right, half):
        with pytest.raises(NotCertifiableError) as caught:
            certify(confidence, right, eligible, max_risk=0.02, delta=0.05)
        errors.append(caught.value.needed)
    assert errors[1] == pytest.approx(2 * errors[0], abs=2)


def test_a_model_that_is_wrong_too_often_is_told_that_images_do_not_help() -> None:
    rng = np.random.default_rng(0)
    wrong = rng.random(500) < 0.3
    with pytest.raises(NotCertifiableError, match="more images alone do not help") as caught:
        certify(np.full(500, 0.99), wrong, np.ones(500, bool), max_risk=0.02, delta=0.05)
    assert caught.value.needed is None


def test_nothing_that_other_rules_accept_is_refused() -> None:
    with pytest.raises(NotCertifiableError, match="the other rules accept none"):
        certify(np.full(9, 0.9), np.zeros(9, bool), np.zeros(9, bool), max_risk=0.1, delta=0.1)


@pytest.mark.parametrize(
    ("risk", "delta"), [(0, 0.1), (1, 0.1), (0.1, 0), (0.1, 1), (math.nan, 0.1)]
)
def test_impossible_risks_and_deltas_are_refused(risk: float, delta: float) -> None:
    with pytest.raises(ConfigError, match="expected a number between 0 and 1"):
        certify(*draw(50, np.random.default_rng(0)), max_risk=risk, delta=delta)


def test_a_fitted_policy_accepts_what_its_certificate_counted() -> None:
    scores, facts = draw_scores(3000), make_facts()
    policy = fit(TERMS, scores, facts, max_risk=0.05, delta=0.05, name="fitted")
    made = decide_many(policy, model_answers(scores, facts))
    certificate = policy.certificate
    assert certificate is not None
    assert policy.origin is not None
    assert policy.origin.weights == facts.weights
    assert made.accepted.sum() == certificate.accepted
    assert (made.accepted & (made.classes != scores.labels)).sum() == certificate.errors
    assert certificate.p_value <= certificate.level <= 0.05


def test_equal_class_shares_fit_the_same_policy_as_none() -> None:
    scores = draw_scores(3000)
    balanced = scores.subset(
        np.concatenate([np.flatnonzero(scores.labels == k)[:300] for k in range(K)])
    )
    same = Terms(costs=TERMS.costs, priors=(1 / K,) * K)
    plain, stated = (
        fit(t, balanced, make_facts(), max_risk=0.1, delta=0.1, name="p") for t in (TERMS, same)
    )
    assert plain.certificate == stated.certificate


def test_images_in_use_have_the_stated_class_shares() -> None:
    scores = draw_scores(20_000)
    priors = (0.5, 0.2, 0.2, 0.1, 0.0)
    terms = Terms(costs=TERMS.costs, priors=priors)
    policy = unfitted(terms, make_facts(), name="shares")
    used = in_use(scores, policy, seed=0)
    counts = np.bincount(used.labels, minlength=K)
    assert counts[4] == 0
    spread = 5 * np.sqrt(np.array(priors) * (1 - np.array(priors)) * len(used))
    assert (np.abs(counts - np.array(priors) * len(used)) <= spread + 1).all()
    np.testing.assert_array_equal(used.labels, in_use(scores, policy, seed=0).labels)


def test_a_stated_class_without_images_is_refused() -> None:
    scores = draw_scores(500)
    without = scores.subset(scores.labels != 2)
    terms = Terms(costs=TERMS.costs, priors=(0.2,) * K)
    with pytest.raises(DataError, match="no held-out images of 'frog'"):
        fit(terms, without, make_facts(), max_risk=0.1, delta=0.1, name="p")


def test_an_alpha_below_the_model_s_is_refused() -> None:
    with pytest.raises(ConfigError, match="can only be stricter"):
        unfitted(Terms(costs=TERMS.costs, alpha=0.005), make_facts(), name="weak")


def test_class_wise_significances_need_their_calibration_images() -> None:
    terms = Terms(costs=TERMS.costs, class_alphas=(0.05, None, None, None, None))
    facts = make_facts(class_counts=(18, 400, 400, 400, 400))
    with pytest.raises(AlphaTooSmallError) as caught:
        unfitted(terms, facts, name="few")
    assert caught.value.needed == 19
    assert unfitted(terms, make_facts(class_counts=(19,) + (0,) * 4), name="enough").class_alphas


def test_class_wise_significances_need_class_wise_scores() -> None:
    scores = draw_scores(500)
    object.__setattr__(scores, "class_p", None)
    terms = Terms(costs=TERMS.costs, class_alphas=(0.05,) * K)
    with pytest.raises(DataError, match="lack it"):
        fit(terms, scores, make_facts(), max_risk=0.1, delta=0.1, name="p")


def test_a_policy_s_digest_names_its_content() -> None:
    one = make_policy()
    assert one.digest == make_policy().digest
    assert len(one.digest) == 64
    assert one.digest != make_policy(alpha=0.02).digest
    assert one.digest != make_policy(costs=Costs.zero_one(K, defer=0.25, reject=0.1)).digest
    assert make_policy(alpha=np.float64(0.01)).digest == one.digest
