"""What a scenario's result must keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar


class Result(Protocol):
    """What a scenario found; a frozen dataclass of figures."""

    @property
    def broken(self) -> tuple[str, ...]:
        """The laws that it breaks, in words with the figures; empty: none."""


R = TypeVar("R", bound=Result)


def tried(measure: Callable[[], R], *, times: int = 3) -> tuple[R, int]:
    """The first result that keeps its laws, else the last, and how many there were.

    For laws about rates and latencies: what else runs on the machine can break them once, a fault
    of the server breaks them every time.
    """
    result, attempts = measure(), 1
    while result.broken and attempts < times:
        result, attempts = measure(), attempts + 1
    return result, attempts


def broken(*laws: tuple[bool, str]) -> tuple[str, ...]:
    """What to say of the laws that do not hold.

    Args:
        laws: Whether each holds, and what to say where it does not.
    """
    return tuple(said for holds, said in laws if not holds)
