from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibinn import reliability
from ibinn.records import (
    OUT_OF_SCOPE,
    UNREADABLE,
    AnswerDigest,
    FeedbackEntry,
    FeedbackOutcome,
    Truth,
)
from service.records import statements
from tests.service.records.made import prediction, statement

CAT, DOG = Truth.of_class("cat"), Truth.of_class("dog")

FIRST, REPEATED, CONFIRMED, CORRECTED, CONFLICTING = (
    FeedbackOutcome.FIRST,
    FeedbackOutcome.REPEATED,
    FeedbackOutcome.CONFIRMED,
    FeedbackOutcome.CORRECTED,
    FeedbackOutcome.CONFLICTING,
)


def told(*said: tuple[str, Truth]) -> list[FeedbackOutcome]:
    """The outcome of each statement in turn; repeated ones are not kept."""
    outcomes, kept = [], []
    for source, truth in said:
        sent = statement(1, truth, source=source)
        outcome = statements.outcome(sent, kept)
        outcomes.append(outcome)
        if outcome is not REPEATED:
            revision = len(kept) + 1
            kept.append(
                FeedbackEntry(
                    feedback_id=statements.made_id(sent, revision),
                    record_id=sent.record_id,
                    truth=truth,
                    provenance=sent.provenance,
                    labelled_time=None,
                    comment="",
                    caller="x",
                    outcome=outcome,
                    revision=revision,
                    answer=AnswerDigest.of(prediction(1)),
                    record_known=True,
                )
            )
    return outcomes


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([("a", CAT), ("a", CAT)], [FIRST, REPEATED]),
        ([("a", CAT), ("b", CAT), ("c", CAT)], [FIRST, CONFIRMED, CONFIRMED]),
        ([("a", CAT), ("b", DOG)], [FIRST, CONFLICTING]),
        ([("a", CAT), ("b", DOG), ("c", CAT)], [FIRST, CONFLICTING, CONFLICTING]),
        ([("a", CAT), ("a", DOG), ("a", DOG)], [FIRST, CORRECTED, REPEATED]),
        ([("a", CAT), ("a", DOG), ("a", CAT)], [FIRST, CORRECTED, CORRECTED]),
        # Whoever was corrected no longer stands against anybody.
        ([("a", CAT), ("a", DOG), ("b", DOG)], [FIRST, CORRECTED, CONFIRMED]),
        (
            [("a", CAT), ("b", DOG), ("b", CAT), ("c", CAT)],
            [FIRST, CONFLICTING, CORRECTED, CONFIRMED],
        ),
        ([("a", OUT_OF_SCOPE), ("b", OUT_OF_SCOPE)], [FIRST, CONFIRMED]),
        ([("a", UNREADABLE), ("b", CAT)], [FIRST, CONFLICTING]),
        ([("a", UNREADABLE), ("a", CAT)], [FIRST, CORRECTED]),
    ],
)
def test_outcomes_follow_the_rules(
    said: list[tuple[str, Truth]], expected: list[FeedbackOutcome]
) -> None:
    assert told(*said) == expected


_SAID = st.tuples(st.sampled_from("abc"), st.sampled_from([CAT, DOG, OUT_OF_SCOPE, UNREADABLE]))


@given(st.lists(_SAID, max_size=8))
def test_only_the_very_first_statement_is_first(said: list[tuple[str, Truth]]) -> None:
    outcomes = told(*said)

    assert [n for n, outcome in enumerate(outcomes) if outcome is FIRST] == [0] * bool(said)


@given(st.lists(_SAID, max_size=8), _SAID)
def test_saying_it_twice_in_a_row_is_repeating(
    said: list[tuple[str, Truth]], last: tuple[str, Truth]
) -> None:
    assert told(*said, last, last)[-1] is REPEATED


def test_made_names_differ_with_what_is_said_and_when() -> None:
    names = {
        statements.made_id(statement(number, truth, source=source), revision)
        for number, truth, source, revision in itertools.product(
            (1, 2), ("cat", "dog"), ("a", "b"), (1, 2)
        )
    }

    assert len(names) == 16
    assert {len(name) for name in names} == {32}


@given(st.floats(0, 1))
def test_bins_are_those_of_the_calibration_report(confidence: float) -> None:
    assert statements.confidence_bin(confidence) == reliability.confidence_bin(confidence)


def test_edges_of_bins_are_those_of_the_calibration_report() -> None:
    for edge in np.linspace(0, 1, 16):
        for value in (np.nextafter(edge, 0), edge, min(np.nextafter(edge, 1), 1.0)):
            assert statements.confidence_bin(value) == reliability.confidence_bin(value)
