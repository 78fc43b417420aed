"""What a load test found, and how it is worked out from single calls."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

OK = "OK"
REJECTED = "RESOURCE_EXHAUSTED"
EXPIRED = "DEADLINE_EXCEEDED"
NO_ANSWER = "NO_ANSWER"
"""An image of a stream that got neither answer nor status in its time."""

LARGEST_P99_LAG_S = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Quantiles of exact values: the smallest value that at least this share does not exceed.

    All are None where there is no value.
    """

    count: int
    p50_s: float | None
    p90_s: float | None
    p99_s: float | None
    p999_s: float | None
    max_s: float | None

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Quantiles:
        """Of these times."""
        ordered = sorted(seconds)
        return cls(
            count=len(ordered),
            p50_s=_quantile(ordered, 0.5),
            p90_s=_quantile(ordered, 0.9),
            p99_s=_quantile(ordered, 0.99),
            p999_s=_quantile(ordered, 0.999),
            max_s=_quantile(ordered, 1.0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeFigures:
    """Images that ended with one status.

    Attributes:
        code: Its name.
        share: Of all sent.
        latency: From intended send time to the status.
    """

    code: str
    share: float
    latency: Quantiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Second:
    """Images meant to be sent in one second of the measured time.

    Attributes:
        second: The second's number, from 0; the last one may be shorter.
        sent: All.
        good: Answered within the deadline.
        late: Answered later.
        rejected: Ended with RESOURCE_EXHAUSTED.
        expired: Ended with DEADLINE_EXCEEDED.
        failed: Ended with any other status, or none.
        p50_s: Median latency of answers; None without answers.
        p99_s: Their 99 % quantile.
    """

    second: int
    sent: int
    good: int
    late: int
    rejected: int
    expired: int
    failed: int
    p50_s: float | None
    p99_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """Result of a load test. All counts are of images meant to be sent in the measured time.

    Attributes:
        target: The server's address.
        method: Full name of the method called.
        offered_per_s: Images per second that were to be sent; None in a closed loop.
        concurrency: Calls kept unanswered in a closed loop; None in an open one.
        connections: TCP connections.
        duration_s: Measured time.
        deadline_s: Time that each call was given.
        sent: Images sent.
        answered: Images that got an answer, late ones included.
        good: Answered within the deadline.
        late: Answered later.
        rejected: Ended with RESOURCE_EXHAUSTED.
        expired: Ended with DEADLINE_EXCEEDED.
        failed: Ended with any other status, or none.
        good_share: Of all sent; likewise the next two.
        late_share: Answered too late.
        rejected_share: Rejected.
        sent_per_s: Images sent per second.
        goodput: Images answered within the deadline per second.
        latency: Of answered images, from intended send time to the answer.
        codes: By status, the most frequent first.
        lag: How long after its intended time each call was sent.
        kept_up: Whether the 99 % quantile of the lag is at most 5 ms. If not, latencies are the
            generator's too, and the load was not the one asked for.
        generator_cpu_s: CPU time of the generator's process.
        seconds: Course over time.
    """

    target: str
    method: str
    offered_per_s: float | None
    concurrency: int | None
    connections: int
    duration_s: float
    deadline_s: float
    sent: int
    answered: int
    good: int
    late: int
    rejected: int
    expired: int
    failed: int
    good_share: float
    late_share: float
    rejected_share: float
    sent_per_s: float
    goodput: float
    latency: Quantiles
    codes: tuple[CodeFigures, ...]
    lag: Quantiles
    kept_up: bool
    generator_cpu_s: float
    seconds: tuple[Second, ...]


class Tally:
    """Takes down what happens to every image of the measured time.

    Args:
        begin: Clock at which the measured time begins; images meant earlier are warm-up.
        duration_s: How long it is.
        deadline_s: Later answers are late.
    """

    def __init__(self, *, begin: float, duration_s: float, deadline_s: float) -> None:
        self._begin = begin
        self._end = begin + duration_s
        self._duration_s = duration_s
        self._deadline_s = deadline_s
        self._numbers: dict[str, int] = {OK: 0}
        self._lags = array("d")
        self._intended = array("d")
        self._latencies = array("d")
        self._codes = array("B")
        self.sent = 0
        self.settled = 0
        self.good = 0

    def send(self, intended: float, now: float, images: int) -> None:
        """A call was sent that should have been sent at `intended`."""
        if self._begin <= intended < self._end:
            self._lags.append(now - intended)
            self.sent += images

    def settle(self, intended: float, now: float, code: str) -> None:
        """One image got its answer or status."""
        if self._begin <= intended < self._end:
            latency = now - intended
            self._intended.append(intended - self._begin)
            self._latencies.append(latency)
            self._codes.append(self._numbers.setdefault(code, len(self._numbers)))
            self.settled += 1
            self.good += code == OK and latency <= self._deadline_s

    def report(
        self,
        *,
        target: str,
        method: str,
        offered_per_s: float | None,
        concurrency: int | None,
        connections: int,
        generator_cpu_s: float,
    ) -> LoadReport:
        """The figures, once all is settled."""
        duration_s = self._duration_s
        codes = self._by_code()
        counts = {figures.code: figures.latency.count for figures in codes}
        answered, good = counts.get(OK, 0), self.good
        rejected, expired = counts.get(REJECTED, 0), counts.get(EXPIRED, 0)
        lag = Quantiles.of(self._lags)
        return LoadReport(
            target=target,
            method=method,
            offered_per_s=offered_per_s,
            concurrency=concurrency,
            connections=connections,
            duration_s=duration_s,
            deadline_s=self._deadline_s,
            sent=self.sent,
            answered=answered,
            good=good,
            late=answered - good,
            rejected=rejected,
            expired=expired,
            failed=self.sent - answered - rejected - expired,
            good_share=_share(good, self.sent),
            late_share=_share(answered - good, self.sent),
            rejected_share=_share(rejected, self.sent),
            sent_per_s=self.sent / duration_s,
            goodput=good / duration_s,
            latency=self._latencies_of(OK),
            codes=codes,
            lag=lag,
            kept_up=lag.p99_s is None or lag.p99_s <= LARGEST_P99_LAG_S,
            generator_cpu_s=generator_cpu_s,
            seconds=self._seconds(math.ceil(duration_s)),
        )

    def _latencies_of(self, code: str) -> Quantiles:
        number = self._numbers[code]
        pairs = zip(self._latencies, self._codes, strict=True)
        return Quantiles.of(latency for latency, found in pairs if found == number)

    def _by_code(self) -> tuple[CodeFigures, ...]:
        found = [
            CodeFigures(code=code, share=_share(latency.count, self.sent), latency=latency)
            for code in self._numbers
            if (latency := self._latencies_of(code)).count
        ]
        return tuple(sorted(found, key=lambda figures: -figures.latency.count))

    def _seconds(self, count: int) -> tuple[Second, ...]:
        names = list(self._numbers)
        latencies: list[dict[str, list[float]]] = [{} for _ in range(count)]
        for intended, latency, code in zip(
            self._intended, self._latencies, self._codes, strict=True
        ):
            latencies[min(int(intended), count - 1)].setdefault(names[code], []).append(latency)
        return tuple(self._second(number, found) for number, found in enumerate(latencies))

    def _second(self, number: int, latencies: dict[str, list[float]]) -> Second:
        counts = {code: len(found) for code, found in latencies.items()}
        ordered = sorted(latencies.get(OK, ()))
        good = sum(latency <= self._deadline_s for latency in ordered)
        rejected, expired = counts.get(REJECTED, 0), counts.get(EXPIRED, 0)
        return Second(
            second=number,
            sent=sum(counts.values()),
            good=good,
            late=len(ordered) - good,
            rejected=rejected,
            expired=expired,
            failed=sum(counts.values()) - len(ordered) - rejected - expired,
            p50_s=_quantile(ordered, 0.5),
            p99_s=_quantile(ordered, 0.99),
        )


def _quantile(ordered: Sequence[float], q: float) -> float | None:
    if not ordered:
        return None
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def _share(count: int, of: int) -> float:
    return count / of if of else 0.0
