"""Laws of the stop button."""

from __future__ import annotations

import dataclasses

import pytest

from ibinn.types import Action
from service.models.mode import NORMAL, ModeState, apply
from tests.service.stub import ACCEPTED, NOT_CALIBRATED, UNKNOWN, make_prediction

STOPPED = ModeState(abstain_all=True, reason="lamp of scanner 3 is broken")
ANSWERS = (make_prediction(), make_prediction(decision=ACCEPTED), UNKNOWN, NOT_CALIBRATED)


@pytest.mark.parametrize("answer", ANSWERS)
def test_in_normal_mode_an_answer_is_the_very_same(answer):
    assert apply(NORMAL, answer) is answer


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_stop_button_defers_every_decision_and_changes_nothing_else(answer):
    stopped = apply(STOPPED, answer)
    assert stopped.decision.action is Action.DEFER
    assert stopped.decision.class_name is None
    assert stopped.decision.rule == "abstain_all"
    assert "lamp of scanner 3 is broken" in stopped.decision.reason
    assert dataclasses.replace(stopped, decision=answer.decision) == answer


def test_the_expected_cost_of_a_policy_stays_under_the_stop_button():
    answer = make_prediction(decision=ACCEPTED)
    assert apply(STOPPED, answer).decision.expected_cost == ACCEPTED.expected_cost
    assert apply(STOPPED, make_prediction()).decision.expected_cost is None
