"""From answers and explanations to messages."""

from __future__ import annotations

from collections.abc import Sequence

from ibinn import types
from ibinn.v1 import answer_pb2 as answer
from ibinn.v1 import classification_service_pb2 as service
from service.converters.names import ACTIONS, GROUPS, KINDS, SET_METHODS, VERDICTS, versions


def classify_response(
    prediction: types.Prediction, options: service.AnswerOptions | None = None
) -> service.ClassifyResponse:
    """The answer to Classify."""
    return service.ClassifyResponse(classification=classification(prediction, options))


def explain_response(
    explanation: types.Explanation, options: service.AnswerOptions | None = None
) -> service.ExplainResponse:
    """The answer to Explain."""
    return service.ExplainResponse(
        classification=classification(explanation.prediction, options),
        heatmaps=[_heatmap(heatmap) for heatmap in explanation.heatmaps],
        image=answer.SeenImage(
            side=explanation.image.shape[0], rgb=explanation.image.tobytes(order="C")
        ),
        contrast=None if explanation.contrast is None else _contrast(explanation.contrast),
        nearby=[
            answer.NearbyClass(
                class_name=nearby.class_name, distance=nearby.distance, overlap=nearby.overlap
            )
            for nearby in explanation.nearby
        ],
        receptive_field_px=explanation.receptive_field_px,
        decision_space=(
            None
            if explanation.decision_space is None
            else _decision_space(explanation.decision_space)
        ),
    )


def classification(
    prediction: types.Prediction, options: service.AnswerOptions | None = None
) -> answer.Classification:
    """One answer; with record id, time and timing if it has a receipt.

    Args:
        prediction: The answer.
        options: What to leave out of lists; verdict, sets and decision rest on all of it.
    """
    classes, tests = prediction.classes, prediction.tests
    if options is not None:
        classes = classes[: options.top_classes or None]
        if options.tests == service.TEST_DETAIL_FLAGGED:
            tests = tuple(test for test in tests if test.flagged)
        elif options.tests == service.TEST_DETAIL_NONE:
            tests = ()
    message = answer.Classification(
        classes=[_class_score(score) for score in classes],
        entropy_nats=prediction.entropy,
        temperature=prediction.temperature,
        bits_per_dim=prediction.bits_per_dim,
        conformal_set=None if prediction.conformal is None else _conformal(prediction.conformal),
        conformal_sets=[_conformal(found) for found in prediction.conformal_sets],
        tests=_test_results(tests),
        combined_test=None if prediction.combined is None else _test_result(prediction.combined),
        verdict=VERDICTS[prediction.verdict],
        verdict_reason=prediction.reason,
        observed_accuracy=_optional_accuracy(prediction.observed_accuracy),
        versions=versions(prediction.versions),
        calibration_count=prediction.calibration_count,
        input=_input(prediction.input),
        decision=None if prediction.decision is None else _decision(prediction.decision),
        driver=None if prediction.driver is None else GROUPS[prediction.driver],
    )
    if prediction.receipt is not None:
        message.record_id = prediction.receipt.record_id
        message.request_id = prediction.receipt.request_id
        message.received_time.FromDatetime(prediction.receipt.received_time)
        message.timing.CopyFrom(_timing(prediction.receipt.timing))
    return message


def _class_score(score: types.ClassScore) -> answer.ClassScore:
    return answer.ClassScore(
        index=score.index,
        name=score.name,
        probability=score.probability,
        raw_probability=score.raw_probability,
        log_likelihood_nats=score.log_likelihood,
        p_value=score.p_value,
    )


def _conformal(conformal: types.ConformalSet) -> answer.ConformalSet:
    return answer.ConformalSet(
        classes=conformal.classes,
        target_coverage=conformal.target_coverage,
        measured_coverage=conformal.measured_coverage,
        method=SET_METHODS[conformal.method],
    )


def _decision(decision: types.Decision) -> answer.Decision:
    return answer.Decision(
        action=ACTIONS[decision.action],
        class_name=decision.class_name,
        rule=decision.rule,
        reason=decision.reason,
        expected_cost=decision.expected_cost,
    )


def _test_results(tests: Sequence[types.TestResult]) -> list[answer.TestResult]:
    return [_test_result(test) for test in tests]


def _test_result(test: types.TestResult) -> answer.TestResult:
    return answer.TestResult(
        name=test.name,
        group=GROUPS[test.group],
        kind=KINDS[test.kind],
        statistic=test.statistic,
        p_value=test.p_value,
        p_adjusted=test.p_adjusted,
        smallest_p=test.smallest_p,
        alpha=test.alpha,
        flagged=test.flagged,
    )


def _optional_accuracy(accuracy: types.ObservedAccuracy | None) -> answer.ObservedAccuracy | None:
    if accuracy is None:
        return None
    return answer.ObservedAccuracy(
        accuracy=accuracy.accuracy, low=accuracy.low, high=accuracy.high, count=accuracy.count
    )


def _input(info: types.InputInfo) -> answer.InputInfo:
    region = info.region
    return answer.InputInfo(
        width=info.width,
        height=info.height,
        format=info.format,
        sha256_bytes=info.sha256_bytes,
        sha256_pixels=info.sha256_pixels,
        region=answer.Region(
            left=region.left, top=region.top, width=region.width, height=region.height
        ),
        reductions=info.reductions,
    )


def _timing(timing: types.ServerTiming) -> answer.ServerTiming:
    return answer.ServerTiming(
        prepare_s=timing.prepare_s,
        queue_s=timing.queue_s,
        compute_s=timing.compute_s,
        total_s=timing.total_s,
        batch_size=timing.batch_size,
    )


def _heatmap(heatmap: types.Heatmap) -> answer.Heatmap:
    height, width = heatmap.values.shape
    return answer.Heatmap(
        class_name=heatmap.class_name,
        height=height,
        width=width,
        values=heatmap.values.ravel().tolist(),
        log_posterior=heatmap.log_posterior,
        completeness_error=heatmap.completeness_error,
    )


def _contrast(contrast: types.Contrast) -> answer.Contrast:
    height, width = contrast.values.shape
    return answer.Contrast(
        class_name=contrast.class_name,
        versus=contrast.versus,
        height=height,
        width=width,
        values=contrast.values.ravel().tolist(),
        log_odds=contrast.log_odds,
        completeness_error=contrast.completeness_error,
    )


def _decision_space(space: types.DecisionSpace) -> answer.DecisionSpace:
    return answer.DecisionSpace(
        x=space.x,
        y=space.y,
        boundary=space.boundary,
        dims=space.dims,
        means=[
            answer.ClassPoint(
                class_name=point.class_name,
                x=point.x,
                y=point.y,
                radius=point.radius,
                probability=point.probability,
            )
            for point in space.means
        ],
    )
