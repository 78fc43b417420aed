"""What a load test does: how much is sent, when, how long, and to whom."""

from __future__ import annotations

import enum
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from ibinn.client.channels import Connection
from ibinn.errors import ConfigError
from ibinn.load_test.work import StreamWork, Work


class Arrivals(enum.StrEnum):
    """How intended send times lie."""

    UNIFORM = "uniform"
    """One after the other at equal distances."""
    POISSON = "poisson"
    """At random and independently, as from many callers; bursts occur."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Open loop.

    Attributes:
        images_per_s: Images to send in a second, on average.
        arrivals: How send times lie.
        seed: Of random arrivals.
    """

    images_per_s: float
    arrivals: Arrivals = Arrivals.UNIFORM
    seed: int = 0

    def __post_init__(self) -> None:
        _check_positive("rate", self.images_per_s)


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Closed loop.

    Attributes:
        calls: Calls (messages, for a stream) that are unanswered at any time.
    """

    calls: int

    def __post_init__(self) -> None:
        _check_positive("concurrency", self.calls)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One load test.

    Attributes:
        target: The server's address, ``host:port``; or a connection, for TLS and a token.
        work: What is sent.
        load: How much of it.
        duration_s: Time that is measured.
        warm_up_s: Time before it, with the same load, that is not.
        deadline_s: Given to every call; an answer that comes later after the intended send time
            is late.
        connections: TCP connections, used in turn.
    """

    target: str | Connection
    work: Work
    load: Rate | Concurrency
    duration_s: float = 10.0
    warm_up_s: float = 1.0
    deadline_s: float = 5.0
    connections: int = 1

    def __post_init__(self) -> None:
        _check_positive("duration", self.duration_s)
        _check_positive("deadline", self.deadline_s)
        _check_positive("connections", self.connections)
        if self.warm_up_s < 0:
            raise ConfigError(f"warm-up is {self.warm_up_s:g} s, expected 0 or more")

    @property
    def connection(self) -> Connection:
        """How the server is spoken to."""
        return (
            self.target if isinstance(self.target, Connection) else Connection(target=self.target)
        )

    @property
    def images_per_call(self) -> int:
        """Images in one call, or in one message of a stream."""
        return self.work.images_per_message if isinstance(self.work, StreamWork) else 1


def intended_times(rate: Rate, *, images_per_call: int, until_s: float) -> Iterator[float]:
    """Intended send times of calls, in seconds from the start, below `until_s`."""
    gap = images_per_call / rate.images_per_s
    times: Iterator[float]
    if rate.arrivals is Arrivals.UNIFORM:
        times = (index * gap for index in itertools.count())
    else:
        draw = random.Random(rate.seed)
        times = itertools.accumulate(draw.expovariate(1 / gap) for _ in itertools.count())
    return itertools.takewhile(lambda time: time < until_s, times)


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{name} is {value:g}, expected more than 0")
