"""The record of a bundle that was to be served."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from ibinn.serving import AcceptanceFigure, Candidate
from ibinn.types import Versions


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
class Judged:
    """What became of a candidate, and what of it callers need not know.

    Attributes:
        candidate: As it is told.
        fingerprint: Of the bundle's content; empty where it could not be read.
        reason: The first of the reasons by name; `Reason.NONE` if it passed.
    """

    candidate: Candidate
    fingerprint: str
    reason: Reason


def to_values(judged: Judged) -> dict[str, Any]:
    """The record as values that JSON has."""
    values = dataclasses.asdict(judged)
    values["candidate"]["time"] = judged.candidate.time.isoformat()
    return values


def from_values(values: Mapping[str, Any]) -> Judged:
    """What `to_values` made.

    Raises:
        KeyError, TypeError, ValueError: Not such values.
    """
    told = values["candidate"]
    versions = told["versions"]
    return Judged(
        candidate=Candidate(
            bundle=str(told["bundle"]),
            versions=None if versions is None else Versions(**versions),
            accepted=bool(told["accepted"]),
            reasons=tuple(told["reasons"]),
            figures=tuple(AcceptanceFigure(**figure) for figure in told["figures"]),
            time=datetime.fromisoformat(told["time"]),
        ),
        fingerprint=str(values["fingerprint"]),
        reason=Reason(values["reason"]),
    )
