"""Names that the library and the wire have for the same things."""

from __future__ import annotations

from ibinn import types
from ibinn.v1 import answer_pb2 as answer
from ibinn.v1 import classification_service_pb2 as service

VERDICTS = {
    types.Verdict.NOT_ASSESSED: answer.VERDICT_NOT_ASSESSED,
    types.Verdict.UNKNOWN: answer.VERDICT_UNKNOWN,
    types.Verdict.AMBIGUOUS: answer.VERDICT_AMBIGUOUS,
    types.Verdict.NOT_FLAGGED: answer.VERDICT_NOT_FLAGGED,
}
GROUPS = {
    types.Group.PIXEL: answer.TEST_GROUP_PIXEL,
    types.Group.STYLE: answer.TEST_GROUP_STYLE,
    types.Group.SEMANTIC: answer.TEST_GROUP_SEMANTIC,
    types.Group.COMBINED: answer.TEST_GROUP_COMBINED,
}
KINDS = {
    types.TestKind.HIGH_IS_UNUSUAL: answer.TEST_KIND_HIGH_IS_UNUSUAL,
    types.TestKind.LOW_IS_UNUSUAL: answer.TEST_KIND_LOW_IS_UNUSUAL,
    types.TestKind.TYPICALITY: answer.TEST_KIND_TYPICALITY,
    types.TestKind.TWO_TAILED: answer.TEST_KIND_TWO_TAILED,
}
ACTIONS = {
    types.Action.ACCEPT: answer.ACTION_ACCEPT,
    types.Action.DEFER: answer.ACTION_DEFER,
    types.Action.REJECT_INPUT: answer.ACTION_REJECT_INPUT,
}
SET_METHODS = {
    types.SetMethod.PLAIN: answer.SET_METHOD_PLAIN,
    types.SetMethod.RAPS: answer.SET_METHOD_RAPS,
}
GUARANTEES = {
    types.Guarantee.HELD: answer.GUARANTEE_HELD,
    types.Guarantee.SUSPENDED: answer.GUARANTEE_SUSPENDED,
}
HEATMAP_SIZES = {
    service.HEATMAP_SIZE_UNSPECIFIED: types.HeatmapSize.GRID,
    service.HEATMAP_SIZE_GRID: types.HeatmapSize.GRID,
    service.HEATMAP_SIZE_IMAGE: types.HeatmapSize.IMAGE,
}


def versions(found: types.Versions) -> answer.Versions:
    """Where an answer or a model comes from."""
    return answer.Versions(
        weights=found.weights,
        calibration=found.calibration,
        policy=found.policy,
        taxonomy=found.taxonomy,
        software=found.software,
    )
