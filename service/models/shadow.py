"""The shadow: a model that answers a share of the live calls, of which callers see nothing."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from dataclasses import dataclass

from ibinn.errors import IbinnError
from ibinn.types import Prediction
from service.models.served import Background, Served
from service.monitoring import Monitor

_log = logging.getLogger(__name__)

_PATIENCE_S = 5.0
_MOST_OUTSTANDING = 16
"""Images that are held for the shadow at one time; a slow shadow skips the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowFigures:
    """How a shadow compares with the default model, over one worker's answers since it began.

    Attributes:
        compared: Number of answers of both.
        class_differs: Of these, with another most probable class.
        verdict_differs: With another verdict.
        confidence_difference_sum: Sum of |difference| of the probability of the default model's
            most probable class.
        skipped: Calls of the sample that the shadow did not answer.
    """

    compared: int = 0
    class_differs: int = 0
    verdict_differs: int = 0
    confidence_difference_sum: float = 0.0
    skipped: int = 0

    @property
    def mean_confidence_difference(self) -> float:
        """Sum ÷ count; 0 where nothing was compared."""
        return self.confidence_difference_sum / self.compared if self.compared else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Difference:
    class_differs: bool
    verdict_differs: bool
    confidence_difference: float


class Shadow:
    """Asks one model what another one has answered; a fault here costs a comparison, never a call.

    Args:
        served: The shadow.
        share: Of the calls, in (0, 1].
        background: Answers.
        monitor: Exports the differences.
        generator: Draws which calls it answers.

    Attributes:
        served: As given.
        share: As given.
    """

    def __init__(
        self,
        served: Served,
        *,
        share: float,
        background: Background,
        monitor: Monitor,
        generator: random.Random,
    ) -> None:
        self.served = served
        self.share = share
        self._background = background
        self._monitor = monitor
        self._generator = generator
        self._outstanding: set[asyncio.Task[None]] = set()
        self._compared = self._class_differs = self._verdict_differs = self._skipped = 0
        self._confidence_difference_sum = 0.0

    @property
    def figures(self) -> ShadowFigures:
        """What was found so far."""
        return ShadowFigures(
            compared=self._compared,
            class_differs=self._class_differs,
            verdict_differs=self._verdict_differs,
            confidence_difference_sum=self._confidence_difference_sum,
            skipped=self._skipped,
        )

    def observe(self, image: bytes, answer: Prediction) -> None:
        """Hears of an answer of the default model; returns at once."""
        if self._generator.random() >= self.share:
            return
        if len(self._outstanding) >= _MOST_OUTSTANDING:
            self._skip()
            return
        task = asyncio.get_running_loop().create_task(self._compare(image, answer))
        self._outstanding.add(task)
        task.add_done_callback(self._outstanding.discard)

    async def until_idle(self) -> None:
        """Waits for the comparisons that are under way."""
        while self._outstanding:
            await asyncio.wait(self._outstanding)

    def end(self) -> None:
        """Gives up the comparisons that are under way."""
        for task in self._outstanding:
            task.cancel()

    async def _compare(self, image: bytes, answer: Prediction) -> None:
        try:
            other = await self._background(self.served, image, patience_s=_PATIENCE_S)
            found = _difference(answer, other)
        except IbinnError:  # no room, no time: what a busy server does
            self._skip()
        except Exception:  # noqa: BLE001 - a task's main: a fault of the shadow costs no call
            _log.exception("the shadow %r failed", self.served.bundle)
            self._skip()
        else:
            self._count(found)

    def _count(self, found: _Difference) -> None:
        self._compared += 1
        self._class_differs += found.class_differs
        self._verdict_differs += found.verdict_differs
        self._confidence_difference_sum += found.confidence_difference
        self._monitor.shadow(
            class_differs=found.class_differs,
            verdict_differs=found.verdict_differs,
            confidence_difference=found.confidence_difference,
        )

    def _skip(self) -> None:
        self._skipped += 1
        self._monitor.shadow_skipped()


def _difference(answer: Prediction, other: Prediction) -> _Difference:
    """How the shadow's answer differs; a class that it does not know has probability 0 there."""
    top = answer.top
    probability = next((s.probability for s in other.classes if s.name == top.name), 0.0)
    difference = abs(top.probability - probability)
    return _Difference(
        class_differs=other.top.name != top.name,
        verdict_differs=other.verdict is not answer.verdict,
        confidence_difference=difference if math.isfinite(difference) else 1.0,
    )
