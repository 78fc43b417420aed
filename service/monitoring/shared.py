"""Metrics of several processes that serve one port, added up.

Each worker counts in files of a folder of its own place, not of its process id: the worker that
takes the place of a dead one counts on from where that one was killed, so nothing is lost and the
number of files is bounded. The supervisor reads the files of all.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import prometheus_client.values
from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, ProcessCollector
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # the library reads it whenever it opens a file
_REFRESH_S = 0.2


def join(folder: Path, *, place: int) -> None:
    """Makes this process count in files; call it before the first `Monitor` is made.

    Args:
        folder: Where all workers of the server count.
        place: This worker's number; no other living worker has it.
    """
    os.environ[_VARIABLE] = str(folder)
    prometheus_client.values.ValueClass = prometheus_client.values.MultiProcessValue(lambda: place)


def active() -> bool:
    """Whether this process counts in files that a supervisor adds up."""
    return _VARIABLE in os.environ


def watch(numbers: Mapping[Gauge, Callable[[], float]]) -> None:
    """Makes each gauge show its number: when it is read, or a moment later where processes are
    added up, because a file cannot ask."""
    if not active():
        for gauge, number in numbers.items():
            gauge.set_function(number)
        return

    def refresh() -> None:
        while not pause.wait(_REFRESH_S):
            for gauge, number in numbers.items():
                gauge.set(number())

    pause = threading.Event()
    threading.Thread(target=refresh, name="ibinn-gauges", daemon=True).start()


def forget(gauge: Gauge, labels: Iterable[str], *, neutral: float = -math.inf) -> None:
    """Takes a series out of a gauge, if it is there. A file keeps it, and `Sum` leaves it out.

    Args:
        gauge: Where processes are added up, the smallest or the largest of their values counts.
        labels: Of the series.
        neutral: What leaves the other processes' values as they are: ``-inf`` where the largest
            counts, ``inf`` where the smallest does.
    """
    if active():
        gauge.labels(*labels).set(neutral)
    else:
        with contextlib.suppress(KeyError):
            gauge.remove(*labels)


class Sum(Collector):
    """The metrics of a server's workers, and of the processes themselves.

    Args:
        folder: Where the workers count.

    Attributes:
        registry: Yields the sums.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, ProcessCollector] = {
            "supervisor": ProcessCollector(registry=None)
        }
        self._counted = MultiProcessCollector(None, path=str(folder))
        self.registry = CollectorRegistry()
        self._serving: set[int] = set()
        workers = Gauge("ibinn_workers", "Worker processes that serve.", registry=self.registry)
        workers.set_function(lambda: len(self._serving))
        self._restarts = Counter(
            "ibinn_worker_restarts",
            "Workers that died and were replaced.",
            registry=self.registry,
        )
        self.registry.register(self)

    def started(self, place: int, pid: int) -> None:
        """A worker lives at a place from now on."""
        self._processes = {
            **self._processes,
            str(place): ProcessCollector(pid=lambda: pid, registry=None),
        }

    def serves(self, place: int) -> None:
        """The worker of a place has its model and listens from now on."""
        self._serving.add(place)

    def ended(self, place: int) -> None:
        """The worker of a place is gone; what it counted stays, its gauges go."""
        self._processes = {
            name: found for name, found in self._processes.items() if name != str(place)
        }
        self._serving.discard(place)
        mark_process_dead(place, path=str(self._folder))

    def restarted(self) -> None:
        """A worker that had died was replaced."""
        self._restarts.inc()

    def collect(self) -> Iterator[Metric]:
        """Every metric of the workers, then ``process_`` metrics by worker."""
        for metric in self._counted.collect():
            if metric.type == "gauge":
                metric.samples = [one for one in metric.samples if math.isfinite(one.value)]
            yield metric
        yield from _by_worker(self._processes)

    def describe(self) -> Iterator[Metric]:
        """Nothing: what there is depends on the workers."""
        return iter(())


def _by_worker(processes: Mapping[str, ProcessCollector]) -> Iterator[Metric]:
    merged: dict[str, Metric] = {}
    for name, collector in processes.items():
        for metric in collector.collect():
            whole = merged.setdefault(
                metric.name, Metric(metric.name, metric.documentation, metric.type)
            )
            for sample in metric.samples:
                whole.add_sample(sample.name, {**sample.labels, "worker": name}, sample.value)
    yield from merged.values()
