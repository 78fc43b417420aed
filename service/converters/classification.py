"""From an answer to its message, written in place.

A message that is built by itself and then put into another one is copied; filling the one that
leaves takes half the time, of which a busy server has one portion for every image.
"""

from __future__ import annotations

from collections.abc import Sequence

from ibinn import types
from ibinn.v1 import answer_pb2 as answer
from ibinn.v1 import classification_service_pb2 as service
from service.converters.names import ACTIONS, GROUPS, GUARANTEES, KINDS, SET_METHODS, VERDICTS


def fill(
    message: answer.Classification,
    prediction: types.Prediction,
    options: service.AnswerOptions | None = None,
) -> None:
    """Writes an answer; with record id, time and timing if it has a receipt.

    Args:
        message: A message that is empty.
        prediction: The answer.
        options: What to leave out of lists; verdict, sets and decision rest on all of it.
    """
    classes, tests = _chosen(prediction, options)
    for score in classes:
        _fill_class(message.classes.add(), score)
    for test in tests:
        _fill_test(message.tests.add(), test)
    message.entropy_nats = prediction.entropy
    message.temperature = prediction.temperature
    message.bits_per_dim = prediction.bits_per_dim
    if prediction.conformal is not None:
        _fill_set(message.conformal_set, prediction.conformal)
    for found in prediction.conformal_sets:
        _fill_set(message.conformal_sets.add(), found)
    if prediction.combined is not None:
        _fill_test(message.combined_test, prediction.combined)
    message.verdict = VERDICTS[prediction.verdict]
    message.verdict_reason = prediction.reason
    if prediction.observed_accuracy is not None:
        _fill_accuracy(message.observed_accuracy, prediction.observed_accuracy)
    fill_versions(message.versions, prediction.versions)
    message.calibration_count = prediction.calibration_count
    _fill_input(message.input, prediction.input)
    if prediction.decision is not None:
        _fill_decision(message.decision, prediction.decision)
    if prediction.driver is not None:
        message.driver = GROUPS[prediction.driver]
    if prediction.guarantee is not None:
        message.guarantee = GUARANTEES[prediction.guarantee]
        message.guarantee_reason = prediction.guarantee_reason
    if prediction.receipt is not None:
        _fill_receipt(message, prediction.receipt)


def fill_versions(message: answer.Versions, versions: types.Versions) -> None:
    """Writes where an answer or a model comes from."""
    message.weights = versions.weights
    message.calibration = versions.calibration
    message.policy = versions.policy
    message.taxonomy = versions.taxonomy
    message.software = versions.software


def _chosen(
    prediction: types.Prediction, options: service.AnswerOptions | None
) -> tuple[Sequence[types.ClassScore], Sequence[types.TestResult]]:
    classes, tests = prediction.classes, prediction.tests
    if options is None:
        return classes, tests
    if options.top_classes:
        classes = classes[: options.top_classes]
    if options.tests == service.TEST_DETAIL_FLAGGED:
        return classes, tuple(test for test in tests if test.flagged)
    return classes, () if options.tests == service.TEST_DETAIL_NONE else tests


def _fill_class(message: answer.ClassScore, score: types.ClassScore) -> None:
    message.index = score.index
    message.name = score.name
    message.probability = score.probability
    message.raw_probability = score.raw_probability
    message.log_likelihood_nats = score.log_likelihood
    if score.p_value is not None:
        message.p_value = score.p_value


def _fill_test(message: answer.TestResult, test: types.TestResult) -> None:
    message.SetInParent()
    message.name = test.name
    message.group = GROUPS[test.group]
    message.kind = KINDS[test.kind]
    message.statistic = test.statistic
    if test.p_value is not None:
        message.p_value = test.p_value
    if test.p_adjusted is not None:
        message.p_adjusted = test.p_adjusted
    message.smallest_p = test.smallest_p
    message.alpha = test.alpha
    message.flagged = test.flagged


def _fill_set(message: answer.ConformalSet, found: types.ConformalSet) -> None:
    message.SetInParent()
    message.classes.extend(found.classes)
    message.target_coverage = found.target_coverage
    if found.measured_coverage is not None:
        message.measured_coverage = found.measured_coverage
    message.method = SET_METHODS[found.method]


def _fill_accuracy(message: answer.ObservedAccuracy, accuracy: types.ObservedAccuracy) -> None:
    message.SetInParent()
    message.accuracy = accuracy.accuracy
    message.low = accuracy.low
    message.high = accuracy.high
    message.count = accuracy.count


def _fill_input(message: answer.InputInfo, info: types.InputInfo) -> None:
    message.width = info.width
    message.height = info.height
    message.format = info.format
    message.sha256_bytes = info.sha256_bytes
    message.sha256_pixels = info.sha256_pixels
    message.reductions.extend(info.reductions)
    region = message.region
    region.left = info.region.left
    region.top = info.region.top
    region.width = info.region.width
    region.height = info.region.height


def _fill_decision(message: answer.Decision, decision: types.Decision) -> None:
    message.SetInParent()
    message.action = ACTIONS[decision.action]
    if decision.class_name is not None:
        message.class_name = decision.class_name
    message.rule = decision.rule
    message.reason = decision.reason
    if decision.expected_cost is not None:
        message.expected_cost = decision.expected_cost


def _fill_receipt(message: answer.Classification, receipt: types.Receipt) -> None:
    message.record_id = receipt.record_id
    message.request_id = receipt.request_id
    message.receipt = receipt.token
    message.group_id = receipt.group_id
    message.received_time.FromDatetime(receipt.received_time)
    timing = message.timing
    timing.prepare_s = receipt.timing.prepare_s
    timing.queue_s = receipt.timing.queue_s
    timing.compute_s = receipt.timing.compute_s
    timing.total_s = receipt.timing.total_s
    timing.batch_size = receipt.timing.batch_size
