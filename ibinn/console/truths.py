"""What a person says is true of an image: the form read, and the outcome in words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ibinn.console.markup import notice
from ibinn.errors import RequestError
from ibinn.records import (
    OUT_OF_SCOPE,
    UNREADABLE,
    Acknowledgement,
    FeedbackOutcome,
    Reaction,
    Truth,
)


class Said(StrEnum):
    """The choices of the form."""

    KNOWN = "A class of the model"
    UNKNOWN = "A class that the model does not know"
    OUT_OF_SCOPE = "Nothing that the model is meant for"
    UNREADABLE = "Nobody can tell"


REACTIONS: dict[str, Reaction | None] = {
    "Not said": None,
    "Followed the answer": Reaction.FOLLOWED,
    "Overruled it": Reaction.OVERRULED,
    "Did not use it": Reaction.NOT_USED,
}

_OUTCOMES = {
    FeedbackOutcome.FIRST: "It is the first statement about this answer and counts towards "
    "calibration.",
    FeedbackOutcome.REPEATED: "It had been said before; nothing was changed.",
    FeedbackOutcome.CONFIRMED: "It confirms what another source said.",
    FeedbackOutcome.CORRECTED: "It corrects what this source said before; the history is kept.",
    FeedbackOutcome.CONFLICTING: "It contradicts what another source said; both stand.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What the form says.

    Attributes:
        truth: What is true.
        source: Who says so.
        reaction: What the person did with the answer; None: not said.
        comment: Free text.
    """

    truth: Truth
    source: str
    reaction: Reaction | None
    comment: str


def statement(
    said: str,
    *,
    known: str | None,
    unknown: str | None,
    source: str | None,
    reaction: str | None,
    comment: str | None,
) -> Statement:
    """The form as a statement.

    Args:
        said: One of `Said`.
        known: The class chosen, for a class of the model.
        unknown: The name typed, for a class that it does not know.
        source: Who says so.
        reaction: One of `REACTIONS`.
        comment: Free text.

    Raises:
        RequestError: A class or the source is missing.
    """
    source = (source or "").strip()
    if not source:
        raise RequestError(
            "the source is empty; say who tells this, such as your name or desk", field="source"
        )
    return Statement(
        truth=_truth(said, known=known, unknown=unknown),
        source=source,
        reaction=REACTIONS.get(reaction or ""),
        comment=(comment or "").strip(),
    )


def _truth(said: str, *, known: str | None, unknown: str | None) -> Truth:
    match said:
        case Said.KNOWN:
            if not known:
                raise RequestError("no class is chosen; choose what the image shows", field="truth")
            return Truth.of_class(known)
        case Said.UNKNOWN:
            name = (unknown or "").strip()
            if not name:
                raise RequestError(
                    "the class has no name; type what the image shows", field="truth"
                )
            return Truth.of_class(name)
        case Said.OUT_OF_SCOPE:
            return OUT_OF_SCOPE
        case Said.UNREADABLE:
            return UNREADABLE
    raise RequestError("nothing is chosen; choose what is true of the image", field="truth")


def outcome_html(told: Statement, acknowledgement: Acknowledgement, record_id: str) -> str:
    """What became of a statement, which is durable by now."""
    lost = (
        ""
        if acknowledgement.record_known
        else " The answer's record was lost; its receipt was accepted instead."
    )
    return notice(
        f"Kept: “{told.truth.text.replace('_', ' ')}”, said by {told.source}, about answer "
        f"{record_id} (statement {acknowledgement.revision}). "
        f"{_OUTCOMES[acknowledgement.outcome]}{lost}",
        kind="good",
    )
