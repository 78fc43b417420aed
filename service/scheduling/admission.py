"""Whether a request is taken on: by its lane's limit, and by when it would be answered."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ibinn.errors import QueueFullError
from service.scheduling.cost import BatchCost

_TELLING_S = 0.01
_LARGEST_DELAY = 5.0
_FORGETTING_S = 2.0
_CAUTION = 1.5
RETRY_AFTER_S = (0.1, 30.0)
"""Bounds of the advice when to try again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds the scheduler.

    Attributes:
        max_batch_size: Most images in one forward pass.
        max_batch_wait_s: Longest time that a busy server holds a small batch.
        max_pending: Most Classify and Explain requests at one time.
        max_explain_pending: Most Explain requests among them.
        max_background_pending: Most requests of the server's own (shadow, acceptance) beside them.
    """

    max_batch_size: int
    max_batch_wait_s: float
    max_pending: int
    max_explain_pending: int
    max_background_pending: int = 16

    @property
    def small_batch_size(self) -> int:
        """Most images of a batch that others may have to wait for."""
        return max(1, self.max_batch_size // 4)


def predicted_wait_s(
    *,
    ahead: int,
    own: int,
    callers: int,
    batch_size: int,
    cost: BatchCost,
    running_s: float,
    decode_s: float,
) -> float:
    """When a request that arrives now would be answered, in seconds from now.

    Callers take turns, so a request has before it what its own caller has waiting and as much of
    each other caller, never more than all there is:
    ``before = min(ahead, (own + 1) · callers)``. Then come whole batches and a last one.

    Args:
        ahead: Waiting requests that may go first.
        own: Those among them of the same caller.
        callers: Number of callers that have some.
        batch_size: Most images in one batch.
        cost: Learned seconds of a batch.
        running_s: What is left of the batch being computed.
        decode_s: Until this request's image is decoded.
    """
    before = min(ahead, (own + 1) * max(callers, 1))
    whole, rest = divmod(before + 1, batch_size)
    compute_s = whole * cost.seconds(batch_size) + (cost.seconds(rest) if rest else 0.0)
    return decode_s + running_s + compute_s


def cautious_s(predicted_s: float, *, alone_s: float, factor: float) -> float:
    """What a prediction is held against a deadline as: its waiting half as long again.

    A queue as long as deadlines just allow serves nobody better than one that is shorter: the
    server computes as much, but half of the answers come a moment too late. Only waiting is
    lengthened; on an idle server a request needs no more time than it takes.

    Args:
        predicted_s: From `predicted_wait_s`.
        alone_s: The part that a request takes on an idle server.
        factor: From `Delay`.
    """
    return (alone_s + _CAUTION * (predicted_s - alone_s)) * factor


class Delay:
    """By what factor answers come later than predicted, learned from those just given.

    A machine that is shared, or an event loop with much to do, is slower than its batches say; so
    predictions are multiplied by a moving average of actual over predicted time. Times below 10 ms
    tell nothing of queues and do not count. What is not seen again is forgotten within seconds:
    else a factor that turns everybody away would never be put right.
    """

    def __init__(self) -> None:
        self._excess = 0.0
        self._since = 0.0

    def factor(self, now: float) -> float:
        """What to multiply a prediction by, at least 1."""
        return 1.0 + self._excess * math.exp((self._since - now) / _FORGETTING_S)

    def observe(self, now: float, *, actual_s: float, predicted_s: float) -> None:
        """A request was answered, or given up, after that time."""
        if predicted_s >= _TELLING_S:
            excess = min(max(actual_s / predicted_s, 1.0), _LARGEST_DELAY) - 1.0
            before = self.factor(now) - 1.0
            self._excess, self._since = before + 0.05 * (excess - before), now


def full(message: str, *, wait_s: float) -> QueueFullError:
    """The refusal, with advice when to try again."""
    shortest, longest = RETRY_AFTER_S
    return QueueFullError(message, retry_after_s=min(max(wait_s, shortest), longest))
