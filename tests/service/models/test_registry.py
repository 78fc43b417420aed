"""Laws of the models in memory: who answers, who is found by which digits, who goes."""

from __future__ import annotations

import dataclasses
import gc
import timeit
import weakref

import pytest

from ibinn.errors import NotServingError, UnknownModelError
from ibinn.serving import ModelRole
from service.models.registry import Models
from service.models.served import Served
from tests.service.stub import INFO, StubClassifier


def make_served(weights: str, *, calibration: str = "b" * 64, bundle: str = "") -> Served:
    versions = dataclasses.replace(
        INFO.versions, weights=weights.ljust(64, "0"), calibration=calibration
    )
    info = dataclasses.replace(INFO, versions=versions)
    return Served.of(StubClassifier(info=info), bundle=bundle)


A, B, C, D = (make_served(digit * 8, bundle=digit) for digit in "abcd")


def loaded(**roles) -> Models:
    models = Models()
    models.arrange(**roles)
    return models


def test_no_model_answers_before_one_is_loaded():
    for selector in ("", "aaaaaaaa"):
        with pytest.raises(NotServingError):
            Models().resolve(selector)


def test_a_call_that_names_none_gets_the_default_model():
    assert loaded(default=A, previous=B).resolve("") is A


@pytest.mark.parametrize("served", [A, B, C, D])
def test_every_loaded_model_is_found_by_its_first_digits_and_by_all(served):
    models = loaded(default=A, previous=B, shadow=C, pinned=[D])
    assert models.resolve(served.digest[:8]) is served
    assert models.resolve(served.digest) is served


def test_an_unknown_model_is_refused_with_what_is_loaded():
    with pytest.raises(UnknownModelError, match=r"'eeeeeeee'.*aaaaaaaa0000 \(default, bundle a\)"):
        loaded(default=A, previous=B).resolve("eeeeeeee")


def test_digits_of_two_models_are_refused_not_guessed():
    near = make_served("aaaaaaaa1")
    with pytest.raises(UnknownModelError, match=r"more than one.*more digits"):
        loaded(default=A, pinned=[near]).resolve("aaaaaaaa")
    assert loaded(default=A, pinned=[near]).resolve("aaaaaaaa1") is near


def test_of_two_calibrations_of_the_same_weights_the_default_one_is_meant():
    other = make_served("aaaaaaaa", calibration="c" * 64)
    assert loaded(default=A, previous=other).resolve("aaaaaaaa") is A
    assert loaded(default=other, previous=A).resolve("aaaaaaaa") is other
    assert loaded(default=B, previous=other, pinned=[A]).resolve("aaaaaaaa") is other


def test_a_model_is_listed_once_with_its_first_role():
    models = loaded(default=A, previous=B, shadow=B, pinned=[A, C])
    assert models.served() == (
        (A, ModelRole.DEFAULT),
        (B, ModelRole.PREVIOUS),
        (C, ModelRole.PINNED),
    )


def test_pinned_models_stand_in_the_order_in_which_they_were_asked():
    models = loaded(default=A, pinned=[B, C, D])
    models.resolve("bbbbbbbb")
    assert models.pinned == (C, D, B)
    models.arrange(default=A, pinned=[B, C])
    assert models.pinned == (C, B)
    models.arrange(default=A, pinned=[D, B, C])
    assert models.pinned == (C, B, D)


def test_a_new_default_model_leaves_the_old_one_to_return_to():
    models = Models()
    models.set_default(A)
    models.set_default(B)
    assert models.served() == ((B, ModelRole.DEFAULT), (A, ModelRole.PREVIOUS))
    models.set_default(B)
    assert models.previous is A


def test_a_model_that_is_arranged_away_leaves_memory():
    models = Models()
    models.arrange(default=A, previous=make_served("ee"), pinned=[make_served("ff")])
    gone = [weakref.ref(served.classifier) for served, _ in models.served()[1:]]
    models.arrange(default=A)
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_finding_the_default_model_costs_nanoseconds():
    models = loaded(default=A, previous=B)
    seconds = min(timeit.repeat(lambda: models.resolve(""), number=10_000, repeat=5)) / 10_000
    assert seconds < 2e-6, seconds
