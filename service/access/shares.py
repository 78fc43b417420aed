"""How many images each caller may send: a token bucket per caller."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ibinn.errors import RateLimitedError

MOST_CALLERS = 10_000
"""Callers remembered; of more, the one that called least recently starts anew."""
_ROUNDING = 1e-9
"""Images that floating point may lose; a caller that waited as long as told is let in."""


class Shares:
    """Buckets that hold `burst` images when full and regain `rate` per second.

    A bucket is stored as the time at which it is full again; a full one is not stored at all. A
    call with more images than the bucket holds is let in when it is full, and leaves it in debt:
    the rate holds on average, and no call waits forever.

    Not thread-safe; meant for the event loop.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """Number of callers with a bucket that is not full, or was not long ago."""
        return len(self._full_at)

    def take(self, name: str, images: int, *, rate: float, burst: int) -> None:
        """Takes images from a caller's bucket.

        Args:
            name: Of the caller.
            images: How many, from 0.
            rate: Images per second that come back, above 0.
            burst: Images in a full bucket, from 1.

        Raises:
            RateLimitedError: There are not as many; nothing was taken.
        """
        now = self._clock()
        self._forget_full(now)
        full_at = max(self._full_at.get(name, now), now)
        there = burst - (full_at - now) * rate
        missing = min(images, burst) - there
        if missing > _ROUNDING:
            wait_s = missing / rate
            raise RateLimitedError(
                f"caller {name!r} may send {rate:g} images per second and {burst} at once; got "
                f"{images} more too early, try again in {wait_s:.3g} s",
                retry_after_s=wait_s,
            )
        self._full_at[name] = full_at + images / rate
        self._full_at.move_to_end(name)
        if len(self._full_at) > MOST_CALLERS:
            self._full_at.popitem(last=False)

    def _forget_full(self, now: float) -> None:
        """Drops the buckets of those who called least recently, as far as they are full."""
        while self._full_at:
            name, full_at = next(iter(self._full_at.items()))
            if full_at > now:
                return
            del self._full_at[name]
