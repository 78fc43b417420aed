"""The stop button: what the server does with every answer, whatever model gave it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ibinn.types import Action, Decision, Prediction

ABSTAIN_ALL = "abstain_all"
"""The rule that stands in a decision while the stop button is pressed; no policy has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeState:
    """What operators told the server to do with every answer.

    Attributes:
        abstain_all: Every decision is DEFER.
        reason: Why, in the operator's words; may be empty.
    """

    abstain_all: bool = False
    reason: str = ""


NORMAL = ModeState()


def apply(state: ModeState, prediction: Prediction) -> Prediction:
    """The answer under the mode: itself, or with a decision to defer; nothing else changes.

    An answer without a policy's decision gets one as well, so that no caller can take it for one
    to act on.
    """
    if not state.abstain_all:
        return prediction
    made = prediction.decision
    decision = Decision(
        action=Action.DEFER,
        class_name=None,
        rule=ABSTAIN_ALL,
        reason="An operator told the server to leave every decision to people"
        + (f": {state.reason}" if state.reason else "."),
        expected_cost=None if made is None else made.expected_cost,
    )
    return dataclasses.replace(prediction, decision=decision)
