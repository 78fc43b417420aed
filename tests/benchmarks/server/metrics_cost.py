"""What counting costs, and whether the counts are right."""

from __future__ import annotations

import statistics
import urllib.request
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from ibinn import load_test
from tests.benchmarks.server.images import encoded_images
from tests.benchmarks.server.pairs import Ratio
from tests.benchmarks.server.process import Kind, started

BUDGET = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsCost:
    """Throughput with metrics against throughput without.

    Attributes:
        model: ``null``, where a call costs little else, or ``embedded``.
        off_per_s: Images per second without metrics.
        on_per_s: With them.
        cost: 1 - on / off, its median.
        high: Upper bound of the 95 % interval of the median.
        pairs: Number of pairs.
        sent: Calls that the load generator sent to the counting server.
        counted: Calls that it counted.
    """

    model: str
    off_per_s: float
    on_per_s: float
    cost: float
    high: float
    pairs: int
    sent: int
    counted: int

    @property
    def agrees(self) -> bool:
        """Whether the counters agree with what was sent."""
        return self.sent == self.counted


def metrics_cost(model: str, *, pairs: int, seconds: float) -> MetricsCost:
    """Both servers side by side, one under load at a time."""
    on: list[float] = []
    off: list[float] = []
    sent = 0
    with (
        started(Kind(what=model, threads=2, settings={"metrics": True})) as counting,
        started(Kind(what=model, threads=2, settings={"metrics": False})) as silent,
    ):
        for number in range(pairs + 1):
            both = [(counting, on), (silent, off)]
            for server, found in both if number % 2 else reversed(both):
                report = _run(server.address, seconds)
                if server is counting:
                    sent += report.sent
                if number:  # the first pair warms up
                    found.append(report.goodput)
        counted = _counted(counting.metrics)
    ratio = Ratio.of(on, off)
    return MetricsCost(
        model=model,
        off_per_s=statistics.median(off),
        on_per_s=statistics.median(on),
        cost=1 - ratio.median,
        high=1 - ratio.low,
        pairs=pairs,
        sent=sent,
        counted=counted,
    )


def _run(address: str, seconds: float) -> load_test.LoadReport:
    return load_test.run(
        load_test.Plan(
            target=address,
            work=load_test.classify_work(encoded_images()),
            load=load_test.Concurrency(32),
            duration_s=seconds,
            warm_up_s=0.0,  # every call sent is counted, so that counters can be compared
            deadline_s=30.0,
        )
    )


def _counted(url: str) -> int:
    with urllib.request.urlopen(url, timeout=10) as response:
        text = response.read().decode()
    return int(
        sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "ibinn_requests_total" and sample.labels["method"] == "Classify"
        )
    )
