"""What a policy decides, as laws over random answers and costs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibinn.errors import ConfigError, PolicyMismatchError
from ibinn.policy import (
    RULES,
    Certificate,
    Costs,
    Origin,
    Policy,
    Priors,
    Rule,
    decide,
    decide_many,
    reweighted,
)
from ibinn.types import Action, ConformalSet, Group, Prediction, Verdict
from tests.ibinn.answers import VERSIONS, make_prediction
from tests.ibinn.policies import CLASSES, K, draw_answers, make_policy

few = settings(deadline=None, max_examples=40)

ANSWERS = draw_answers(300)
ORIGIN = Origin(weights=VERSIONS.weights, calibration=VERSIONS.calibration)

cost = st.floats(0.0, 10.0, allow_subnormal=False)
row = st.tuples(*[cost] * K)
costs = st.builds(Costs, act=st.tuples(*[row] * K), defer=cost, reject=cost, unknown=cost)
positive = st.floats(0.01, 1.0)


def shares(draws: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.array(draws) / sum(draws))


def certified(threshold: float) -> Certificate:
    return Certificate(
        max_risk=0.02,
        delta=0.05,
        threshold=threshold,
        images=500,
        accepted=300,
        errors=1,
        p_value=0.01,
        level=0.05,
    )


def fired(policy: Policy) -> np.ndarray:
    return decide_many(policy, ANSWERS).rules


@few
@given(costs=costs, scale=st.sampled_from([0.125, 0.5, 3.0, 7.3, 1000.0]))
def test_scaled_costs_decide_the_same(costs: Costs, scale: float) -> None:
    scaled = Costs(
        act=tuple(tuple(scale * c for c in entries) for entries in costs.act),
        defer=scale * costs.defer,
        reject=scale * costs.reject,
        unknown=scale * costs.unknown,
    )
    one = decide_many(make_policy(costs=costs), ANSWERS)
    other = decide_many(make_policy(costs=scaled), ANSWERS)
    np.testing.assert_array_equal(one.rules, other.rules)
    np.testing.assert_array_equal(one.classes, other.classes)
    np.testing.assert_allclose(scale * one.expected_costs, other.expected_costs)


@few
@given(draws=st.tuples(*[positive] * K), costs=costs)
def test_the_model_s_own_class_shares_change_nothing(draws: tuple[float, ...], costs: Costs):
    same = Priors(deployment=shares(draws), model=shares(draws))
    np.testing.assert_array_equal(
        fired(make_policy(costs=costs, priors=same)), fired(make_policy(costs=costs))
    )


@few
@given(draws=st.tuples(*[positive] * K), other=st.tuples(*[positive] * K))
def test_reweighting_is_bayes_rule_with_other_shares(draws, other) -> None:
    priors = Priors(deployment=shares(draws), model=shares(other))
    likelihood = ANSWERS.probabilities / np.array(priors.model)
    joint = likelihood * np.array(priors.deployment)
    found = reweighted(make_policy(priors=priors), ANSWERS.probabilities)
    np.testing.assert_allclose(found, joint / joint.sum(axis=1, keepdims=True), atol=1e-12)


@few
@given(threshold=st.floats(0.0, 1.0), more=st.floats(0.0, 1.0), costs=costs)
def test_a_higher_threshold_never_accepts_more(threshold: float, more: float, costs: Costs) -> None:
    low, high = sorted((threshold, more))
    accepted = [
        decide_many(
            make_policy(costs=costs, origin=ORIGIN, certificate=certified(t)), ANSWERS
        ).accepted
        for t in (low, high)
    ]
    assert not (accepted[1] & ~accepted[0]).any()


@few
@given(alpha=st.floats(0.001, 0.5), more=st.floats(0.001, 0.5), costs=costs)
def test_a_larger_alpha_never_accepts_more(alpha: float, more: float, costs: Costs) -> None:
    low, high = (
        decide_many(make_policy(alpha=a, costs=costs), ANSWERS) for a in sorted((alpha, more))
    )
    assert not (high.accepted & ~low.accepted).any()


@few
@given(defer=st.floats(0.0, 1.0), more=st.floats(0.0, 1.0))
def test_dearer_deferring_never_accepts_less(defer: float, more: float) -> None:
    low, high = (
        decide_many(make_policy(costs=Costs.zero_one(K, defer=d, reject=0.0)), ANSWERS).accepted
        for d in sorted((defer, more))
    )
    assert not (low & ~high).any()


@few
@given(costs=costs, alpha=st.floats(1e-6, 0.9))
def test_what_the_model_flags_is_never_accepted_whatever_the_costs(costs, alpha) -> None:
    made = decide_many(make_policy(costs=costs, alpha=alpha), ANSWERS)
    assert not (made.accepted & (ANSWERS.unknown | ~ANSWERS.assessed)).any()


@few
@given(costs=costs)
def test_every_answer_has_exactly_one_action(costs: Costs) -> None:
    made = decide_many(make_policy(costs=costs), ANSWERS)
    assert (made.accepted.astype(int) + made.deferred + made.rejected == 1).all()


@few
@given(costs=costs)
def test_the_class_acted_on_has_the_least_expected_cost(costs: Costs) -> None:
    made = decide_many(make_policy(costs=costs), ANSWERS)
    expected = ANSWERS.probabilities @ np.array(costs.act)
    np.testing.assert_allclose(made.expected_costs, expected.min(axis=1), rtol=1e-9, atol=1e-300)


def test_zero_one_costs_act_on_the_most_probable_class() -> None:
    made = decide_many(make_policy(), ANSWERS)
    np.testing.assert_array_equal(made.classes, ANSWERS.probabilities.argmax(axis=1))


def test_a_posterior_that_is_not_finite_defers() -> None:
    p = ANSWERS.probabilities.copy()
    p[3, 1] = np.nan
    made = decide_many(make_policy(), dataclasses.replace(ANSWERS, probabilities=p))
    assert RULES[made.rules[3]] is Rule.NOT_ASSESSED
    assert made.deferred[3]


def test_all_probability_on_a_class_that_never_comes_defers() -> None:
    p = np.zeros_like(ANSWERS.probabilities)
    p[:, 0] = 1.0
    priors = Priors(deployment=(0.0, 0.25, 0.25, 0.25, 0.25), model=(0.2,) * K)
    made = decide_many(make_policy(priors=priors), dataclasses.replace(ANSWERS, probabilities=p))
    assert not made.accepted.any()


def with_set(prediction: Prediction, *classes: str) -> Prediction:
    found = ConformalSet(classes=classes, target_coverage=0.95, measured_coverage=None)
    return dataclasses.replace(prediction, conformal=found)


PLAIN = make_prediction()
"""cat 0.62, dog 0.25, frog 0.08, ship 0.03, truck 0.02; nothing flagged."""

CHEAP_DOG = Costs(
    act=tuple(
        tuple(0.0 if i == j else 0.05 if {i, j} == {0, 1} else 1.0 for j in range(K))
        for i in range(K)
    ),
    defer=0.3,
    reject=0.1,
    unknown=1.0,
)
"""Cat for dog and dog for cat cost little."""


@pytest.mark.parametrize(
    ("prediction", "policy", "rule", "action"),
    [
        (PLAIN, make_policy(), Rule.ACCEPTED, Action.ACCEPT),
        (
            make_prediction(verdict=Verdict.NOT_ASSESSED),
            make_policy(),
            Rule.NOT_ASSESSED,
            Action.DEFER,
        ),
        (make_prediction(verdict=Verdict.UNKNOWN), make_policy(), Rule.UNKNOWN, Action.DEFER),
        (
            dataclasses.replace(make_prediction(verdict=Verdict.UNKNOWN), driver=Group.PIXEL),
            make_policy(),
            Rule.UNKNOWN_PICTURE,
            Action.REJECT_INPUT,
        ),
        (
            dataclasses.replace(make_prediction(verdict=Verdict.UNKNOWN), driver=Group.SEMANTIC),
            make_policy(),
            Rule.UNKNOWN,
            Action.DEFER,
        ),
        (
            dataclasses.replace(make_prediction(verdict=Verdict.UNKNOWN), driver=Group.PIXEL),
            make_policy(costs=Costs.zero_one(K, defer=0.5, reject=0.6)),
            Rule.UNKNOWN,
            Action.DEFER,
        ),
        (PLAIN, make_policy(alpha=0.5), Rule.UNKNOWN, Action.DEFER),
        (
            PLAIN,
            make_policy(class_alphas=(0.4, None, None, None, None)),
            Rule.CLASS_UNUSUAL,
            Action.DEFER,
        ),
        (
            PLAIN,
            make_policy(class_alphas=(None, 0.4, 0.4, 0.4, 0.4)),
            Rule.ACCEPTED,
            Action.ACCEPT,
        ),
        (make_prediction(verdict=Verdict.AMBIGUOUS), make_policy(), Rule.AMBIGUOUS, Action.DEFER),
        (
            make_prediction(verdict=Verdict.AMBIGUOUS),
            make_policy(costs=CHEAP_DOG),
            Rule.ACCEPTED,
            Action.ACCEPT,
        ),
        (
            with_set(make_prediction(verdict=Verdict.AMBIGUOUS), "cat", "dog", "frog"),
            make_policy(costs=CHEAP_DOG),
            Rule.AMBIGUOUS,
            Action.DEFER,
        ),
        (
            PLAIN,
            make_policy(costs=Costs.zero_one(K, defer=0.3, reject=0.1)),
            Rule.COST,
            Action.DEFER,
        ),
        (
            PLAIN,
            make_policy(origin=ORIGIN, certificate=certified(0.7)),
            Rule.RISK,
            Action.DEFER,
        ),
        (
            PLAIN,
            make_policy(origin=ORIGIN, certificate=certified(0.6)),
            Rule.ACCEPTED,
            Action.ACCEPT,
        ),
    ],
)
def test_each_rule_fires_where_the_table_says(prediction, policy, rule, action) -> None:
    decision = decide(policy, prediction)
    assert (decision.rule, decision.action) == (rule.value, action)
    assert (decision.class_name is not None) == (action is Action.ACCEPT)
    assert decision.reason.endswith(".")
    assert "nan" not in decision.reason


def test_other_class_shares_can_change_the_class_acted_on() -> None:
    priors = Priors(deployment=(0.1, 0.6, 0.1, 0.1, 0.1), model=(0.2,) * K)
    assert decide(make_policy(priors=priors), PLAIN).class_name == "dog"


def test_one_answer_and_many_are_decided_alike() -> None:
    policy = make_policy()
    made = decide_many(policy, ANSWERS)
    for i in range(40):
        order = np.argsort(-ANSWERS.probabilities[i], kind="stable")
        verdict = (
            Verdict.UNKNOWN
            if ANSWERS.unknown[i]
            else Verdict.AMBIGUOUS
            if ANSWERS.members[i].sum() >= 2
            else Verdict.NOT_FLAGGED
        )
        base = make_prediction(verdict=verdict)
        prediction = dataclasses.replace(
            with_set(base, *(CLASSES[k] for k in order if ANSWERS.members[i, k])),
            classes=tuple(
                dataclasses.replace(base.classes[k], probability=float(ANSWERS.probabilities[i, k]))
                for k in order
            ),
            combined=dataclasses.replace(base.combined, p_value=float(ANSWERS.combined_p[i])),
            driver=Group.PIXEL if ANSWERS.picture[i] else Group.STYLE,
        )
        decision = decide(policy, prediction)
        assert decision.rule == RULES[made.rules[i]].value
        assert decision.expected_cost == pytest.approx(made.expected_costs[i])


def test_a_policy_for_another_model_is_refused() -> None:
    other = Origin(weights="00" * 32, calibration=VERSIONS.calibration)
    with pytest.raises(PolicyMismatchError, match="weights 0000000000000000"):
        decide(make_policy(origin=other), PLAIN)
    other = Origin(weights=VERSIONS.weights, calibration="00" * 32)
    with pytest.raises(PolicyMismatchError, match="calibration 0000000000000000"):
        decide(make_policy(origin=other), PLAIN)
    costs = Costs.zero_one(2, defer=0.5, reject=0.1)
    with pytest.raises(PolicyMismatchError, match="the model has cat, dog, frog"):
        decide(make_policy(classes=("cat", "dog"), costs=costs), PLAIN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 0.0}, "alpha is 0"),
        ({"classes": ("cat",) * K}, "repeat a name"),
        ({"class_alphas": (0.05,)}, "class-wise alphas are for 1 classes"),
        ({"class_alphas": (1.5,) * K}, "class-wise alpha is 1.5"),
        ({"costs": Costs.zero_one(3, defer=1, reject=1)}, "costs are for 3 classes"),
        ({"certificate": certified(0.5)}, "names no model"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        make_policy(**changes)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_impossible_costs_are_refused_by_name(value: float) -> None:
    with pytest.raises(ConfigError, match="cost defer"):
        Costs.zero_one(3, defer=value, reject=0.1)
    with pytest.raises(ConfigError, match=r"cost act\[0\]\[1\]"):
        Costs(act=((0.0, value), (1.0, 0.0)), defer=1, reject=1, unknown=1)
