"""Calibration is counted so that sums over bins, processes and time give the figures exactly."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from ibinn import reliability
from ibinn.records import (
    OUT_OF_SCOPE,
    UNREADABLE,
    AnswerDigest,
    FeedbackEntry,
    FeedbackOutcome,
    Provenance,
    Selection,
    Truth,
)
from ibinn.serving import Detector
from ibinn.types import Verdict
from service.monitoring import Monitor, model_label, model_series, shared
from tests.service.stub import INFO, NOT_CALIBRATED, UNKNOWN, VERSIONS, make_prediction

ROOT = Path(__file__).resolve().parents[2]
LABEL = model_label(VERSIONS)

WORKER = """
import sys
from pathlib import Path
from service.monitoring import Monitor, shared

shared.join(Path(sys.argv[1]), place=int(sys.argv[2]))
from tests.service.stub import INFO, VERSIONS, UNKNOWN, make_prediction
from tests.service.test_monitoring_models import DETECTORS, first

p, reachable, forgets = float(sys.argv[3]), sys.argv[4] == "yes", sys.argv[5] == "yes"
monitor = Monitor()
monitor.model(INFO)
monitor.prediction(make_prediction())
monitor.prediction(UNKNOWN)
monitor.feedback(first(0.75, right=True), classes=INFO.classes)
monitor.drift_begins(VERSIONS, DETECTORS)
monitor.recent(VERSIONS, uniformity_p=p, typicality_p=p, prior_shift=p, covariate_shift=p)
monitor.guarantee(VERSIONS, suspended=p < 0.5)
monitor.watch_records(waiting=lambda: 3, reachable=lambda: reachable, image_bytes=lambda: 70)
if forgets:
    monitor.drift_ends(VERSIONS, DETECTORS)
print("counted", flush=True)
sys.stdin.read()
"""

DETECTORS = (
    Detector(name="p_values", count=3, log_evidence=-0.5, log_threshold=4.1, alarmed=False),
)


def first(
    confidence: float,
    *,
    right: bool,
    truth: Truth | None = None,
    outcome: FeedbackOutcome = FeedbackOutcome.FIRST,
    verdict: Verdict = Verdict.NOT_FLAGGED,
    **provenance,
) -> FeedbackEntry:
    """A statement about an answer "dog" of that confidence."""
    answer = AnswerDigest(
        record_id="1" * 32,
        received_time=datetime(2026, 1, 1, tzinfo=UTC),
        versions=VERSIONS,
        class_name="dog",
        confidence=confidence,
        verdict=verdict,
        action=None,
        sha256_bytes="d" * 64,
        sha256_pixels="e" * 64,
        p_value=0.5,
    )
    return FeedbackEntry(
        feedback_id="f",
        record_id=answer.record_id,
        truth=truth or Truth.of_class("dog" if right else "cat"),
        provenance=Provenance(source="ann", **provenance),
        labelled_time=None,
        comment="",
        caller="app",
        outcome=outcome,
        revision=1,
        answer=answer,
        record_known=True,
    )


def read(monitor: Monitor, name: str, **labels: str) -> float | None:
    return monitor.registry.get_sample_value(name, {"model": LABEL, **labels})


def bins(monitor: Monitor, name: str) -> np.ndarray:
    return np.array([read(monitor, name, bin=str(index)) for index in range(15)])


def ece(count: np.ndarray, correct: np.ndarray, confidence: np.ndarray) -> float:
    """What recording rules compute."""
    return float(np.abs(correct - confidence).sum() / count.sum())


def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    confidence = np.concatenate((rng.uniform(0.34, 1.0, count - 4), [1.0, 0.997, 14 / 15, 0.4]))
    return confidence, rng.random(count) < confidence**2


def test_raw_counters_reproduce_the_calibration_error_of_the_labelled_answers() -> None:
    monitor = Monitor()
    confidence, right = draw(500)
    for c, hit in zip(confidence, right, strict=True):
        monitor.feedback(first(float(c), right=bool(hit)))
    index = reliability.confidence_bin(confidence)
    expected = sum(
        abs(right[index == b].sum() - confidence[index == b].sum()) for b in range(15)
    ) / len(confidence)
    found = ece(
        bins(monitor, "ibinn_labelled_total"),
        bins(monitor, "ibinn_correct_total"),
        bins(monitor, "ibinn_confidence_sum_total"),
    )
    assert found == pytest.approx(expected, abs=1e-12)
    sure = confidence >= 0.997
    assert read(monitor, "ibinn_overconfident_labelled_total") == sure.sum()
    assert read(monitor, "ibinn_overconfident_wrong_total") == (sure & ~right).sum()


def test_labels_of_known_chance_are_weighted_by_its_inverse_and_others_left_out() -> None:
    monitor = Monitor()
    monitor.feedback(first(0.75, right=True, selection=Selection.ALL))
    monitor.feedback(first(0.75, right=False, sampling_probability=0.25))
    monitor.feedback(first(0.75, right=True, selection=Selection.FLAGGED))
    place = {"bin": "11"}
    assert read(monitor, "ibinn_labelled_total", **place) == 3
    assert read(monitor, "ibinn_labelled_weight_total", **place) == 5
    assert read(monitor, "ibinn_correct_weight_total", **place) == 1
    assert read(monitor, "ibinn_confidence_weight_total", **place) == pytest.approx(3.75)
    assert read(monitor, "ibinn_labelled_weight_squared_total", **place) == 17


def test_only_first_statements_count_and_all_are_counted_by_what_they_were() -> None:
    monitor = Monitor()
    for outcome in FeedbackOutcome:
        monitor.feedback(first(0.75, right=True, outcome=outcome))
        assert (
            monitor.registry.get_sample_value("ibinn_feedback_total", {"outcome": outcome.value})
            == 1
        )
    assert bins(monitor, "ibinn_labelled_total").sum() == 1


def test_truths_are_told_apart_and_only_classes_say_something_of_calibration() -> None:
    monitor = Monitor()
    for truth in (Truth.of_class("cat"), Truth.of_class("zebra"), OUT_OF_SCOPE, UNREADABLE):
        monitor.feedback(
            first(0.9, right=False, truth=truth, verdict=Verdict.UNKNOWN), classes=INFO.classes
        )
    for truth in model_series.TRUTHS:
        assert read(monitor, "ibinn_truths_total", truth=truth, verdict="UNKNOWN") == 1
        assert read(monitor, "ibinn_truths_total", truth=truth, verdict="NOT_FLAGGED") == 0
    assert bins(monitor, "ibinn_labelled_total").sum() == 2
    assert bins(monitor, "ibinn_correct_total").sum() == 0


def test_confidence_that_is_no_number_is_in_no_bin() -> None:
    monitor = Monitor()
    monitor.feedback(first(math.nan, right=True))
    assert bins(monitor, "ibinn_labelled_total").sum() == 0


def test_answers_are_counted_by_model_with_their_p_values() -> None:
    monitor = Monitor()
    for prediction in (make_prediction(), UNKNOWN, NOT_CALIBRATED):
        monitor.prediction(prediction)
    assert read(monitor, "ibinn_answered_total") == 3
    assert read(monitor, "ibinn_accepted_total") == 1
    assert read(monitor, "ibinn_combined_p_value_count") == 2
    assert read(monitor, "ibinn_combined_p_value_bucket", le="0.05") == 1
    assert read(monitor, "ibinn_combined_p_value_bucket", le="0.5") == 2


def test_counters_of_a_model_exist_as_soon_as_it_serves() -> None:
    monitor = Monitor()
    monitor.model(INFO)
    assert bins(monitor, "ibinn_labelled_total").tolist() == [0] * 15
    assert read(monitor, "ibinn_sentinels_total") == 0


def test_a_bounded_number_of_models_is_counted() -> None:
    monitor = Monitor()
    for number in range(model_series.MOST_MODELS + 3):
        versions = dataclasses.replace(
            VERSIONS, weights=f"{number:012d}".ljust(64, "0"), calibration=""
        )
        monitor.prediction(dataclasses.replace(NOT_CALIBRATED, versions=versions))
    labels = {
        sample.labels["model"]
        for family in monitor.registry.collect()
        for sample in family.samples
        if "model" in sample.labels and "weights" not in sample.labels
    }
    assert len(labels) == model_series.MOST_MODELS


def test_gauges_of_the_store_exist_only_where_there_is_one() -> None:
    monitor = Monitor()
    assert monitor.registry.get_sample_value("ibinn_records_reachable") is None
    monitor.watch_records(waiting=lambda: 2, reachable=lambda: False, image_bytes=lambda: 70)
    assert monitor.registry.get_sample_value("ibinn_records_reachable") == 0
    assert monitor.registry.get_sample_value("ibinn_records_waiting") == 2
    assert monitor.registry.get_sample_value("ibinn_images_bytes") == 70


def test_what_becomes_of_records_and_images_is_counted() -> None:
    monitor = Monitor()
    monitor.recorded("answer", 12, 0.004)
    monitor.record_dropped(3)
    monitor.image_kept("flagged")
    monitor.image_failure()
    monitor.sentinel(VERSIONS, flagged=True, wrong=False)
    monitor.sentinel_failure()

    def value(name: str, **labels: str) -> float | None:
        return monitor.registry.get_sample_value(name, labels)

    assert value("ibinn_records_written_total", kind="answer") == 12
    assert value("ibinn_records_written_total", kind="guarantee") == 0
    assert value("ibinn_record_write_seconds_sum") == 0.004
    assert value("ibinn_records_dropped_total") == 3
    assert value("ibinn_images_kept_total", reason="flagged") == 1
    assert value("ibinn_image_failures_total") == 1
    assert value("ibinn_sentinel_failures_total") == 1
    assert read(monitor, "ibinn_sentinels_total") == 1
    assert read(monitor, "ibinn_sentinel_flags_total") == 1
    assert read(monitor, "ibinn_sentinel_wrong_total") == 0


def test_a_monitor_that_is_off_counts_nothing_of_all_this() -> None:
    monitor = Monitor(enabled=False)
    monitor.feedback(first(0.75, right=True))
    monitor.recorded("answer", 1, 0.1)
    monitor.record_dropped()
    monitor.watch_records(waiting=lambda: 2, reachable=lambda: True, image_bytes=lambda: 0)
    monitor.image_kept("all")
    monitor.image_failure()
    monitor.sentinel(VERSIONS, flagged=False, wrong=False)
    monitor.sentinel_failure()
    monitor.drift_begins(VERSIONS, DETECTORS)
    monitor.drift_alarm(VERSIONS, "p_values")
    monitor.guarantee(VERSIONS, suspended=True)
    monitor.recent(VERSIONS, uniformity_p=1, typicality_p=1, prior_shift=0, covariate_shift=0)
    monitor.expected(VERSIONS, accepted=1, correct=1.0, confidence=1.0)
    monitor.drift_ends(VERSIONS, DETECTORS)
    assert list(monitor.registry.collect()) == []


def test_labels_are_counted_in_the_bins_of_the_library() -> None:
    assert model_series.BINS == reliability.TOP_LABEL_BINS


def test_workers_add_up_and_of_gauges_the_worst_is_shown(tmp_path: Path) -> None:
    total = shared.Sum(tmp_path)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for arguments in (
            ("0", "0.3", "yes", "no"),
            ("1", "0.8", "no", "no"),
            ("2", "0.1", "yes", "yes"),
        )
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == "counted\n"

        def read(name: str, **labels: str) -> float | None:
            return total.registry.get_sample_value(name, {"model": LABEL, **labels})

        assert read("ibinn_answered_total") == 6
        assert read("ibinn_combined_p_value_count") == 6
        assert read("ibinn_labelled_total", bin="11") == 3
        assert read("ibinn_confidence_sum_total", bin="11") == 2.25
        assert read("ibinn_recent_uniformity_p_value") == 0.3
        assert read("ibinn_recent_prior_shift") == 0.8
        assert read("ibinn_guarantee_suspended") == 1
        assert read("ibinn_drift_log_evidence", detector="p_values") == -0.5
        assert read("ibinn_drift_log_threshold", detector="p_values") == 4.1
        assert total.registry.get_sample_value("ibinn_records_reachable") == 0
        total.ended(0)
        total.ended(1)
        assert read("ibinn_recent_uniformity_p_value") is None
        assert read("ibinn_guarantee_suspended") is None
        assert read("ibinn_labelled_total", bin="11") == 3
    finally:
        for process in processes:
            process.communicate("")
