"""Candidates that tests make."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ibinn.records import Selection, Truth
from ibinn.types import Verdict
from training.retraining.candidates import Candidate, Statement

BASE = "w" * 64
START = datetime(2027, 1, 1, tzinfo=UTC)


def say(source: str, truth: str | Truth, *, minute: int = 0, **about: Any) -> Statement:
    return Statement(
        time=START + timedelta(minutes=minute),
        source=source,
        truth=Truth.of_class(truth) if isinstance(truth, str) else truth,
        **({"selection": Selection.ALL} | about),
    )


def candidate(number: int, *statements: Statement, **about: Any) -> Candidate:
    values: dict[str, Any] = {
        "record_id": f"r{number:05d}",
        "time": START + timedelta(minutes=number),
        "id": f"pixels-{number}",
        "group": "",
        "path": Path("image"),
        "answer": "bolt",
        "confidence": 0.5,
        "verdict": Verdict.NOT_FLAGGED,
        "weights": BASE,
    }
    return Candidate(statements=statements, **(values | about))
