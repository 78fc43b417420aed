"""Names that the wire and the library have for the same things."""

from __future__ import annotations

from typing import TypeVar

from ibinn import records, serving, types
from ibinn.errors import InternalServerError
from ibinn.v1 import answer_pb2 as answer
from ibinn.v1 import model_pb2 as model
from ibinn.v1 import record_pb2 as record

_W = TypeVar("_W", bound=int)
_T = TypeVar("_T")

VERDICTS = {
    answer.VERDICT_NOT_ASSESSED: types.Verdict.NOT_ASSESSED,
    answer.VERDICT_UNKNOWN: types.Verdict.UNKNOWN,
    answer.VERDICT_AMBIGUOUS: types.Verdict.AMBIGUOUS,
    answer.VERDICT_NOT_FLAGGED: types.Verdict.NOT_FLAGGED,
}
GROUPS = {
    answer.TEST_GROUP_PIXEL: types.Group.PIXEL,
    answer.TEST_GROUP_STYLE: types.Group.STYLE,
    answer.TEST_GROUP_SEMANTIC: types.Group.SEMANTIC,
    answer.TEST_GROUP_COMBINED: types.Group.COMBINED,
}
KINDS = {
    answer.TEST_KIND_HIGH_IS_UNUSUAL: types.TestKind.HIGH_IS_UNUSUAL,
    answer.TEST_KIND_LOW_IS_UNUSUAL: types.TestKind.LOW_IS_UNUSUAL,
    answer.TEST_KIND_TYPICALITY: types.TestKind.TYPICALITY,
    answer.TEST_KIND_TWO_TAILED: types.TestKind.TWO_TAILED,
}
ACTIONS = {
    answer.ACTION_ACCEPT: types.Action.ACCEPT,
    answer.ACTION_DEFER: types.Action.DEFER,
    answer.ACTION_REJECT_INPUT: types.Action.REJECT_INPUT,
}
SET_METHODS = {
    answer.SET_METHOD_UNSPECIFIED: types.SetMethod.PLAIN,
    answer.SET_METHOD_PLAIN: types.SetMethod.PLAIN,
    answer.SET_METHOD_RAPS: types.SetMethod.RAPS,
}
GUARANTEES: dict[int, types.Guarantee | None] = {
    answer.GUARANTEE_UNSPECIFIED: None,
    answer.GUARANTEE_HELD: types.Guarantee.HELD,
    answer.GUARANTEE_SUSPENDED: types.Guarantee.SUSPENDED,
}
ROLES = {
    model.MODEL_ROLE_DEFAULT: serving.ModelRole.DEFAULT,
    model.MODEL_ROLE_PREVIOUS: serving.ModelRole.PREVIOUS,
    model.MODEL_ROLE_SHADOW: serving.ModelRole.SHADOW,
    model.MODEL_ROLE_PINNED: serving.ModelRole.PINNED,
}
MODES = {
    model.MODE_NORMAL: serving.Mode.NORMAL,
    model.MODE_ABSTAIN_ALL: serving.Mode.ABSTAIN_ALL,
}

ENTRY_KINDS = {
    record.ENTRY_KIND_ANSWER: records.EntryKind.ANSWER,
    record.ENTRY_KIND_FEEDBACK: records.EntryKind.FEEDBACK,
    record.ENTRY_KIND_ERASURE: records.EntryKind.ERASURE,
    record.ENTRY_KIND_GUARANTEE: records.EntryKind.GUARANTEE,
}
IMAGES_KEPT: dict[int, records.ImageKept | None] = {
    record.IMAGE_KEPT_UNSPECIFIED: None,
    record.IMAGE_KEPT_ALL: records.ImageKept.ALL,
    record.IMAGE_KEPT_FLAGGED: records.ImageKept.FLAGGED,
    record.IMAGE_KEPT_SAMPLED: records.ImageKept.SAMPLED,
}
IMAGE_STATES = {
    record.IMAGE_STATE_NOT_KEPT: records.ImageState.NOT_KEPT,
    record.IMAGE_STATE_KEPT: records.ImageState.KEPT,
    record.IMAGE_STATE_ERASED: records.ImageState.ERASED,
    record.IMAGE_STATE_EXPIRED: records.ImageState.EXPIRED,
}
OUTCOMES = {
    record.FEEDBACK_OUTCOME_FIRST: records.FeedbackOutcome.FIRST,
    record.FEEDBACK_OUTCOME_REPEATED: records.FeedbackOutcome.REPEATED,
    record.FEEDBACK_OUTCOME_CONFIRMED: records.FeedbackOutcome.CONFIRMED,
    record.FEEDBACK_OUTCOME_CORRECTED: records.FeedbackOutcome.CORRECTED,
    record.FEEDBACK_OUTCOME_CONFLICTING: records.FeedbackOutcome.CONFLICTING,
}
REACTIONS: dict[int, records.Reaction | None] = {
    record.REACTION_UNSPECIFIED: None,
    record.REACTION_FOLLOWED: records.Reaction.FOLLOWED,
    record.REACTION_OVERRULED: records.Reaction.OVERRULED,
    record.REACTION_NOT_USED: records.Reaction.NOT_USED,
}
SELECTIONS: dict[int, records.Selection | None] = {
    record.SELECTION_UNSPECIFIED: None,
    record.SELECTION_ALL: records.Selection.ALL,
    record.SELECTION_RANDOM: records.Selection.RANDOM,
    record.SELECTION_FLAGGED: records.Selection.FLAGGED,
    record.SELECTION_UNCERTAIN: records.Selection.UNCERTAIN,
    record.SELECTION_COMPLAINT: records.Selection.COMPLAINT,
    record.SELECTION_OTHER: records.Selection.OTHER,
}


def known(table: dict[_W, _T], value: _W, name: str) -> _T:
    """The library's name for a number of the wire.

    Raises:
        InternalServerError: There is none; what a client cannot name must not be taken for
            something else.
    """
    try:
        return table[value]
    except KeyError:
        raise InternalServerError(
            f"the server's answer holds {name} number {value}, which this client does not know; "
            "update ibinn",
            code="UNKNOWN",
        ) from None


def versions(message: answer.Versions) -> types.Versions:
    """Where an answer or a model comes from."""
    return types.Versions(
        weights=message.weights,
        calibration=message.calibration,
        policy=message.policy,
        taxonomy=message.taxonomy,
        software=message.software,
    )
