from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from ibinn import chain
from ibinn.errors import (
    ConfigError,
    LedgerError,
    RecordsUnavailableError,
    RequestError,
    UnknownRecordError,
)
from ibinn.records import (
    OUT_OF_SCOPE,
    UNREADABLE,
    AnswerDigest,
    Entry,
    EntryKind,
    FeedbackEntry,
    FeedbackOutcome,
    GuaranteeEntry,
    ImageKept,
    ImageState,
    Provenance,
    Truth,
)
from ibinn.types import Guarantee
from service.converters import records as bodies
from service.records import rows
from service.records.contents import Said
from service.records.ledger import Ledger
from tests.service.records.made import (
    SOME_TIME,
    new_answer,
    prediction,
    record_id,
    statement,
)

TIMEOUT_S = 20.0


@pytest.fixture
def ledger(records_url: str) -> Iterator[Ledger]:
    opened = Ledger.open(records_url, timeout_s=TIMEOUT_S)
    yield opened
    opened.close()


def whole(entries: list[Entry]) -> bool:
    """Whether every entry follows from the one before, from the beginning."""
    previous = chain.GENESIS
    for number, entry in enumerate(entries, 1):
        expected = chain.own_hash(entry)
        if (entry.sequence, entry.previous_hash, entry.hash) != (number, previous, expected):
            return False
        previous = entry.hash
    return True


def suspended(reason: str, *, calibration: str = "b" * 64) -> GuaranteeEntry:
    return GuaranteeEntry(
        calibration=calibration,
        guarantee=Guarantee.SUSPENDED,
        reason=reason,
        detector="p_values",
        caller="",
    )


def test_an_answer_is_found_as_it_was_appended(ledger: Ledger) -> None:
    before = datetime.now(UTC)
    ledger.append_answers([new_answer(1), new_answer(2, kept=ImageKept.FLAGGED)])

    found = ledger.record(record_id(2))

    assert found.entry.body == new_answer(2, kept=ImageKept.FLAGGED).body()
    assert (found.entry.sequence, found.entry.kind) == (2, EntryKind.ANSWER)
    assert before - timedelta(seconds=1) <= found.entry.time <= datetime.now(UTC)
    assert (found.image_state, found.feedback) == (ImageState.KEPT, ())
    assert ledger.record(record_id(1)).image_state is ImageState.NOT_KEPT
    assert ledger.sha256_bytes(record_id(2)) == prediction(2).input.sha256_bytes


def test_every_kind_of_entry_makes_one_chain(ledger: Ledger) -> None:
    ledger.append_answers([new_answer(1, kept=ImageKept.ALL)])
    ledger.append_feedback(statement(1), caller="ann", digest=None)
    ledger.append_guarantee(suspended("drift"))
    ledger.append_erasure(record_id(1), reason="asked to", caller="bob", found=True)
    ledger.append_answers([new_answer(2), new_answer(3)])

    entries = list(ledger.all_entries())

    assert whole(entries)
    assert [entry.kind.value for entry in entries] == [
        *("answer", "feedback", "guarantee", "erasure", "answer", "answer")
    ]
    page = ledger.entries(0, 10)
    assert (page.head_sequence, page.head_hash) == (6, entries[-1].hash)


def test_entries_are_paged_and_filtered(ledger: Ledger) -> None:
    assert ledger.entries(0, 10).head_sequence == 0
    assert ledger.entries(0, 10).head_hash == chain.GENESIS
    ledger.append_answers([new_answer(n) for n in range(5)])
    ledger.append_feedback(statement(0), caller="ann", digest=None)

    assert [entry.sequence for entry in ledger.entries(2, 2).entries] == [3, 4]
    assert [e.sequence for e in ledger.entries(0, 9, frozenset({EntryKind.FEEDBACK})).entries] == [
        6
    ]
    assert len(ledger.entries(0, 9, frozenset(EntryKind)).entries) == 6
    assert ledger.entries(6, 9).entries == ()
    assert ledger.entries(6, 9).head_sequence == 6


def test_more_entries_than_a_page_are_all_read(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.records.ledger._PAGE", 7)
    for count in (6, 1, 1, 6, 2):
        first = ledger.entries(0, 1).head_sequence
        ledger.append_answers([new_answer(first + n) for n in range(count)])

        numbers = [entry.sequence for entry in ledger.all_entries()]
        assert numbers == list(range(1, first + count + 1))
        assert [entry.sequence for entry in ledger.all_entries(5)] == numbers[5:]


def test_an_answer_appended_again_is_there_once(ledger: Ledger) -> None:
    ledger.append_answers([new_answer(1), new_answer(2)])
    ledger.append_answers([new_answer(2), new_answer(3), new_answer(3)])
    ledger.append_answers([new_answer(1)])
    ledger.append_answers([])

    assert [entry.record_id for entry in ledger.all_entries()] == list(map(record_id, (1, 2, 3)))
    assert whole(list(ledger.all_entries()))


def test_texts_come_back_as_they_were(ledger: Ledger) -> None:
    odd = "caf\N{LATIN SMALL LETTER E WITH ACUTE} \0 \N{SNOWMAN} 'quoted'; --"
    ledger.append_answers([dataclasses.replace(new_answer(1), caller=odd)])

    entry = ledger.append_feedback(
        statement(1, odd, source="a\0b", comment=odd), caller=odd, digest=None
    )

    assert ledger.record(record_id(1)).feedback == (entry,)
    assert (entry.truth, entry.comment, entry.caller) == (Truth.of_class(odd), odd, odd)
    assert (
        ledger.append_feedback(statement(1, odd, source="a\0b"), caller=odd, digest=None).outcome
        is FeedbackOutcome.REPEATED
    )


@pytest.mark.parametrize("name", ["", "f" * 32, "\0", "\N{SNOWMAN}", "x" * 5000])
def test_a_record_that_is_not_there_is_an_error_that_names_it(ledger: Ledger, name: str) -> None:
    for ask in (
        lambda: ledger.record(name),
        lambda: ledger.sha256_bytes(name),
        lambda: ledger.append_erasure(name, reason="", caller="", found=False),
    ):
        with pytest.raises(UnknownRecordError, match="there is no record"):
            ask()
    assert list(ledger.all_entries()) == []


# ---------------------------------------------------------------------------------------- feedback


def test_the_history_of_statements_is_kept_in_order(ledger: Ledger) -> None:
    ledger.append_answers([new_answer(1)])
    said = [
        ("ann", "cat", FeedbackOutcome.FIRST),
        ("bob", "cat", FeedbackOutcome.CONFIRMED),
        ("eve", "dog", FeedbackOutcome.CONFLICTING),
        ("ann", "dog", FeedbackOutcome.CORRECTED),
        ("ann", "cat", FeedbackOutcome.CORRECTED),
    ]
    for number, (source, truth, outcome) in enumerate(said, 1):
        entry = ledger.append_feedback(statement(1, truth, source=source), caller="x", digest=None)
        assert (entry.outcome, entry.revision, entry.record_known) == (outcome, number, True)
        assert entry.answer == AnswerDigest.of(prediction(1))

    found = ledger.record(record_id(1)).feedback

    assert [(e.provenance.source, e.truth.class_name, e.outcome) for e in found] == said
    assert len({entry.feedback_id for entry in found}) == len(said)
    assert whole(list(ledger.all_entries()))


def test_a_statement_sent_again_changes_nothing(ledger: Ledger) -> None:
    ledger.append_answers([new_answer(1)])
    sent = statement(1, feedback_id="a-1", labelled_time=SOME_TIME, comment="blurred")
    first = ledger.append_feedback(sent, caller="x", digest=None)
    ledger.append_feedback(statement(1, "dog"), caller="x", digest=None)

    again = ledger.append_feedback(sent, caller="x", digest=None)

    assert again == dataclasses.replace(first, outcome=FeedbackOutcome.REPEATED)
    assert len(ledger.record(record_id(1)).feedback) == 2


def test_a_source_that_repeats_itself_is_counted_once(ledger: Ledger) -> None:
    ledger.append_answers([new_answer(1)])
    first = ledger.append_feedback(statement(1, feedback_id="a"), caller="x", digest=None)

    for again in (statement(1), statement(1, feedback_id="b"), statement(1, comment="sure")):
        found = ledger.append_feedback(again, caller="x", digest=None)
        assert found == dataclasses.replace(first, outcome=FeedbackOutcome.REPEATED)

    assert ledger.record(record_id(1)).feedback == (first,)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"truth": Truth.of_class("dog")}, "truth"),
        ({"record_id": record_id(2)}, "record_id"),
        ({"provenance": Provenance(source="bob")}, "provenance"),
        ({"comment": "other"}, "comment"),
        ({"labelled_time": SOME_TIME}, "labelled_time"),
    ],
)
def test_an_id_names_one_statement(ledger: Ledger, changes: dict[str, object], named: str) -> None:
    ledger.append_answers([new_answer(1), new_answer(2)])
    sent = statement(1, feedback_id="a")
    ledger.append_feedback(sent, caller="x", digest=None)

    with pytest.raises(RequestError, match=f"feedback_id a names another.*{named}") as caught:
        ledger.append_feedback(dataclasses.replace(sent, **changes), caller="x", digest=None)

    assert caught.value.field == "feedback_id"
    assert ledger.entries(0, 9).head_sequence == 3


def test_a_receipt_stands_for_a_record_that_was_lost(ledger: Ledger) -> None:
    digest = AnswerDigest.of(prediction(1))
    with pytest.raises(UnknownRecordError, match="needs the receipt"):
        ledger.append_feedback(statement(1), caller="x", digest=None)
    with pytest.raises(UnknownRecordError):
        ledger.append_feedback(statement(2), caller="x", digest=digest)

    entry = ledger.append_feedback(statement(1), caller="x", digest=digest)

    assert (entry.answer, entry.record_known) == (digest, False)
    with pytest.raises(UnknownRecordError):
        ledger.record(record_id(1))
    (found,) = ledger.labelled()
    assert (found.answer, found.caller, found.image_state) == (digest, None, ImageState.NOT_KEPT)
    # Its record comes late: both are there.
    ledger.append_answers([new_answer(1)])
    assert ledger.record(record_id(1)).feedback == (entry,)


def test_a_record_is_believed_more_than_a_receipt(ledger: Ledger) -> None:
    ledger.append_answers([new_answer(1)])
    other = dataclasses.replace(AnswerDigest.of(prediction(1)), class_name="dog")

    entry = ledger.append_feedback(statement(1), caller="x", digest=other)

    assert (entry.answer.class_name, entry.record_known) == ("cat", True)


def said(number: int, *words: str, caller: str = "x", **changes: Any) -> Said:
    return Said(statement=statement(number, *words, **changes), caller=caller, digest=None)


def test_statements_of_one_transaction_see_each_other(ledger: Ledger) -> None:
    ledger.append_answers([new_answer(1), new_answer(2)])
    ledger.append_feedback(statement(1, "dog", source="cid"), caller="x", digest=None)

    found = ledger.append_statements(
        [
            said(1, "cat", source="ann", feedback_id="a"),
            said(3),
            said(1, "cat", source="ann", feedback_id="a"),
            said(1, "dog", source="ann", feedback_id="a"),
            said(1, "dog", source="ann"),
            said(1, "dog", source="bob"),
            said(2),
            said(2),
        ]
    )

    outcomes = [one.outcome.value if isinstance(one, FeedbackEntry) else type(one) for one in found]
    assert outcomes == [
        "conflicting",
        UnknownRecordError,
        "repeated",
        RequestError,
        "corrected",
        "confirmed",
        "first",
        "repeated",
    ]
    kept = [one for one in found if isinstance(one, FeedbackEntry)]
    assert [one.revision for one in kept] == [2, 2, 3, 4, 1, 1]
    appended = [one for one in kept if one.outcome is not FeedbackOutcome.REPEATED]
    assert ledger.record(record_id(1)).feedback[1:] == tuple(appended[:3])
    assert whole(list(ledger.all_entries()))
    assert ledger.entries(0, 1).head_sequence == 2 + 1 + 4


def test_a_second_try_knows_what_its_first_one_appended(ledger: Ledger) -> None:
    ledger.append_answers([new_answer(1), new_answer(2)])
    ledger.append_feedback(statement(2), caller="x", digest=None)
    first = ledger.append_statements([said(1), said(2)], time=SOME_TIME)

    again = ledger.append_statements([said(1), said(2)], time=SOME_TIME)
    later = ledger.append_statements([said(1), said(2)])

    assert again == first
    assert [one.outcome.value for one in first if isinstance(one, FeedbackEntry)] == [
        "first",
        "repeated",
    ]
    assert {one.outcome for one in later if isinstance(one, FeedbackEntry)} == {
        FeedbackOutcome.REPEATED
    }
    assert ledger.entries(0, 1).head_sequence == 4


def test_a_clock_that_steps_back_breaks_nothing(ledger: Ledger) -> None:
    ledger.append_answers([new_answer(1)])
    ledger.append_statements([said(1)], time=SOME_TIME)
    ledger.append_statements([said(1, "dog")], time=SOME_TIME - timedelta(days=400))

    entries = list(ledger.all_entries())

    assert whole(entries)
    assert entries[-1].time < entries[-2].time
    kept = ledger.record(record_id(1)).feedback
    assert [one.outcome for one in kept] == [FeedbackOutcome.FIRST, FeedbackOutcome.CORRECTED]


def test_the_calibration_table_is_a_plain_recomputation(
    ledger: Ledger, rng: np.random.Generator
) -> None:
    truths = [Truth.of_class("cat"), Truth.of_class("dog"), OUT_OF_SCOPE, UNREADABLE]
    confidences = rng.uniform(0.05, 1, 90)
    confidences[:4] = (1.0, 1 / 15, 2 / 15, 0.0)
    ledger.append_answers([new_answer(n, confidence=c) for n, c in enumerate(confidences)])
    for _ in range(150):
        number = int(rng.integers(0, 80))
        truth = truths[rng.choice(4, p=(0.6, 0.2, 0.1, 0.1))]
        source = str(rng.choice(["ann", "bob"]))
        ledger.append_feedback(statement(number, truth, source=source), caller="x", digest=None)

    table = ledger.calibration_table(rows.model_name(prediction(0).versions))

    expected = np.zeros((15, 3))
    for entry in ledger.all_entries():
        if entry.kind is not EntryKind.FEEDBACK:
            continue
        said = bodies.read_feedback(entry.body)
        right = said.answer.correct(said.truth)
        if said.outcome is FeedbackOutcome.FIRST and right is not None:
            confidence = said.answer.confidence
            expected[min(int(np.floor(confidence * 15)), 14)] += (1, right, confidence)
    got = [(b.count, b.correct, b.confidence_sum) for b in table.bins]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)
    assert table.count == expected[:, 0].sum() > 30
    gap = np.abs(expected[:, 1] - expected[:, 2]).sum() / expected[:, 0].sum()
    assert table.top_label_ece == pytest.approx(gap, abs=1e-12)
    assert ledger.calibration_table() == table
    assert ledger.calibration_table("another").top_label_ece is None


def test_labelled_answers_are_told_with_all_that_was_said(ledger: Ledger) -> None:
    ledger.append_answers([new_answer(n, kept=ImageKept.ALL) for n in range(4)])
    for number in (2, 0, 3):
        ledger.append_feedback(statement(number), caller="x", digest=None)
    ledger.append_feedback(statement(2, "dog", source="bob"), caller="x", digest=None)

    found = list(ledger.labelled())

    assert [one.answer.record_id for one in found] == list(map(record_id, (2, 0, 3)))
    assert [one.truth.class_name for one in found[0].feedback] == ["cat", "dog"]
    assert {(one.caller, one.image_state) for one in found} == {("ann", ImageState.KEPT)}
    since, until = SOME_TIME + timedelta(seconds=2), SOME_TIME + timedelta(seconds=3)
    (middle,) = ledger.labelled(since=since, until=until)
    assert middle == found[0]
    assert list(ledger.labelled(model=rows.model_name(prediction(0).versions))) == found
    assert list(ledger.labelled(model="another")) == []


def test_more_labelled_answers_than_a_page_are_all_told(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.records.labels._PAGE", 4)
    digest = AnswerDigest.of(prediction(0))
    for number in range(9):
        known = dataclasses.replace(digest, record_id=record_id(number))
        ledger.append_feedback(statement(number), caller="x", digest=known)

        found = [one.answer.record_id for one in ledger.labelled()]
        assert found == [record_id(n) for n in range(number + 1)]


# ------------------------------------------------------------------------------ images, guarantees


def test_an_erasure_is_said_of_every_record_of_the_image(ledger: Ledger) -> None:
    first = new_answer(1, kept=ImageKept.ALL)
    second = dataclasses.replace(
        first, digest=dataclasses.replace(first.digest, record_id=record_id(2))
    )
    third = dataclasses.replace(
        second,
        digest=dataclasses.replace(first.digest, record_id=record_id(3)),
        image_kept=None,
    )
    ledger.append_answers([first, second, third, new_answer(4, kept=ImageKept.ALL)])

    count = ledger.append_erasure(record_id(2), reason="asked to", caller="bob", found=True)

    assert count == 3
    states = [ledger.record(record_id(n)).image_state.value for n in (1, 2, 3, 4)]
    assert states == ["erased", "erased", "not_kept", "kept"]
    entry = ledger.entries(4, 9).entries[0]
    erasure = bodies.read_erasure(entry.body)
    assert (entry.kind, entry.record_id) == (EntryKind.ERASURE, record_id(2))
    assert (erasure.sha256_bytes, erasure.reason) == (first.digest.sha256_bytes, "asked to")
    assert whole(list(ledger.all_entries()))


def test_images_that_a_sweep_took_are_said_to_have_expired(ledger: Ledger) -> None:
    ledger.append_answers([new_answer(n, kept=ImageKept.ALL) for n in range(4)])
    ledger.append_erasure(record_id(1), reason="", caller="", found=True)
    gone = [ledger.sha256_bytes(record_id(n)) for n in (0, 1)]

    assert ledger.images_gone([*gone, "f" * 64]) == 1
    assert ledger.images_gone([]) == 0

    states = [ledger.record(record_id(n)).image_state.value for n in (0, 1, 2)]
    assert states == ["expired", "erased", "kept"]


def test_the_last_change_of_a_guarantee_counts(ledger: Ledger) -> None:
    other = suspended("drift", calibration="c" * 64)
    held = dataclasses.replace(suspended("seen"), guarantee=Guarantee.HELD, caller="ann")
    assert ledger.guarantee("b" * 64) is None
    for change in (suspended("drift"), suspended("drift"), other, held):
        ledger.append_guarantee(change)

    found = ledger.guarantee("b" * 64)

    assert found is not None
    assert found[0] == held
    assert abs(datetime.now(UTC) - found[1]) < timedelta(minutes=5)
    last = ledger.guarantee("c" * 64)
    assert last is not None
    assert last[0] == other
    assert ledger.entries(0, 9).head_sequence == 3, "a change that changes nothing was appended"


def test_states_of_detectors_are_replaced(ledger: Ledger) -> None:
    assert ledger.load_state("server-1", "b" * 64) is None
    ledger.save_state("server-1", "b" * 64, b"old")
    ledger.save_state("server-1", "b" * 64, b"\0new\xff")
    ledger.save_state("server-2", "b" * 64, b"other")

    assert ledger.load_state("server-1", "b" * 64) == b"\0new\xff"
    assert ledger.load_state("server-2", "b" * 64) == b"other"
    assert ledger.load_state("server-2", "c" * 64) is None


# -------------------------------------------------------------------------------------- tampering


def change(ledger: Ledger, *statements: str) -> list[Entry]:
    """What somebody with the database's password may do; the entries then."""
    with ledger._engine.begin() as connection:
        for text in statements:
            connection.execute(sa.text(text))
    return list(ledger.all_entries())


@pytest.mark.parametrize(
    "statements",
    [
        ("DELETE FROM ledger WHERE sequence = 3",),
        ("DELETE FROM ledger WHERE sequence = 1",),
        ("UPDATE ledger SET body = substr(body, 2) WHERE sequence = 3",),
        ("UPDATE ledger SET kind = 'feedback' WHERE sequence = 3",),
        (
            "UPDATE ledger SET sequence = 99 WHERE sequence = 2",
            "UPDATE ledger SET sequence = 2 WHERE sequence = 3",
            "UPDATE ledger SET sequence = 3 WHERE sequence = 99",
        ),
        (
            "INSERT INTO ledger SELECT 6, kind, record_id, time, body, previous_hash, hash "
            "FROM ledger WHERE sequence = 2",
        ),
    ],
    ids=["deleted", "first_deleted", "altered", "another_kind", "reordered", "inserted"],
)
def test_what_is_done_to_the_tables_breaks_the_chain(
    ledger: Ledger, statements: tuple[str, ...]
) -> None:
    ledger.append_answers([new_answer(n) for n in range(5)])
    assert whole(list(ledger.all_entries()))
    if "INSERT" in statements[0]:
        statements = (*statements, "UPDATE ledger_head SET sequence = 6")

    assert not whole(change(ledger, *statements))


def test_entries_cut_off_at_the_end_show_against_the_head(ledger: Ledger) -> None:
    ledger.append_answers([new_answer(n) for n in range(5)])

    left = change(ledger, "DELETE FROM ledger WHERE sequence = 5")

    page = ledger.entries(0, 9)
    assert whole(left)
    assert (page.head_sequence, len(left)) == (5, 4)
    assert page.head_hash != left[-1].hash


def test_a_head_that_was_set_back_cannot_be_appended_to(ledger: Ledger) -> None:
    ledger.append_answers([new_answer(n) for n in range(3)])
    change(ledger, "UPDATE ledger_head SET sequence = 1")

    with pytest.raises(LedgerError, match="refuse an entry"):
        ledger.append_answers([new_answer(9)])

    with pytest.raises(LedgerError, match="lost the row of their head"):
        change(ledger, "DELETE FROM ledger_head")
    with pytest.raises(LedgerError, match="lost the row of their head"):
        ledger.append_answers([new_answer(9)])


# ------------------------------------------------------------------------------------- opening


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("records.db", "no URL of a database"),
        ("mysql://host/x", "expected sqlite:////"),
        ("sqlite://", "without a file"),
        ("sqlite:///:memory:", "without a file"),
        ("sqlite:////nowhere/at/all/records.db", "does not exist; make it"),
        ("sqlite+aiosqlite:////tmp/x.db", "kind"),
        ("nonsense://x", "no URL of a database"),
    ],
)
def test_a_url_that_cannot_be_used_is_told(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Ledger.open(url, timeout_s=1)


def test_a_password_is_never_told() -> None:
    secret = "hunter2"
    url = f"postgresql://ann:{secret}@127.0.0.1:1/ibinn?sslpassword={secret}"
    ledger = Ledger(url, timeout_s=1)

    with pytest.raises(RecordsUnavailableError) as caught:
        ledger.prepare()

    assert ledger.name == "postgresql://127.0.0.1:1/ibinn"
    assert secret not in str(caught.value)
    ledger.close()


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    path.write_bytes(b"no database at all " * 1000)

    with pytest.raises(LedgerError, match="damaged or no database of records"):
        Ledger.open(f"sqlite:///{path}", timeout_s=1)
