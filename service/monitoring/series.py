"""The metrics there are: names, labels, buckets, and the series that exist from the start.

A series that exists from the start has a rate from the start.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ibinn.types import Verdict
from service.monitoring.children import Children
from service.monitoring.model_series import ModelSeries
from service.monitoring.record_series import RecordSeries

LANES = ("classify", "explain", "background")
"""The queues of the server."""

REASONS = (
    "signature",
    "integrity",
    "format",
    "accuracy",
    "calibration",
    "false_positives",
    "policy",
    "warm_up",
    "memory",
)
"""Why a candidate model is refused."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_DIFFERENCES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


class Series:
    """Every metric of one process.

    Args:
        registry: Gets them all.

    A gauge's mode says how the processes of one server are added up (`service.monitoring.shared`);
    it means nothing where there is one.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        own: dict[str, Any] = {"registry": registry}
        lanes = [(lane,) for lane in LANES]
        self.requests = Children(
            Counter(
                "ibinn_requests",
                "Finished calls by method and gRPC status.",
                ("method", "code"),
                **own,
            )
        )
        self.duration = Children(
            Histogram(
                "ibinn_request_duration_seconds",
                "Time from the start of a call to its end.",
                ("method",),
                buckets=_SECONDS,
                **own,
            )
        )
        self.rejections = Children(
            Counter("ibinn_rejections", "Requests without an answer by reason.", ("reason",), **own)
        )
        self.queue_wait = Children(
            Histogram(
                "ibinn_queue_wait_seconds",
                "Time that an image waited for its batch.",
                ("lane",),
                buckets=_SECONDS,
                **own,
            ),
            lanes,
        )
        self.batch_size = Children(
            Histogram(
                "ibinn_batch_size", "Images computed together.", ("lane",), buckets=_SIZES, **own
            ),
            lanes,
        )
        self.compute = Children(
            Histogram(
                "ibinn_compute_seconds",
                "Time that a batch was computed.",
                ("lane",),
                buckets=_SECONDS,
                **own,
            ),
            lanes,
        )
        self.computed_expired = Counter(
            "ibinn_computed_expired",
            "Images computed though their request had expired before the batch was made.",
            **own,
        )
        self.pending = Gauge(
            "ibinn_pending_requests",
            "Requests being decoded, waiting and being computed.",
            multiprocess_mode="livesum",
            **own,
        )
        self.waiting = Gauge(
            "ibinn_waiting_images",
            "Images that wait for their batch.",
            multiprocess_mode="livesum",
            **own,
        )
        self.verdicts = Children(
            Counter("ibinn_verdicts", "Answers by verdict.", ("verdict",), **own),
            [(verdict.value,) for verdict in Verdict],
        )
        self.decisions = Children(
            Counter(
                "ibinn_decisions",
                "Answers by what the policy made of them and the rule that fired.",
                ("action", "rule"),
                **own,
            )
        )
        self.tests = Children(
            Counter("ibinn_tests", "Answers in which a test gave a p-value.", ("test",), **own)
        )
        self.flags = Children(
            Counter(
                "ibinn_test_flags",
                "Answers that a test flagged: false flags and finds together.",
                ("test",),
                **own,
            )
        )
        self.class_answers = Children(
            Counter(
                "ibinn_class_answers",
                "Answers with a p-value of the combined test, by their top class.",
                ("class",),
                **own,
            )
        )
        self.class_flags = Children(
            Counter(
                "ibinn_class_flags",
                "Of ibinn_class_answers_total, those that the combined test flagged: false flags "
                "and finds together.",
                ("class",),
                **own,
            )
        )
        self.model_info = Gauge(
            "ibinn_model_info",
            "1 for the model that answers calls that name none.",
            ("model", "weights", "calibration", "policy"),
            multiprocess_mode="livemax",
            **own,
        )
        self.abstaining = Gauge(
            "ibinn_abstaining",
            "1 while every decision is left to a person.",
            multiprocess_mode="livemax",
            **own,
        )
        self.candidates = Children(
            Counter(
                "ibinn_candidates",
                "Models that were to become the default, by what became of them and why.",
                ("outcome", "reason"),
                **own,
            ),
            [("accepted", "none"), *(("refused", reason) for reason in REASONS)],
        )
        self.shadow_comparisons = Counter(
            "ibinn_shadow_comparisons", "Answers that the shadow model gave as well.", **own
        )
        self.shadow_differences = Children(
            Counter(
                "ibinn_shadow_differences",
                "Answers of which the shadow model's differed, by what differed.",
                ("kind",),
                **own,
            ),
            [("class",), ("verdict",)],
        )
        self.shadow_confidence = Histogram(
            "ibinn_shadow_confidence_difference",
            "Absolute difference of the two models' top probabilities.",
            buckets=_DIFFERENCES,
            **own,
        )
        self.shadow_skipped = Counter(
            "ibinn_shadow_skipped",
            "Sampled calls that the shadow model did not answer: no room, no time, or a fault.",
            **own,
        )
        self.decoder_faults = Children(
            Counter(
                "ibinn_decoder_faults",
                "Images whose decoding ended its process or took too long.",
                ("kind",),
                **own,
            ),
            [("crash",), ("timeout",)],
        )
        self.records = RecordSeries(registry)
        self.models = ModelSeries(registry)
