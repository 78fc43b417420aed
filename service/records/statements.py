"""What a statement about an answer is beside those before it.

    nothing before                                         FIRST
    the source's last statement has the same truth         REPEATED   (nothing is appended)
    the source said otherwise last                         CORRECTED
    every other source's last statement has this truth     CONFIRMED
    else                                                   CONFLICTING

Statements come late, twice and in any order: none is refused for what others said, and none is
taken back. An id names one statement for ever: the same id with the same content is REPEATED
whatever came in between, with other content it is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from ibinn.errors import RequestError
from ibinn.records import Feedback, FeedbackEntry, FeedbackOutcome

BINS: Final = 15
"""Of the calibration figures."""


def outcome(statement: Feedback, before: Sequence[FeedbackEntry]) -> FeedbackOutcome:
    """What a new statement is beside those on record about the same answer, in their order."""
    if not before:
        return FeedbackOutcome.FIRST
    last = {entry.provenance.source: entry.truth for entry in before}
    own = last.pop(statement.provenance.source, None)
    if own is not None:
        same = own == statement.truth
        return FeedbackOutcome.REPEATED if same else FeedbackOutcome.CORRECTED
    agreed = all(truth == statement.truth for truth in last.values())
    return FeedbackOutcome.CONFIRMED if agreed else FeedbackOutcome.CONFLICTING


def made_id(statement: Feedback, revision: int) -> str:
    """The name of a statement that was sent without one: 32 hexadecimal digits of its content.

    A source that returns to what it had said before makes a new statement: the revision counts.
    """
    words = (
        statement.record_id,
        str(revision),
        statement.provenance.source,
        statement.truth.kind.value,
        statement.truth.class_name,
    )
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:32]


def check_same(statement: Feedback, entry: FeedbackEntry) -> None:
    """Holds a statement against the one on record with its id.

    Raises:
        RequestError: They say different things.
    """
    differing = [
        name
        for name, sent, kept in (
            ("record_id", statement.record_id, entry.record_id),
            ("truth", statement.truth, entry.truth),
            ("provenance", statement.provenance, entry.provenance),
            ("labelled_time", statement.labelled_time, entry.labelled_time),
            ("comment", statement.comment, entry.comment),
        )
        if sent != kept
    ]
    if differing:
        raise RequestError(
            f"feedback_id {entry.feedback_id} names another statement already, which differs in "
            f"{', '.join(differing)}; expected an id of its own for each statement, or none",
            field="feedback_id",
        )


def confidence_bin(confidence: float) -> int:
    """Index 0 ... 14 of the equal-width bin [low, high); 1 is in the last.

    >>> confidence_bin(0.0), confidence_bin(0.5), confidence_bin(1.0)
    (0, 7, 14)
    """
    return min(max(int(confidence * BINS), 0), BINS - 1)
