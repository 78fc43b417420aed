"""What can be seen of the server from outside while it works: its metrics, once a second."""

from __future__ import annotations

import threading
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from prometheus_client.parser import text_string_to_metric_families

from ibinn.errors import UnavailableError
from ibinn.loop.processes import Prometheus, Server
from ibinn.loop.timeline import Timeline

PERIOD_S = 1.0
WATCHED = frozenset(
    {
        "ibinn_answered_total",
        "ibinn_accepted_total",
        "ibinn_accepted_confidence_sum_total",
        "ibinn_expected_correct_assuming_covariate_shift_total",
        "ibinn_expected_accepted_total",
        "ibinn_labelled_total",
        "ibinn_correct_total",
        "ibinn_confidence_sum_total",
        "ibinn_truths_total",
        "ibinn_combined_p_value_bucket",
        "ibinn_recent_uniformity_p_value",
        "ibinn_recent_typicality_p_value",
        "ibinn_recent_prior_shift",
        "ibinn_recent_covariate_shift",
        "ibinn_drift_log_evidence",
        "ibinn_drift_log_threshold",
        "ibinn_drift_alarms_total",
        "ibinn_guarantee_suspended",
        "ibinn_records_written_total",
        "ibinn_records_dropped_total",
        "ibinn_feedback_total",
    }
)

Key = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The server's metrics at one time.

    Attributes:
        at_s: Seconds since the loop began.
        values: Value by name and labels.
        alerts: Alerts of Prometheus that fire.
    """

    at_s: float
    values: Mapping[Key, float]
    alerts: tuple[str, ...]

    def total(self, name: str, **labels: str) -> float:
        """Sum of the samples of a name that have these labels."""
        wanted = frozenset(labels.items())
        return sum(value for (found, has), value in self.values.items()
                   if found == name and wanted <= has)  # fmt: skip

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Sums by the values of one label."""
        wanted = frozenset(labels.items())
        sums: dict[str, float] = {}
        for (found, has), value in self.values.items():
            if found == name and wanted <= has:
                key = dict(has).get(label, "")
                sums[key] = sums.get(key, 0.0) + value
        return sums


def read_metrics(text: str) -> Mapping[Key, float]:
    """The samples of the watched names in the text that Prometheus would read."""
    return MappingProxyType(
        {
            (sample.name, frozenset(sample.labels.items())): float(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name in WATCHED
        }
    )


class Watch:
    """Reads metrics and alerts once a second, in a thread, from `start` to `stop`.

    Args:
        server: Whose metrics.
        prometheus: Whose alerts; None: no alerts.
        timeline: Gives the time, and is told of alerts.
    """

    def __init__(
        self,
        server: Server,
        prometheus: Prometheus | None,
        timeline: Timeline,
    ) -> None:
        self._server = server
        self._prometheus = prometheus
        self._timeline = timeline
        self._samples: list[Sample] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="loop-watch", daemon=True)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Everything read so far."""
        return tuple(self._samples)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Read once more, and end; nothing happens the second time."""
        self._ended.set()
        self._thread.join()

    def read(self) -> Sample:
        """The metrics as they are now.

        Raises:
            UnavailableError: The server does not tell.
        """
        try:
            values = read_metrics(self._server.scrape())
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            raise UnavailableError(
                f"{self._server.metrics} cannot be read: {error}; see {self._server.log}",
                code="UNAVAILABLE",
            ) from error
        return Sample(at_s=self._timeline.now_s(), values=values, alerts=())

    def _work(self) -> None:
        firing: frozenset[str] = frozenset()
        last = False
        while not last:
            last = self._ended.wait(PERIOD_S)
            try:
                values = read_metrics(self._server.scrape())
                alerts = self._prometheus.alerts() if self._prometheus is not None else ()
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                continue  # the next reading may succeed; a gap shows in the plots
            sample = Sample(at_s=self._timeline.now_s(), values=values, alerts=alerts)
            self._samples.append(sample)
            for name in sorted(set(alerts) - firing):
                self._timeline.tell("alarm", f"Prometheus: alert {name} fires", name=name)
            for name in sorted(firing - set(alerts)):
                self._timeline.tell("note", f"Prometheus: alert {name} is over")
            firing = frozenset(alerts)
