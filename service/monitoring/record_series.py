"""The metrics of records, kept images and feedback."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ibinn.records import EntryKind, FeedbackOutcome, ImageKept
from service.monitoring.children import Children

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class RecordSeries:
    """What becomes of records, in one process.

    Args:
        registry: Gets them all.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        own: dict[str, Any] = {"registry": registry}
        self.written = Children(
            Counter(
                "ibinn_records_written",
                "Entries that are durable in the ledger by kind.",
                ("kind",),
                **own,
            ),
            [(kind.value,) for kind in EntryKind],
        )
        self.dropped = Counter(
            "ibinn_records_dropped",
            "Answers that left without a record: the queue was full or the store away "
            "(best effort only).",
            **own,
        )
        self.write_seconds = Histogram(
            "ibinn_record_write_seconds",
            "Time of one write to the store, whatever number of entries it holds.",
            buckets=_SECONDS,
            **own,
        )
        self.images_kept = Children(
            Counter(
                "ibinn_images_kept", "Images kept beside their records by why.", ("reason",), **own
            ),
            [(reason.value,) for reason in ImageKept],
        )
        self.image_failures = Counter(
            "ibinn_image_failures",
            "Images that were to be kept, read or removed and could not be.",
            **own,
        )
        self.feedback = Children(
            Counter(
                "ibinn_feedback",
                "Statements about answers by what they were beside those before them. Only the "
                "first about an answer is counted in the calibration figures.",
                ("outcome",),
                **own,
            ),
            [(outcome.value,) for outcome in FeedbackOutcome],
        )


class StoreGauges:
    """What a store holds now. They exist only where there is a store, so that no alert takes a
    server without records for one whose store is away.

    Args:
        registry: Gets them all.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        own: dict[str, Any] = {"registry": registry}
        self.waiting = Gauge(
            "ibinn_records_waiting",
            "Entries that wait to be written.",
            multiprocess_mode="livesum",
            **own,
        )
        self.reachable = Gauge(
            "ibinn_records_reachable",
            "1 where the last try to reach the store succeeded, in every worker; else 0.",
            multiprocess_mode="livemin",
            **own,
        )
        self.image_bytes = Gauge(
            "ibinn_images_bytes",
            "Bytes of the kept images, as last looked at.",
            multiprocess_mode="livemax",
            **own,
        )
