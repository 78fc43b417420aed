"""Whether a busy server holds a small batch for more images, and for how long."""

from __future__ import annotations

import math

_WORTH_A_WAIT = 0.5
"""Images that waits must have gained on average to be taken at every chance."""
_PROBE_EVERY = 16


class Holding:
    """Learns whether waits pay.

    Callers that were just answered tend to come back at once; a batch without them would make them
    wait for it, and for the next batch as well. A wait is as long as a batch takes before its first
    image and no longer than the limit: an image that comes in time saves a batch of its own, one
    that does not costs at most that much. An idle server never waits. Where waits gained little of
    late, only every sixteenth chance is taken, to see whether they do again.

    Args:
        longest_s: The limit.
        most: Number of images for which nothing is waited any more.
    """

    def __init__(self, *, longest_s: float, most: int) -> None:
        self._longest_s = longest_s
        self._most = most
        self._expected = 0
        self._last_end = -math.inf
        self._gain = 1.0
        self._chances = 0

    @property
    def target(self) -> int:
        """Number of images at which a batch waits no longer."""
        return min(self._expected, self._most)

    def wait_s(self, now: float, *, ready: int, fixed_s: float) -> float:
        """How long to wait with a batch; 0: not at all.

        Args:
            now: Monotonic time.
            ready: Images there are.
            fixed_s: What a batch takes before its first image.
        """
        since_s = now - self._last_end
        if since_s >= self._longest_s or ready >= self.target:
            return 0.0
        wait_s = min(self._longest_s, fixed_s)
        if since_s >= wait_s:
            return 0.0
        self._chances += 1
        if self._gain < _WORTH_A_WAIT and self._chances % _PROBE_EVERY:
            return 0.0
        return wait_s

    def waited(self, gained: int) -> None:
        """A wait is over, and so many images came."""
        self._gain += 0.2 * (gained - self._gain)

    def answered(self, now: float, *, answered: int, ready: int) -> None:
        """A batch ended; its callers and those that wait are expected in the next one."""
        self._expected, self._last_end = answered + ready, now
