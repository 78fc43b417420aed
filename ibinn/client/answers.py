"""From the wire to the library's types: protobuf messages in, `ibinn.types` out."""

from __future__ import annotations

from datetime import UTC
from typing import TypeVar

import numpy as np

from ibinn import types
from ibinn.errors import InternalServerError
from ibinn.v1 import answer_pb2 as answer
from ibinn.v1 import classification_service_pb2 as service
from ibinn.v1 import model_pb2 as model

_W = TypeVar("_W", bound=int)
_T = TypeVar("_T")

_VERDICTS = {
    answer.VERDICT_NOT_ASSESSED: types.Verdict.NOT_ASSESSED,
    answer.VERDICT_UNKNOWN: types.Verdict.UNKNOWN,
    answer.VERDICT_AMBIGUOUS: types.Verdict.AMBIGUOUS,
    answer.VERDICT_NOT_FLAGGED: types.Verdict.NOT_FLAGGED,
}
_GROUPS = {
    answer.TEST_GROUP_PIXEL: types.Group.PIXEL,
    answer.TEST_GROUP_STYLE: types.Group.STYLE,
    answer.TEST_GROUP_SEMANTIC: types.Group.SEMANTIC,
    answer.TEST_GROUP_COMBINED: types.Group.COMBINED,
}
_KINDS = {
    answer.TEST_KIND_HIGH_IS_UNUSUAL: types.TestKind.HIGH_IS_UNUSUAL,
    answer.TEST_KIND_LOW_IS_UNUSUAL: types.TestKind.LOW_IS_UNUSUAL,
    answer.TEST_KIND_TYPICALITY: types.TestKind.TYPICALITY,
    answer.TEST_KIND_TWO_TAILED: types.TestKind.TWO_TAILED,
}


def _known(table: dict[_W, _T], value: _W, name: str) -> _T:
    """A verdict this client cannot name must not be taken for another one."""
    try:
        return table[value]
    except KeyError:
        raise InternalServerError(
            f"the server's answer holds {name} number {value}, which this client does not know; "
            "update ibinn",
            code="UNKNOWN",
        ) from None


def prediction(message: answer.Classification) -> types.Prediction:
    """The answer for one image."""
    return types.Prediction(
        classes=tuple(_class_score(score) for score in message.classes),
        entropy=message.entropy_nats,
        temperature=message.temperature,
        bits_per_dim=message.bits_per_dim,
        conformal=_conformal(message.conformal_set) if message.HasField("conformal_set") else None,
        tests=tuple(_test_result(test) for test in message.tests),
        combined=(
            _test_result(message.combined_test) if message.HasField("combined_test") else None
        ),
        verdict=_known(_VERDICTS, message.verdict, "verdict"),
        reason=message.verdict_reason,
        observed_accuracy=(
            _observed_accuracy(message.observed_accuracy)
            if message.HasField("observed_accuracy")
            else None
        ),
        versions=_versions(message.versions),
        calibration_count=message.calibration_count,
        input=_input(message.input),
        receipt=types.Receipt(
            record_id=message.record_id,
            received_time=message.received_time.ToDatetime(tzinfo=UTC),
            timing=_timing(message.timing),
        ),
    )


def explanation(message: service.ExplainResponse) -> types.Explanation:
    """Heatmaps with the answer they explain."""
    side = message.image.side
    pixels = np.frombuffer(message.image.rgb, dtype=np.uint8).reshape(side, side, 3)
    return types.Explanation(
        prediction=prediction(message.classification),
        heatmaps=tuple(_heatmap(heatmap) for heatmap in message.heatmaps),
        image=pixels.copy(),
    )


def model_info(message: model.Model) -> types.ModelInfo:
    """What the server's model is."""
    limits = message.input_limits
    return types.ModelInfo(
        name=message.name,
        classes=tuple(message.classes),
        versions=_versions(message.versions),
        architecture=message.architecture,
        parameters=message.parameters,
        input_side=message.input_side,
        max_bytes=limits.max_bytes,
        max_pixels=limits.max_pixels,
        max_side=limits.max_side,
        formats=tuple(limits.formats),
        calibrated=message.calibrated,
        calibration_count=message.calibration_count,
        temperature=message.temperature,
        alpha=message.alpha,
        conformal_coverage=message.conformal_coverage,
        tests=tuple(_test_info(test) for test in message.tests),
        metrics=tuple((metric.name, metric.value) for metric in message.metrics),
        intended_use=message.intended_use,
        training_data=message.training_data,
        explainable=message.explainable,
    )


def _class_score(message: answer.ClassScore) -> types.ClassScore:
    return types.ClassScore(
        index=message.index,
        name=message.name,
        probability=message.probability,
        raw_probability=message.raw_probability,
        log_likelihood=message.log_likelihood_nats,
        p_value=message.p_value if message.HasField("p_value") else None,
    )


def _conformal(message: answer.ConformalSet) -> types.ConformalSet:
    return types.ConformalSet(
        classes=tuple(message.classes),
        target_coverage=message.target_coverage,
        measured_coverage=(
            message.measured_coverage if message.HasField("measured_coverage") else None
        ),
    )


def _test_result(message: answer.TestResult) -> types.TestResult:
    return types.TestResult(
        name=message.name,
        group=_known(_GROUPS, message.group, "test group"),
        kind=_known(_KINDS, message.kind, "test kind"),
        statistic=message.statistic,
        p_value=message.p_value if message.HasField("p_value") else None,
        p_adjusted=message.p_adjusted if message.HasField("p_adjusted") else None,
        smallest_p=message.smallest_p,
        alpha=message.alpha,
        flagged=message.flagged,
    )


def _observed_accuracy(message: answer.ObservedAccuracy) -> types.ObservedAccuracy:
    return types.ObservedAccuracy(
        accuracy=message.accuracy, low=message.low, high=message.high, count=message.count
    )


def _versions(message: answer.Versions) -> types.Versions:
    return types.Versions(
        weights=message.weights,
        calibration=message.calibration,
        policy=message.policy,
        taxonomy=message.taxonomy,
        software=message.software,
    )


def _input(message: answer.InputInfo) -> types.InputInfo:
    region = message.region
    return types.InputInfo(
        width=message.width,
        height=message.height,
        format=message.format,
        sha256_bytes=message.sha256_bytes,
        sha256_pixels=message.sha256_pixels,
        region=types.Region(
            left=region.left, top=region.top, width=region.width, height=region.height
        ),
        reductions=tuple(message.reductions),
    )


def _timing(message: answer.ServerTiming) -> types.ServerTiming:
    return types.ServerTiming(
        prepare_s=message.prepare_s,
        queue_s=message.queue_s,
        compute_s=message.compute_s,
        total_s=message.total_s,
        batch_size=message.batch_size,
    )


def _heatmap(message: answer.Heatmap) -> types.Heatmap:
    values = np.array(message.values, dtype=np.float64).reshape(message.height, message.width)
    return types.Heatmap(
        class_name=message.class_name,
        values=values,
        log_posterior=message.log_posterior,
        completeness_error=message.completeness_error,
    )


def _test_info(message: model.TestInfo) -> types.TestInfo:
    return types.TestInfo(
        name=message.name,
        group=_known(_GROUPS, message.group, "test group"),
        kind=_known(_KINDS, message.kind, "test kind"),
        alpha=message.alpha,
        smallest_p=message.smallest_p,
        miss_rates=tuple(
            (rate.set_name, rate.alpha, rate.miss_rate) for rate in message.miss_rates
        ),
        auroc=tuple((item.set_name, item.auroc) for item in message.auroc),
    )
