"""Times of several things in alternating blocks, so that a busy machine cancels in ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import binom

Step = Callable[[], object]
Clock = Callable[[], float]

LEAST_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The middle of repeated values.

    Attributes:
        median: Of them.
        low: 95 % interval of the median by order statistics; with fewer than six values, the
            smallest and the largest of them.
        high: Likewise.
        count: How many values.
    """

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of values that are as good as independent, at least one."""
        ordered = sorted(values)
        rank = lower_rank(len(ordered))
        return cls(
            median=statistics.median(ordered),
            low=ordered[rank],
            high=ordered[-1 - rank],
            count=len(ordered),
        )

    def scaled(self, factor: float) -> Spread:
        """In another unit."""
        ends = sorted((self.low * factor, self.high * factor))
        return Spread(median=self.median * factor, low=ends[0], high=ends[1], count=self.count)


def lower_rank(count: int) -> int:
    """The largest r with P(Binomial(count, 1/2) <= r) <= 2.5 %, or 0.

    Of the ordered values, numbers r and count - 1 - r (from 0) then hold the median with 95 %.
    """
    first_above = int(binom.ppf(0.025, count, 0.5))  # the smallest r with at least 2.5 %
    return max(0, first_above - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Seconds per call of each step, one value per block; blocks of one round stand side by side.

    Attributes:
        seconds: Step name -> (rounds,).
        calls: Step name -> calls that were timed in all.
    """

    seconds: Mapping[str, tuple[float, ...]]
    calls: Mapping[str, int]

    @property
    def rounds(self) -> int:
        """How often each step had its turn."""
        return len(next(iter(self.seconds.values())))

    def spread(self, name: str) -> Spread:
        """Seconds per call."""
        return Spread.of(self.seconds[name])

    def ratio(self, name: str, to: str) -> Spread:
        """Time of one step over that of another, round by round."""
        pairs = zip(self.seconds[name], self.seconds[to], strict=True)
        return Spread.of([one / other for one, other in pairs])

    def fastest(self, names: Sequence[str]) -> str:
        """The one with the smallest median."""
        return min(names, key=lambda name: statistics.median(self.seconds[name]))


def alternate(
    steps: Mapping[str, Step],
    *,
    seconds: float,
    block_s: float = 0.3,
    rounds: int = 40,
    clock: Clock = time.perf_counter,
) -> Blocks:
    """Let each step have its turn, again and again, every second round in the opposite order.

    A block is one call that is not timed, since threads and caches come from another step, and
    then as many as `block_s` takes, at least one; their median counts.

    Args:
        steps: What to time, by name.
        seconds: Time for all of it; at least `LEAST_ROUNDS` rounds are made.
        block_s: Time of one block.
        rounds: Most rounds.
        clock: In seconds.
    """
    found: dict[str, list[float]] = {name: [] for name in steps}
    calls = dict.fromkeys(steps, 0)
    start, done = clock(), 0
    while done < LEAST_ROUNDS or (done < rounds and clock() - start < seconds):
        order = list(steps) if done % 2 == 0 else list(steps)[::-1]
        for name in order:
            times = _block(steps[name], block_s, clock)
            found[name].append(statistics.median(times))
            calls[name] += len(times)
        done += 1
    return Blocks(seconds={name: tuple(times) for name, times in found.items()}, calls=calls)


def _block(step: Step, block_s: float, clock: Clock) -> list[float]:
    step()
    times: list[float] = []
    begin = clock()
    while not times or clock() - begin < block_s:
        before = clock()
        step()
        times.append(clock() - before)
    return times
