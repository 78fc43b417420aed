from __future__ import annotations

import pytest

from ibinn.console.truths import REACTIONS, Said, outcome_html, statement
from ibinn.errors import RequestError
from ibinn.records import (
    OUT_OF_SCOPE,
    UNREADABLE,
    Acknowledgement,
    FeedbackOutcome,
    Reaction,
    Truth,
)

FORM = {
    "known": "cat",
    "unknown": " axolotl ",
    "source": " desk ",
    "reaction": "Overruled it",
    "comment": " sure ",
}


@pytest.mark.parametrize(
    ("said", "truth"),
    [
        (Said.KNOWN, Truth.of_class("cat")),
        (Said.UNKNOWN, Truth.of_class("axolotl")),
        (Said.OUT_OF_SCOPE, OUT_OF_SCOPE),
        (Said.UNREADABLE, UNREADABLE),
    ],
)
def test_the_form_is_read_as_the_truth_that_was_chosen(said: Said, truth: Truth) -> None:
    found = statement(said.value, **FORM)
    assert found.truth == truth
    assert (found.source, found.reaction, found.comment) == ("desk", Reaction.OVERRULED, "sure")


@pytest.mark.parametrize(
    ("said", "missing", "words"),
    [
        (Said.KNOWN, {"known": None}, "no class is chosen"),
        (Said.UNKNOWN, {"unknown": "  "}, "the class has no name"),
        (Said.OUT_OF_SCOPE, {"source": ""}, "the source is empty"),
        ("", {}, "nothing is chosen"),
    ],
)
def test_what_is_missing_in_the_form_is_named(
    said: str, missing: dict[str, str | None], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        statement(said, **{**FORM, **missing})


def test_a_reaction_may_be_left_unsaid() -> None:
    assert statement(Said.KNOWN, **{**FORM, "reaction": next(iter(REACTIONS))}).reaction is None


@pytest.mark.parametrize("outcome", FeedbackOutcome)
def test_the_outcome_is_said_in_words_with_the_text_escaped(outcome: FeedbackOutcome) -> None:
    told = statement(Said.UNKNOWN, **{**FORM, "unknown": "<b>axolotl</b>"})
    page = outcome_html(
        told,
        Acknowledgement(feedback_id="f", outcome=outcome, revision=2, record_known=False),
        "a" * 32,
    )
    for words in ("&lt;b&gt;axolotl", "said by desk", "a" * 32, "statement 2", "receipt"):
        assert words in page
    assert "<b>" not in page
