"""The record of a bundle that was to be served."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from ibinn.types import Versions
from service.models.acceptance import AcceptanceFigure, FigureName


class Reason(StrEnum):
    """Why a candidate was refused; label of the counter."""

    NONE = "none"
    SIGNATURE = "signature"
    INTEGRITY = "integrity"
    FORMAT = "format"
    POLICY = "policy"
    WARM_UP = "warm_up"
    MEMORY = "memory"
    ACCURACY = "accuracy"
    CALIBRATION = "calibration"
    FALSE_POSITIVES = "false_positives"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What became of a bundle that was to be served.

    Attributes:
        bundle: Name of its folder.
        fingerprint: Of its content.
        versions: Its digests; None where it could not be read.
        accepted: Whether it passed.
        reason: The first of the reasons by name; `Reason.NONE` if it passed.
        reasons: Why it was refused; sentences with their figures.
        figures: What the acceptance set said; none without one.
        time: When it was judged (UTC).
    """

    bundle: str
    fingerprint: str
    versions: Versions | None
    accepted: bool
    reason: Reason
    reasons: tuple[str, ...]
    figures: tuple[AcceptanceFigure, ...]
    time: datetime


def to_values(candidate: Candidate) -> dict[str, Any]:
    """The record as values that JSON has."""
    return {**dataclasses.asdict(candidate), "time": candidate.time.isoformat()}


def from_values(values: Mapping[str, Any]) -> Candidate:
    """What `to_values` made.

    Raises:
        KeyError, TypeError, ValueError: Not such values.
    """
    versions = values["versions"]
    return Candidate(
        bundle=str(values["bundle"]),
        fingerprint=str(values["fingerprint"]),
        versions=None if versions is None else Versions(**versions),
        accepted=bool(values["accepted"]),
        reason=Reason(values["reason"]),
        reasons=tuple(values["reasons"]),
        figures=tuple(
            AcceptanceFigure(**{**figure, "name": FigureName(figure["name"])})
            for figure in values["figures"]
        ),
        time=datetime.fromisoformat(values["time"]),
    )
