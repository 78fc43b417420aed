"""From the wire to the library's types: answers and explanations."""

from __future__ import annotations

from datetime import UTC

import numpy as np

from ibinn import types
from ibinn.client.names import (
    ACTIONS,
    GROUPS,
    GUARANTEES,
    KINDS,
    SET_METHODS,
    VERDICTS,
    known,
    versions,
)
from ibinn.v1 import answer_pb2 as answer
from ibinn.v1 import classification_service_pb2 as service


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
        verdict=known(VERDICTS, message.verdict, "verdict"),
        reason=message.verdict_reason,
        observed_accuracy=(
            _observed_accuracy(message.observed_accuracy)
            if message.HasField("observed_accuracy")
            else None
        ),
        versions=versions(message.versions),
        calibration_count=message.calibration_count,
        input=_input(message.input),
        receipt=types.Receipt(
            record_id=message.record_id,
            received_time=message.received_time.ToDatetime(tzinfo=UTC),
            timing=_timing(message.timing),
            request_id=message.request_id,
            group_id=message.group_id,
            token=message.receipt,
        ),
        decision=_decision(message.decision) if message.HasField("decision") else None,
        driver=known(GROUPS, message.driver, "test group") if message.driver else None,
        conformal_sets=tuple(_conformal(found) for found in message.conformal_sets),
        guarantee=known(GUARANTEES, message.guarantee, "guarantee"),
        guarantee_reason=message.guarantee_reason,
    )


def explanation(message: service.ExplainResponse) -> types.Explanation:
    """Heatmaps with the answer they explain."""
    side = message.image.side
    pixels = np.frombuffer(message.image.rgb, dtype=np.uint8).reshape(side, side, 3)
    return types.Explanation(
        prediction=prediction(message.classification),
        heatmaps=tuple(_heatmap(heatmap) for heatmap in message.heatmaps),
        image=pixels.copy(),
        contrast=_contrast(message.contrast) if message.HasField("contrast") else None,
        nearby=tuple(
            types.NearbyClass(
                class_name=nearby.class_name, distance=nearby.distance, overlap=nearby.overlap
            )
            for nearby in message.nearby
        ),
        receptive_field_px=(
            message.receptive_field_px if message.HasField("receptive_field_px") else None
        ),
        decision_space=(
            _decision_space(message.decision_space) if message.HasField("decision_space") else None
        ),
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
        method=known(SET_METHODS, message.method, "set method"),
    )


def _decision(message: answer.Decision) -> types.Decision:
    return types.Decision(
        action=known(ACTIONS, message.action, "action"),
        class_name=message.class_name if message.HasField("class_name") else None,
        rule=message.rule,
        reason=message.reason,
        expected_cost=message.expected_cost if message.HasField("expected_cost") else None,
    )


def _test_result(message: answer.TestResult) -> types.TestResult:
    return types.TestResult(
        name=message.name,
        group=known(GROUPS, message.group, "test group"),
        kind=known(KINDS, message.kind, "test kind"),
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


def _contrast(message: answer.Contrast) -> types.Contrast:
    values = np.array(message.values, dtype=np.float64).reshape(message.height, message.width)
    return types.Contrast(
        class_name=message.class_name,
        versus=message.versus,
        values=values,
        log_odds=message.log_odds,
        completeness_error=message.completeness_error,
    )


def _decision_space(message: answer.DecisionSpace) -> types.DecisionSpace:
    return types.DecisionSpace(
        x=message.x,
        y=message.y,
        boundary=message.boundary,
        dims=message.dims,
        means=tuple(
            types.ClassPoint(
                class_name=point.class_name,
                x=point.x,
                y=point.y,
                radius=point.radius,
                probability=point.probability,
            )
            for point in message.means
        ),
    )
