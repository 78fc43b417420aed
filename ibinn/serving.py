"""What a running server holds and does: frozen values, the same fields as on the wire.

No torch here, so that clients can import it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ibinn.types import Guarantee, ModelInfo, Versions


class ModelRole(StrEnum):
    """What a loaded model is there for."""

    DEFAULT = "default"
    """Answers every call that names no model."""
    PREVIOUS = "previous"
    """The default one before; a rollback returns to it."""
    SHADOW = "shadow"
    """Answers a share of the calls silently, to be compared."""
    PINNED = "pinned"
    """Answers calls that name it."""


class Mode(StrEnum):
    """What a server does with every answer."""

    NORMAL = "normal"
    ABSTAIN_ALL = "abstain-all"
    """The stop button: every decision is DEFER, whatever policy, image or caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model that is loaded.

    Attributes:
        name: Name of the model.
        versions: Its digests.
        role: What it is there for.
        bundle: Folder of the bundle, without what stands above it.
    """

    name: str
    versions: Versions
    role: ModelRole
    bundle: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What a server answers with, as any caller may know it.

    Attributes:
        model: The default model, or the one that was asked for.
        served: Every model that can be asked, the default one first.
        mode: What the server does with every answer.
    """

    model: ModelInfo
    served: tuple[ServedModel, ...]
    mode: Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceFigure:
    """One figure of the acceptance set, for the candidate and for the model it would replace.

    Attributes:
        name: ``accuracy``, ``top_label_ece`` or ``false_positive_rate``.
        candidate: The candidate's.
        present: The present default's; None where there is none, or it was not measured.
        limit: What follows from the present figure and the margin.
        passed: Whether the candidate keeps the limit.
        count: Number of images that it is of.
    """

    name: str
    candidate: float
    present: float | None
    limit: float
    passed: bool
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A bundle that was to become the default.

    Attributes:
        bundle: Name of its folder.
        versions: Its digests; None if the bundle could not be read.
        accepted: Whether it passed.
        reasons: Why it was refused; sentences, with the figures.
        figures: What the acceptance set said; none without one.
        time: When it was judged (UTC).
    """

    bundle: str
    versions: Versions | None
    accepted: bool
    reasons: tuple[str, ...]
    figures: tuple[AcceptanceFigure, ...]
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """A model beside the default one, of which callers see nothing.

    Attributes:
        model: Which one.
        share: Share of the default model's calls that it answers too, in (0, 1].
        compared: Answers of one worker that were compared since the shadow began.
        class_differs: In how many of them the class differs.
        verdict_differs: In how many the verdict differs.
        mean_confidence_difference: Mean |difference| of the probability of the default model's
            top class.
        skipped: Calls of the sample that the shadow did not answer: no room, or it failed.
    """

    model: ServedModel
    share: float
    compared: int
    class_differs: int
    verdict_differs: int
    mean_confidence_difference: float
    skipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A sequential test for drift, of one worker process.

    Attributes:
        name: ``p_values``, ``covered_confidence`` or ``prior``.
        count: Images that it has seen since it began, after blocking by group.
        log_evidence: Its evidence against "nothing has changed" (natural logarithm).
        log_threshold: Where the alarm is raised.
        alarmed: Whether it was since the detector began.
    """

    name: str
    count: int
    log_evidence: float
    log_threshold: float
    alarmed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What the drift detectors say of the default model.

    Attributes:
        guarantee: None where nothing watches.
        reason: Why it is suspended; empty where it is not.
        since: Since when (UTC); None where nothing watches.
        detectors: Of the worker process that was asked.
    """

    guarantee: Guarantee | None
    reason: str
    since: datetime | None
    detectors: tuple[Detector, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsState:
    """How a server keeps records.

    Attributes:
        audit: ``best_effort`` or ``required``; empty: none are kept.
        database: URL of the database without credentials.
        reachable: Whether the last try succeeded.
        waiting: Entries that wait to be written, in this process.
        dropped: Answers whose record was dropped, in this process.
    """

    audit: str
    database: str
    reachable: bool
    waiting: int
    dropped: int


NO_DRIFT = Drift(guarantee=None, reason="", since=None, detectors=())
NO_RECORDS = RecordsState(audit="", database="", reachable=False, waiting=0, dropped=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """What a server holds and does, as its operator sees it.

    Attributes:
        served: Every model that is loaded, the default one first.
        mode: What is done with every answer.
        mode_reason: Why, in the words of whoever set it.
        shadow: None without one.
        candidates: What became of the last ones, newest first.
        generation: Counts every change of models and mode.
        workers: Worker processes of the server.
        workers_agreeing: How many of them are at `generation`.
        drift: What the drift detectors say.
        records: How records are kept.
    """

    served: tuple[ServedModel, ...]
    mode: Mode
    mode_reason: str
    shadow: Shadow | None
    candidates: tuple[Candidate, ...]
    generation: int
    workers: int
    workers_agreeing: int
    drift: Drift = NO_DRIFT
    records: RecordsState = NO_RECORDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """What became of a reload that was not refused.

    Attributes:
        candidate: The bundle, with the figures it was held against.
        state: The server afterwards.
    """

    candidate: Candidate
    state: ServerState
