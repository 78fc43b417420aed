"""The series of one labelled metric, found faster than by the library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from prometheus_client import Counter, Histogram

M = TypeVar("M", Counter, Histogram)


class Children(dict[tuple[str, ...], M], Generic[M]):
    """The series of one labelled metric by their labels, kept because looking them up costs more
    than counting.

    Args:
        metric: Has labels.
        known: Labels of the series that exist from the start.
    """

    def __init__(self, metric: M, known: Sequence[tuple[str, ...]] = ()) -> None:
        super().__init__()
        self._metric: M = metric
        for labels in known:
            self[labels]

    def __missing__(self, labels: tuple[str, ...]) -> M:
        child = self[labels] = self._metric.labels(*labels)
        return child
