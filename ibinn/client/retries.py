"""When a call that failed is tried again, and when not.

Repeated are calls that the server turned away (RESOURCE_EXHAUSTED) or that did not reach one
(UNAVAILABLE); all calls of `ibinn.client.Client` may safely be made twice. The waits before the
attempts n = 2, 3, … are drawn from [0, min(max, base 2^(n-2))] (full jitter: Brooker 2015), after
the time that the server asked for. No wait passes the call's deadline: where it would, the failure
is raised at once. A budget, shared by all calls of a client, ends retries while most calls fail
(gRPC A6, retry throttling), so that they cannot multiply an overload.

gRPC itself repeats a call once if the server provably saw nothing of it, unnoticed here; it is
given no retry policy of its own.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from ibinn.errors import ConfigError, OverloadedError, RemoteError, UnavailableError

Clock = Callable[[], float]
Draw = Callable[[float, float], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and how soon a failed call is tried again.

    Attributes:
        attempts: Most attempts, the first one included.
        base_s: Longest own wait before the second attempt; doubled for each further one.
        max_s: Longest own wait. One that the server asks for may be longer.
        budget: A failure takes 1 from it, a success gives `refill` back; at or below half of it
            nothing is tried again.
        refill: Share of successes that retries may add to the load in the long run.
    """

    attempts: int = 4
    base_s: float = 0.1
    max_s: float = 5.0
    budget: float = 10.0
    refill: float = 0.1

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError(f"attempts is {self.attempts}, expected at least 1; 1 is no retry")
        for name in ("base_s", "max_s", "budget", "refill"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} of Retry is {value}, expected a number of at least 0")

    @classmethod
    def none(cls) -> Self:
        """Every failure is raised at once."""
        return cls(attempts=1)

    def wait_s(self, failed: int, error: RemoteError, *, draw: Draw) -> float:
        """How long to wait after a failure: never less than the server asked for.

        Args:
            failed: Attempts made so far, at least 1.
            error: What the last one ended with.
            draw: Uniform on an interval.
        """
        # Beyond 2^62 the bound is `max_s` anyway.
        own = draw(0.0, min(self.max_s, self.base_s * 2.0 ** min(failed - 1, 62)))
        return (error.retry_after_s or 0.0) + own


class Budget:
    """What a client's calls may spend on retries together; usable from several threads."""

    def __init__(self, retry: Retry) -> None:
        self._most = retry.budget
        self._refill = retry.refill
        self._left = retry.budget
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        """Counts a call that got through."""
        with self._lock:
            self._left = min(self._most, self._left + self._refill)

    def failed(self) -> bool:
        """Counts a call that may be tried again, and says whether there is enough left for it."""
        with self._lock:
            self._left = max(0.0, self._left - 1.0)
            return self._left > self._most / 2


def may_be_repeated(error: RemoteError) -> bool:
    """Whether another try could end otherwise."""
    return isinstance(error, OverloadedError | UnavailableError)


class Attempts:
    """The attempts of one call within its time.

    Args:
        retry: How often and how soon.
        budget: The client's.
        timeout_s: Time for all attempts together; None: no end.
    """

    def __init__(
        self,
        retry: Retry,
        budget: Budget,
        *,
        timeout_s: float | None,
        clock: Clock = time.monotonic,
        draw: Draw = random.uniform,
    ) -> None:
        self._retry = retry
        self._budget = budget
        self._clock = clock
        self._draw = draw
        self._deadline = math.inf if timeout_s is None else clock() + timeout_s
        self._failed = 0

    @property
    def left_s(self) -> float | None:
        """Time for the next attempt; None: no end."""
        left = self._deadline - self._clock()
        return None if math.isinf(left) else max(0.0, left)

    def succeeded(self) -> None:
        """Counts the end of the call."""
        self._budget.succeeded()

    def wait_s(self, error: RemoteError) -> float | None:
        """How long to wait before the next attempt; None: there is none."""
        self._failed += 1
        if not may_be_repeated(error):
            return None
        affordable = self._budget.failed()
        if self._failed >= self._retry.attempts or not affordable:
            return None
        wait_s = self._retry.wait_s(self._failed, error, draw=self._draw)
        return wait_s if self._clock() + wait_s < self._deadline else None
