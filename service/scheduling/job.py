"""One image on its way through the server."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ibinn.types import Explanation, Prediction
from service.models.served import Served

if TYPE_CHECKING:
    from ibinn.images import PreparedImage


class Lane(enum.StrEnum):
    """Which requests go first; in order of precedence."""

    CLASSIFY = "classify"
    EXPLAIN = "explain"
    BACKGROUND = "background"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is computed; jobs of equal tasks share a batch.

    Attributes:
        served: By which model.
        explain: Whether heatmaps are wanted.
        classes: Of which classes; None: the most probable.
    """

    served: Served
    explain: bool = False
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a job.

    Attributes:
        value: The answer.
        prepare_s: Seconds of decoding and preprocessing.
        queue_s: Seconds of waiting, before decoding and before the batch.
        compute_s: Seconds of the batch.
        batch_size: Number of images in it.
    """

    value: Prediction | Explanation
    prepare_s: float
    queue_s: float
    compute_s: float
    batch_size: int


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One image on its way; changed only by the scheduler.

    Attributes:
        lane: Its precedence.
        caller: Whose it is.
        task: What to compute.
        image: Encoded bytes; None where `prepared` is given.
        deadline: Monotonic time after which it is not worth computing.
        arrived: Monotonic time.
        predicted_s: When it was to be answered, in seconds from its arrival.
        future: Its outcome.
        prepared: The decoded image, once there is one.
        prepare_s: Seconds of decoding.
        decoder: Of a job that is decoded by the task that submitted it, that task.
    """

    lane: Lane
    caller: str
    task: Task
    image: bytes | None
    deadline: float
    arrived: float
    future: asyncio.Future[Outcome] = field(repr=False)
    prepared: PreparedImage | None = None
    prepare_s: float = 0.0
    predicted_s: float = 0.0
    decoder: asyncio.Task[object] | None = None
