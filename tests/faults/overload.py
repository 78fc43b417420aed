"""Five times what the server can do: it does what it can and tells the others at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ibinn import load_test
from ibinn.client import Client, Retry
from ibinn.client.channels import Connection
from ibinn.errors import IbinnError
from ibinn.load_test import Concurrency, LoadReport, Plan, Progress, Rate
from tests.faults.laws import broken
from tests.faults.resources import watched_rss
from tests.faults.server import Samples, ServerProcess, stub_server, total
from tests.service.stub import png

BATCH_S = 0.05
BATCH_SIZE = 8
GOODPUT = 0.9
RECOVERY_S = 2.0
_GROWTH_MB = 20.0
_LATE_S = 0.1
"""On a busy machine a status that was due at its deadline may be seen this much later."""
_PROBES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class OverloadResult:
    """What a server does under more load than it can carry. Rates are images per second.

    Attributes:
        capacity: Most answers per second in closed loops, measured in the same run.
        offered: Calls per second that were sent, open loop.
        seconds: For how long.
        deadline_s: Of each call.
        goodput: Answers within their deadline per second.
        goodput_share: Goodput over capacity.
        answered_p50_s: Latency of answers from the intended time; likewise p99.
        outcomes: How many calls ended how.
        slowest_s: Longest time from a call's intended time to its end.
        refused_p50_s: Median time to RESOURCE_EXHAUSTED; None: there was none.
        refused_p99_s: And its 99 % quantile.
        kept_up: Whether the generator sent on time.
        expired_computed: Images computed though their time had run out (the server's counter).
        in_vain: Share of computed images whose call was over when they were done.
        single_p50_s: Median latency of single calls before.
        recovery_s: From the load's end until five single calls in a row have a normal median;
            infinite if they never had.
        rss_start_mb: Memory of the server when the first tenth of the load was over.
        rss_end_mb: Most of it in the last tenth.
        faults: Faults in its log.
    """

    capacity: float
    offered: float
    seconds: float
    deadline_s: float
    goodput: float
    goodput_share: float
    answered_p50_s: float | None
    answered_p99_s: float | None
    outcomes: dict[str, int]
    slowest_s: float
    refused_p50_s: float | None
    refused_p99_s: float | None
    kept_up: bool
    expired_computed: float
    in_vain: float
    single_p50_s: float
    recovery_s: float
    rss_start_mb: float
    rss_end_mb: float
    faults: tuple[str, ...]

    @property
    def broken(self) -> tuple[str, ...]:
        allowed = {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
        return broken(
            (
                self.goodput_share >= GOODPUT,
                f"goodput {self.goodput:.0f}/s of capacity {self.capacity:.0f}/s",
            ),
            (set(self.outcomes) <= allowed, f"calls ended with {self.outcomes}"),
            (
                self.slowest_s <= self.deadline_s + _LATE_S,
                f"a call took {self.slowest_s:.2f} s, its deadline was {self.deadline_s:g} s",
            ),
            (self.expired_computed == 0, f"{self.expired_computed:g} expired images computed"),
            (
                self.rss_end_mb <= self.rss_start_mb + _GROWTH_MB,
                f"memory {self.rss_start_mb:.0f} -> {self.rss_end_mb:.0f} MB",
            ),
            (self.recovery_s <= RECOVERY_S, f"recovered after {self.recovery_s:.1f} s"),
            (not self.faults, f"log: {self.faults[:3]}"),
        )


def measure(
    seconds: float = 60.0,
    *,
    server: ServerProcess | None = None,
    images: Sequence[bytes] | None = None,
    factor: float = 5.0,
    deadline_s: float = 1.0,
    capacity_s: float = 6.0,
    concurrency: Sequence[int] = (16, 32),
    connections: int = 4,
    told: Callable[[str], None] = lambda line: None,
) -> OverloadResult:
    """Measures capacity, offers a multiple of it in an open loop, and watches the recovery.

    Args:
        seconds: Length of the overload.
        server: Of which model; None: a stub that takes 50 ms for each batch of at most 8.
        images: Sent in turn; None: small ones.
        factor: Offered load over capacity.
        deadline_s: Of each call.
        capacity_s: Length of each measurement of capacity.
        concurrency: Calls at a time of these measurements; the best one counts.
        connections: Of the load.
        told: Hears of the progress.
    """
    if server is None:
        with stub_server(batch_s=BATCH_S, max_batch_size=BATCH_SIZE) as stub:
            return measure(
                seconds,
                server=stub,
                images=images,
                factor=factor,
                deadline_s=deadline_s,
                capacity_s=capacity_s,
                concurrency=concurrency,
                connections=connections,
                told=told,
            )
    sent = [png(value) for value in range(64)] if images is None else list(images)
    capacity = max(
        saturated(server, sent, calls=calls, seconds=capacity_s).goodput for calls in concurrency
    )
    told(f"capacity {capacity:.0f} images/s; now {factor:g} times as many")
    with Client(server.target, timeout_s=10.0, retry=Retry.none()) as client:
        single_s = _single_s(client, sent)
        before = server.scrape()
        ends: list[float] = []

        def progress(now: Progress) -> None:
            ends[:] = [time.monotonic() - now.elapsed_s + seconds]
            told(f"{max(now.elapsed_s, 0):.0f} of {seconds:g} s, {now.good:,} good answers")

        plan = Plan(
            target=server.target,
            work=load_test.classify_work(sent),
            load=Rate(factor * capacity),
            duration_s=seconds,
            warm_up_s=1.0,
            deadline_s=deadline_s,
            connections=connections,
        )
        with watched_rss(server.pid) as samples:
            report = load_test.run(plan, progress=progress)
            recovered = _recovered(client, sent, normal_s=single_s, until=ends[0] + 10)
    after = server.scrape()
    images_computed = computed(after) - computed(before)
    answers = _answers(after) - _answers(before)
    warm_s, last_s = ends[0] - 0.9 * seconds, ends[0] - 0.1 * seconds
    times = [code.latency.max_s for code in report.codes if code.latency.max_s is not None]
    refused = next((c.latency for c in report.codes if c.code == "RESOURCE_EXHAUSTED"), None)
    return OverloadResult(
        capacity=capacity,
        offered=factor * capacity,
        seconds=seconds,
        deadline_s=deadline_s,
        goodput=report.goodput,
        goodput_share=report.goodput / capacity,
        answered_p50_s=report.latency.p50_s,
        answered_p99_s=report.latency.p99_s,
        outcomes={code.code: code.latency.count for code in report.codes},
        slowest_s=max(times, default=0.0),
        refused_p50_s=None if refused is None else refused.p50_s,
        refused_p99_s=None if refused is None else refused.p99_s,
        kept_up=report.kept_up,
        expired_computed=server.metric("ibinn_computed_expired_total"),
        in_vain=1 - answers / max(1.0, images_computed),
        single_p50_s=single_s,
        recovery_s=recovered - ends[0],
        rss_start_mb=max((mb for at, mb in samples if at <= warm_s), default=0.0),
        rss_end_mb=max((mb for at, mb in samples if last_s <= at <= ends[0]), default=0.0),
        faults=server.faults(),
    )


def saturated(
    server: ServerProcess,
    images: Sequence[bytes],
    *,
    calls: int,
    seconds: float,
    connection: Connection | None = None,
) -> LoadReport:
    """What the server answers where so many calls are unanswered at any time."""
    return load_test.run(
        Plan(
            target=connection or server.target,
            work=load_test.classify_work(images),
            load=Concurrency(calls),
            duration_s=seconds,
            warm_up_s=1.0,
            deadline_s=20.0,
        )
    )


def computed(samples: Samples, lane: str = "classify") -> float:
    """How many images the server has computed."""
    return total(samples, "ibinn_batch_size_sum", lane=lane)


def _answers(samples: Samples) -> float:
    """How many calls of Classify were answered."""
    return total(samples, "ibinn_requests_total", method="Classify", code="OK")


def _single_s(client: Client, images: Sequence[bytes]) -> float:
    """Median latency of calls one after the other."""
    found = []
    for value in range(20):
        start = time.monotonic()
        client.classify(images[value % len(images)])
        found.append(time.monotonic() - start)
    return statistics.median(found)


def _recovered(client: Client, images: Sequence[bytes], *, normal_s: float, until: float) -> float:
    """When the median of the last five single calls was normal again; infinite if never."""
    found: list[float] = []
    while (start := time.monotonic()) < until:
        try:
            client.classify(images[len(found) % len(images)])
        except IbinnError:
            found.append(float("inf"))
            continue
        found.append(time.monotonic() - start)
        last = statistics.median(found[-_PROBES:])
        if len(found) >= _PROBES and last <= 1.5 * normal_s + 0.01:
            return time.monotonic()
    return float("inf")
