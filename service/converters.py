"""From the library's types to the wire; the only module of the service that knows both."""

from __future__ import annotations

from collections.abc import Sequence

from ibinn import types
from ibinn.errors import RequestError
from ibinn.v1 import answer_pb2 as answer
from ibinn.v1 import classification_service_pb2 as service
from ibinn.v1 import model_pb2 as model

_VERDICTS = {
    types.Verdict.NOT_ASSESSED: answer.VERDICT_NOT_ASSESSED,
    types.Verdict.UNKNOWN: answer.VERDICT_UNKNOWN,
    types.Verdict.AMBIGUOUS: answer.VERDICT_AMBIGUOUS,
    types.Verdict.NOT_FLAGGED: answer.VERDICT_NOT_FLAGGED,
}
_GROUPS = {
    types.Group.PIXEL: answer.TEST_GROUP_PIXEL,
    types.Group.STYLE: answer.TEST_GROUP_STYLE,
    types.Group.SEMANTIC: answer.TEST_GROUP_SEMANTIC,
    types.Group.COMBINED: answer.TEST_GROUP_COMBINED,
}
_KINDS = {
    types.TestKind.HIGH_IS_UNUSUAL: answer.TEST_KIND_HIGH_IS_UNUSUAL,
    types.TestKind.LOW_IS_UNUSUAL: answer.TEST_KIND_LOW_IS_UNUSUAL,
    types.TestKind.TYPICALITY: answer.TEST_KIND_TYPICALITY,
    types.TestKind.TWO_TAILED: answer.TEST_KIND_TWO_TAILED,
}


def classes_to_explain(request: service.ExplainRequest) -> tuple[str, ...] | None:
    """The classes asked for; None: those the model chooses.

    Raises:
        RequestError: A class is named twice.
    """
    names = tuple(request.classes)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(
            f"class {twice!r} is named {names.count(twice)} times; name each class once",
            field="classes",
        )
    return names or None


def classify_response(prediction: types.Prediction) -> service.ClassifyResponse:
    """The answer to Classify."""
    return service.ClassifyResponse(classification=classification(prediction))


def explain_response(explanation: types.Explanation) -> service.ExplainResponse:
    """The answer to Explain."""
    return service.ExplainResponse(
        classification=classification(explanation.prediction),
        heatmaps=[_heatmap(heatmap) for heatmap in explanation.heatmaps],
        image=answer.SeenImage(
            side=explanation.image.shape[0], rgb=explanation.image.tobytes(order="C")
        ),
    )


def get_model_response(info: types.ModelInfo) -> service.GetModelResponse:
    """The answer to GetModel."""
    return service.GetModelResponse(model=_model(info))


def classification(prediction: types.Prediction) -> answer.Classification:
    """One answer; with record id, time and timing if it has a receipt."""
    message = answer.Classification(
        classes=[_class_score(score) for score in prediction.classes],
        entropy_nats=prediction.entropy,
        temperature=prediction.temperature,
        bits_per_dim=prediction.bits_per_dim,
        conformal_set=_optional_conformal(prediction.conformal),
        tests=_test_results(prediction.tests),
        combined_test=None if prediction.combined is None else _test_result(prediction.combined),
        verdict=_VERDICTS[prediction.verdict],
        verdict_reason=prediction.reason,
        observed_accuracy=_optional_accuracy(prediction.observed_accuracy),
        versions=_versions(prediction.versions),
        calibration_count=prediction.calibration_count,
        input=_input(prediction.input),
    )
    if prediction.receipt is not None:
        message.record_id = prediction.receipt.record_id
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


def _optional_conformal(conformal: types.ConformalSet | None) -> answer.ConformalSet | None:
    if conformal is None:
        return None
    return answer.ConformalSet(
        classes=conformal.classes,
        target_coverage=conformal.target_coverage,
        measured_coverage=conformal.measured_coverage,
    )


def _test_results(tests: Sequence[types.TestResult]) -> list[answer.TestResult]:
    return [_test_result(test) for test in tests]


def _test_result(test: types.TestResult) -> answer.TestResult:
    return answer.TestResult(
        name=test.name,
        group=_GROUPS[test.group],
        kind=_KINDS[test.kind],
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


def _versions(versions: types.Versions) -> answer.Versions:
    return answer.Versions(
        weights=versions.weights,
        calibration=versions.calibration,
        policy=versions.policy,
        taxonomy=versions.taxonomy,
        software=versions.software,
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


def _model(info: types.ModelInfo) -> model.Model:
    return model.Model(
        name=info.name,
        classes=info.classes,
        versions=_versions(info.versions),
        architecture=info.architecture,
        parameters=info.parameters,
        input_limits=model.InputLimits(
            max_bytes=info.max_bytes,
            max_pixels=info.max_pixels,
            max_side=info.max_side,
            formats=info.formats,
        ),
        input_side=info.input_side,
        calibrated=info.calibrated,
        calibration_count=info.calibration_count,
        temperature=info.temperature,
        alpha=info.alpha,
        conformal_coverage=info.conformal_coverage,
        tests=[_test_info(test) for test in info.tests],
        metrics=[model.Metric(name=name, value=value) for name, value in info.metrics],
        intended_use=info.intended_use,
        training_data=info.training_data,
        explainable=info.explainable,
    )


def _test_info(test: types.TestInfo) -> model.TestInfo:
    return model.TestInfo(
        name=test.name,
        group=_GROUPS[test.group],
        kind=_KINDS[test.kind],
        alpha=test.alpha,
        smallest_p=test.smallest_p,
        miss_rates=[
            model.MissRate(set_name=name, alpha=alpha, miss_rate=rate)
            for name, alpha, rate in test.miss_rates
        ],
        auroc=[model.Auroc(set_name=name, auroc=auroc) for name, auroc in test.auroc],
    )
