"""An answer is computed again by what may have computed it: the network, or its fast form."""

from __future__ import annotations

import dataclasses

import pytest

from ibinn import audit_replay, bundle
from ibinn.audit_compare import Comparison, Difference
from ibinn.audit_replay import Replayer
from ibinn.inference import Engine
from ibinn.samples import thumbnails
from ibinn.types import Prediction

SAMPLE = thumbnails()[0].data


def answered_by(engine: Engine) -> Prediction:
    classifier = bundle.load(bundle.embedded_path(), engine=engine)
    return classifier.assess([classifier.prepare(SAMPLE)])[0]


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where every figure lies at a threshold: the last digit makes another answer."""

    def compare(recorded: Prediction, replayed: Prediction) -> Comparison:
        same = recorded.bits_per_dim == replayed.bits_per_dim
        other = Difference(what="bits", recorded="a", replayed="b")
        return Comparison(differences=() if same else (other,), deviations=())

    monkeypatch.setattr(audit_replay, "compare", compare)


def replayer() -> Replayer:
    return Replayer(bundle=None, bundles=None, policy=None)


@pytest.mark.parametrize("engine", ["plain", "openvino"])
def test_an_answer_is_the_same_by_the_engine_that_gave_it(engine: Engine, strict: None) -> None:
    found = replayer().replay("id", answered_by(engine), SAMPLE)
    assert found.same
    assert found.engine == engine


@pytest.mark.parametrize("engine", ["plain", "openvino"])
def test_within_the_tolerances_the_network_itself_is_asked_alone(engine: Engine) -> None:
    made = replayer()
    for _ in range(2):
        found = made.replay("id", answered_by(engine), SAMPLE)
        assert found.same
        assert found.engine == "plain"
    assert list(made._loaded) == ["plain"]


def test_another_answer_is_shown_as_the_network_gives_it(strict: None) -> None:
    recorded = dataclasses.replace(answered_by("plain"), bits_per_dim=1.0)
    found = replayer().replay("id", recorded, SAMPLE)
    assert not found.same
    assert found.engine == "plain"
