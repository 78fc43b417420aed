"""What a scenario's result must keep."""

from __future__ import annotations

from typing import Protocol


class Result(Protocol):
    """What a scenario found; a frozen dataclass of figures."""

    @property
    def broken(self) -> tuple[str, ...]:
        """The laws that it breaks, in words with the figures; empty: none."""


def broken(*laws: tuple[bool, str]) -> tuple[str, ...]:
    """What to say of the laws that do not hold.

    Args:
        laws: Whether each holds, and what to say where it does not.
    """
    return tuple(said for holds, said in laws if not holds)
