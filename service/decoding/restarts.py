"""How soon a decoder process that ended is replaced."""

from __future__ import annotations

from collections.abc import Callable

_FREE = 8.0
_FORGOTTEN_PER_S = 0.5
_FIRST_REST_S = 0.25
_LONGEST_REST_S = 5.0


class Restarts:
    """At once, as long as that is rare; then after rests that grow with what was not forgotten.

    Every end adds 1 to a level that falls by one in two seconds. Up to a level of 8 there is no
    rest; above it the first is a quarter of a second, and each further end doubles it, up to 5 s.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._level = 0.0
        self._at = self._rest_until = clock()

    def ended(self) -> None:
        """A process ended that should not have.

        Example:
            >>> restarts = Restarts(lambda: 0.0)
            >>> [(restarts.ended(), restarts.rest_s())[1] for _ in range(11)][-4:]
            [0.0, 0.25, 0.5, 1.0]
        """
        now = self._clock()
        self._level = max(0.0, self._level - (now - self._at) * _FORGOTTEN_PER_S) + 1.0
        self._at = now
        over = self._level - _FREE
        if over > 0:
            self._rest_until = now + min(_LONGEST_REST_S, _FIRST_REST_S * 2.0 ** (over - 1.0))

    def rest_s(self) -> float:
        """How long to wait before the next one starts, in seconds."""
        return max(0.0, self._rest_until - self._clock())
