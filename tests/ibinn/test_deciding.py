"""A classifier under a policy: the same answers, each with what to do with it."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibinn import bundle, deciding
from ibinn.deciding import DecidingClassifier, policy_info, with_decision
from ibinn.errors import PolicyMismatchError
from ibinn.policy import Costs, Origin, Policy, Priors, decide
from ibinn.trusted import TrustedClassifier
from ibinn.types import Action, Group, Verdict
from tests.ibinn.answers import make_prediction
from tests.ibinn.bundles import CLASSES, SIDE, make_manifest, write_bundle
from tests.ibinn.policies import make_policy

K = len(CLASSES)


def digit_policy(**changes: Any) -> Policy:
    """A policy for the tiny model of the digits, at its own α and coverage."""
    found = make_manifest()
    entries: dict[str, Any] = {
        "classes": CLASSES,
        "alpha": found.alpha,
        "coverage": found.conformal_coverage,
        "costs": Costs.zero_one(K, defer=0.3, reject=0.1),
    }
    return make_policy(**(entries | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle")
    write_bundle(path)
    return path


@pytest.fixture(scope="module")
def classifier(folder: Path) -> TrustedClassifier:
    return bundle.load(folder)


@cache
def images(count: int = 6) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    shape = (count, 2 * SIDE, SIDE, 3)
    return tuple(rng.integers(0, 256, shape).astype(np.uint8))


def test_the_answer_is_the_classifiers_with_a_decision(classifier: TrustedClassifier) -> None:
    policy = digit_policy()
    decided = DecidingClassifier(classifier, policy).classify(images())
    for got, alone in zip(decided, classifier.classify(images()), strict=True):
        assert got.decision == decide(policy, alone)
        assert got.versions == dataclasses.replace(alone.versions, policy=policy.digest)
        assert dataclasses.replace(got, decision=None, versions=alone.versions) == alone


def test_every_way_to_ask_gives_the_same_decision(classifier: TrustedClassifier) -> None:
    deciding_one = DecidingClassifier(classifier, digit_policy())
    image = images()[0]
    prepared = [deciding_one.prepare(image)]
    answer = deciding_one.classify(image)
    assert deciding_one.assess(prepared) == [answer]
    assert deciding_one.explain(image).prediction == answer
    assert deciding_one.explain_prepared(prepared, ["3"])[0].prediction == answer


def test_description_names_the_policy(classifier: TrustedClassifier) -> None:
    policy = digit_policy()
    info = DecidingClassifier(classifier, policy).info
    assert info.policy == policy_info(policy)
    assert info.versions.policy == policy.digest
    assert dataclasses.replace(info, policy=None, versions=classifier.info.versions) == (
        classifier.info
    )


def test_bundle_is_loaded_at_the_stricter_significance(folder: Path) -> None:
    own = make_manifest().alpha
    for alpha, expected in ((own / 2, own), (2 * own, 2 * own)):
        found = deciding.load(folder, digit_policy(alpha=alpha))
        assert found.info.alpha == expected


def test_no_policy_makes_an_unknown_image_accepted() -> None:
    unknown = dataclasses.replace(make_prediction(verdict=Verdict.UNKNOWN), driver=Group.STYLE)
    lax = make_policy(alpha=1e-9, costs=Costs.zero_one(5, defer=1e9, reject=1e9))
    for verdict in (unknown, make_prediction(verdict=Verdict.NOT_ASSESSED)):
        decision = with_decision(lax, verdict).decision
        assert decision is not None
        assert decision.action is Action.DEFER
        assert decision.class_name is None


def test_everything_that_does_not_fit_is_listed(classifier: TrustedClassifier) -> None:
    strangers = ("cow", *CLASSES[1:])
    policy = digit_policy(
        classes=strangers, origin=Origin(weights="a" * 64, calibration="b" * 64), coverage=0.8
    )
    with pytest.raises(PolicyMismatchError) as caught:
        DecidingClassifier(classifier, policy)
    for words in (
        "does not know 0",
        "is for cow",
        "weights aaaaaaaaaaaaaaaa, the model has " + classifier.versions.weights[:16],
        "calibration bbbbbbbbbbbbbbbb",
        "0.8 coverage, the model's have 0.9",
        "ibinn policy fit",
    ):
        assert words in str(caught.value)


def test_classes_in_another_order_are_other_classes(classifier: TrustedClassifier) -> None:
    with pytest.raises(PolicyMismatchError, match="another order"):
        DecidingClassifier(classifier, digit_policy(classes=CLASSES[::-1]))


def test_policy_of_another_calibration_does_not_fit(folder: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path, seed=1)
    versions = bundle.load(folder).versions
    origin = Origin(weights=versions.weights, calibration=versions.calibration)
    policy = digit_policy(origin=origin)
    assert deciding.load(folder, policy).policy is policy
    with pytest.raises(PolicyMismatchError, match="calibration") as caught:
        deciding.load(tmp_path, policy)
    assert "weights" not in str(caught.value)


def test_costs_are_told_in_words() -> None:
    act = [[float(i != j) for j in range(5)] for i in range(5)]
    act[0][1] = 9.0
    costs = Costs(act=tuple(map(tuple, act)), defer=0.2, reject=0.05, unknown=1.0)
    shares = (0.2,) * 5
    info = policy_info(make_policy(costs=costs, priors=Priors(deployment=shares, model=shares)))
    assert info.costs == (
        "acting on a wrong class: 1 as a rule, 1 to 9",
        "the dearest mistake: dog where it is cat, 9",
        "asking a person: 0.2",
        "asking for another picture: 0.05",
    )
    assert info.priors[0] == ("cat", 0.2)
    assert (info.max_risk, info.delta, info.threshold) == (None, None, None)
