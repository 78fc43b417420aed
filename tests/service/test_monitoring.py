"""What is counted is counted exactly, in one process and in several, and cheaply."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from ibinn.errors import ConfigError
from service.models.candidates import Reason
from service.monitoring import LANES, REASONS, MetricsEndpoint, Monitor, shared
from service.scheduling.job import Lane
from tests.service.running import until
from tests.service.stub import ACCEPTED, INFO, UNKNOWN, make_prediction

ROOT = Path(__file__).resolve().parents[2]

WORKER = """
import os, signal, sys
from pathlib import Path
from service.monitoring import Monitor, shared

folder, place, count, then = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
shared.join(folder, place=place)
from tests.service.stub import INFO, UNKNOWN
monitor = Monitor()
monitor.model(INFO)
monitor.watch(pending=lambda: 3, waiting=lambda: 2)
monitor.mode(abstaining=True)
for _ in range(count):
    monitor.request("Classify", "OK", 0.02)
    monitor.prediction(UNKNOWN)
print("counted", flush=True)
if then == "die":
    os.kill(os.getpid(), signal.SIGKILL)
sys.stdin.read()
"""


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def count_everything(monitor: Monitor) -> None:
    monitor.model(INFO)
    monitor.watch(pending=lambda: 3, waiting=lambda: 2)
    monitor.request("Classify", "OK", 0.02)
    monitor.rejection("QUEUE_FULL")
    monitor.batch(8, 0.1, "explain")
    monitor.queue_wait(0.01, "background")
    monitor.expired_computed(2)
    monitor.prediction(make_prediction(decision=ACCEPTED))
    monitor.candidate("refused", "accuracy")
    monitor.shadow(class_differs=True, verdict_differs=False, confidence_difference=-0.2)
    monitor.shadow_skipped()
    monitor.decoder_fault("crash")
    monitor.mode(abstaining=True)


def test_everything_called_is_counted_once() -> None:
    monitor = Monitor()
    count_everything(monitor)
    found = {
        name: monitor.registry.get_sample_value(name, labels)
        for name, labels in (
            ("ibinn_requests_total", {"method": "Classify", "code": "OK"}),
            ("ibinn_request_duration_seconds_sum", {"method": "Classify"}),
            ("ibinn_rejections_total", {"reason": "QUEUE_FULL"}),
            ("ibinn_batch_size_sum", {"lane": "explain"}),
            ("ibinn_compute_seconds_sum", {"lane": "explain"}),
            ("ibinn_queue_wait_seconds_count", {"lane": "background"}),
            ("ibinn_computed_expired_total", {}),
            ("ibinn_verdicts_total", {"verdict": "NOT_FLAGGED"}),
            ("ibinn_decisions_total", {"action": "ACCEPT", "rule": "accepted"}),
            ("ibinn_tests_total", {"test": "combined"}),
            ("ibinn_test_flags_total", {"test": "combined"}),
            ("ibinn_candidates_total", {"outcome": "refused", "reason": "accuracy"}),
            ("ibinn_shadow_comparisons_total", {}),
            ("ibinn_shadow_differences_total", {"kind": "class"}),
            ("ibinn_shadow_confidence_difference_sum", {}),
            ("ibinn_shadow_skipped_total", {}),
            ("ibinn_decoder_faults_total", {"kind": "crash"}),
            ("ibinn_abstaining", {}),
            ("ibinn_pending_requests", {}),
            ("ibinn_waiting_images", {}),
        )
    }
    assert found == {
        "ibinn_requests_total": 1,
        "ibinn_request_duration_seconds_sum": 0.02,
        "ibinn_rejections_total": 1,
        "ibinn_batch_size_sum": 8,
        "ibinn_compute_seconds_sum": 0.1,
        "ibinn_queue_wait_seconds_count": 1,
        "ibinn_computed_expired_total": 2,
        "ibinn_verdicts_total": 1,
        "ibinn_decisions_total": 1,
        "ibinn_tests_total": 1,
        "ibinn_test_flags_total": 0,
        "ibinn_candidates_total": 1,
        "ibinn_shadow_comparisons_total": 1,
        "ibinn_shadow_differences_total": 1,
        "ibinn_shadow_confidence_difference_sum": 0.2,
        "ibinn_shadow_skipped_total": 1,
        "ibinn_decoder_faults_total": 1,
        "ibinn_abstaining": 1,
        "ibinn_pending_requests": 3,
        "ibinn_waiting_images": 2,
    }
    assert value(monitor.registry, "ibinn_shadow_differences_total", kind="verdict") == 0


def test_monitor_that_is_off_counts_nothing() -> None:
    monitor = Monitor(enabled=False)
    count_everything(monitor)
    assert list(monitor.registry.collect()) == []


def test_series_of_known_labels_exist_before_anything_happens() -> None:
    registry = Monitor().registry
    assert all(value(registry, "ibinn_batch_size_count", lane=lane) == 0 for lane in LANES)
    assert all(
        value(registry, "ibinn_candidates_total", outcome="refused", reason=reason) == 0
        for reason in REASONS
    )
    assert value(registry, "ibinn_candidates_total", outcome="accepted", reason="none") == 0
    assert value(registry, "ibinn_decoder_faults_total", kind="timeout") == 0


def test_labels_are_the_names_that_the_service_uses() -> None:
    assert set(LANES) == set(Lane)
    assert {"none", *REASONS} == set(Reason)


def test_answer_without_a_p_value_is_no_answer_of_the_test() -> None:
    monitor = Monitor()
    monitor.prediction(make_prediction(tests=(), combined=None))
    assert value(monitor.registry, "ibinn_tests_total", test="combined") is None
    monitor.prediction(UNKNOWN)
    assert value(monitor.registry, "ibinn_test_flags_total", test="combined") == 1


def test_only_the_present_model_is_shown() -> None:
    monitor = Monitor()
    monitor.model(INFO)
    versions = dataclasses.replace(INFO.versions, weights="9" * 64)
    monitor.model(dataclasses.replace(INFO, versions=versions))
    shown = [
        sample.labels["weights"]
        for metric in monitor.registry.collect()
        for sample in metric.samples
        if sample.name == "ibinn_model_info"
    ]
    assert shown == ["9" * 64]


def test_endpoint_names_an_address_that_is_taken() -> None:
    endpoint = MetricsEndpoint.start(Monitor(), host="127.0.0.1", port=0)
    try:
        with pytest.raises(ConfigError, match=rf"metrics on 127.0.0.1:{endpoint.port}"):
            MetricsEndpoint.start(Monitor(), host="127.0.0.1", port=endpoint.port)
    finally:
        endpoint.stop()


Start = Callable[[int, int, str], subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a process that counts `count` calls in `tmp_path` at a place, then stays or dies."""
    found: list[subprocess.Popen[str]] = []

    def start(place: int, count: int, then: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), str(place), str(count), then],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        found.append(process)
        return process

    yield start
    for process in found:
        process.kill()
        process.communicate()


async def test_workers_add_up_and_a_killed_one_takes_only_its_gauges_along(
    tmp_path: Path, start: Start
) -> None:
    total = shared.Sum(tmp_path)
    one, other = start(0, 5, "stay"), start(1, 7, "stay")
    for place, process in enumerate((one, other)):
        assert process.stdout.readline() == "counted\n"
        total.started(place, process.pid)
        total.serves(place)

    def read(name: str, **labels: str) -> float | None:
        return total.registry.get_sample_value(name, labels)

    assert read("ibinn_requests_total", method="Classify", code="OK") == 12
    assert read("ibinn_request_duration_seconds_count", method="Classify") == 12
    assert read("ibinn_verdicts_total", verdict="UNKNOWN") == 12
    assert read("ibinn_abstaining") == 1
    assert read("ibinn_workers") == 2
    await until(lambda: read("ibinn_pending_requests") == 6 and read("ibinn_waiting_images") == 4)
    assert (read("process_resident_memory_bytes", worker="1") or 0) > 1e6

    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    total.ended(1)
    assert read("ibinn_pending_requests") == 3
    assert read("ibinn_requests_total", method="Classify", code="OK") == 12
    assert read("process_resident_memory_bytes", worker="1") is None
    assert read("ibinn_workers") == 1

    again = start(1, 100, "die")
    again.wait()
    assert read("ibinn_requests_total", method="Classify", code="OK") == 112
    assert read("ibinn_test_flags_total", test="combined") == 112
    total.restarted()
    assert read("ibinn_worker_restarts_total") == 1
    assert {path.name for path in tmp_path.glob("counter_*.db")} == {"counter_0.db", "counter_1.db"}
