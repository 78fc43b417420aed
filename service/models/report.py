"""What a server holds and does, as operators are told."""

from __future__ import annotations

from dataclasses import dataclass

from service.models.candidates import Candidate
from service.models.mode import ModeState
from service.models.registry import ServedRole
from service.models.served import Served
from service.models.shadow import ShadowFigures


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowState:
    """A shadow at work.

    Attributes:
        served: The model.
        share: Of the calls.
        figures: What was found so far, by this worker.
    """

    served: Served
    share: float
    figures: ShadowFigures


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """What a server holds and does.

    Attributes:
        served: The loaded models with their roles, the default one first.
        mode: What is done with every answer.
        shadow: None without one.
        candidates: The last ones, newest first.
        generation: Counts the changes of models and mode.
        workers: Worker processes of this server.
        workers_agreeing: Of these, how many are at `generation`.
    """

    served: tuple[tuple[Served, ServedRole], ...]
    mode: ModeState
    shadow: ShadowState | None
    candidates: tuple[Candidate, ...]
    generation: int
    workers: int
    workers_agreeing: int
