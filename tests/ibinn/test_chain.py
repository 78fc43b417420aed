"""The ledger's chain: whatever is done to one entry is found, and where."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibinn.chain import GENESIS, MOST_BREAKS, START, Break, Fault, Point, own_hash, verify
from ibinn.errors import ConfigError, LedgerError
from ibinn.records import Entry, EntryKind

TIME = datetime(2026, 1, 2, tzinfo=UTC)


def chain(bodies: Sequence[bytes], *, kinds: Sequence[EntryKind] = ()) -> list[Entry]:
    """A sound chain."""
    entries: list[Entry] = []
    previous = GENESIS
    for number, body in enumerate(bodies, start=1):
        kind = kinds[number - 1] if kinds else EntryKind.ANSWER
        entry = Entry(
            sequence=number,
            kind=kind,
            record_id=f"{number:032x}",
            time=TIME,
            body=body,
            previous_hash=previous,
            hash="",
        )
        entry = dataclasses.replace(entry, hash=own_hash(entry))
        entries.append(entry)
        previous = entry.hash
    return entries


def end_of(entries: Sequence[Entry]) -> Point:
    return Point(sequence=entries[-1].sequence, hash=entries[-1].hash)


def faults(found: Sequence[Break]) -> list[tuple[int, Fault]]:
    return [(each.sequence, each.fault) for each in found]


chains = st.lists(
    st.tuples(st.binary(max_size=20), st.sampled_from(EntryKind)), min_size=2, max_size=12
).map(lambda made: chain([body for body, _ in made], kinds=[kind for _, kind in made]))


@given(chains)
def test_a_sound_chain_is_intact_from_the_first_entry_to_its_head(entries: list[Entry]) -> None:
    found = verify(entries, anchors=[end_of(entries)])
    assert (found.intact, found.count, found.end) == (True, len(entries), end_of(entries))


@given(chains, st.data())
def test_a_part_of_a_sound_chain_is_intact_from_where_it_begins(
    entries: list[Entry], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, len(entries) - 1))
    found = verify(entries[cut:], start=end_of(entries[:cut]), anchors=[end_of(entries)])
    assert found.intact
    wrong = Point(sequence=cut, hash="f" * 64)
    assert faults(verify(entries[cut:], start=wrong).breaks) == [(cut + 1, Fault.LINK)]


@given(chains, st.data())
def test_any_single_deletion_is_found_where_it_was(
    entries: list[Entry], data: st.DataObject
) -> None:
    gone = data.draw(st.integers(0, len(entries) - 1))
    found = verify(entries[:gone] + entries[gone + 1 :], anchors=[end_of(entries)])
    fault = Fault.ANCHOR if gone == len(entries) - 1 else Fault.MISSING
    assert faults(found.breaks) == [(gone + 1, fault)]


@given(chains, st.data())
def test_any_single_alteration_is_found(entries: list[Entry], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(entries) - 1))
    victim = entries[position]
    other_hash = st.text("0123456789abcdef", min_size=64, max_size=64)
    changes: dict[str, st.SearchStrategy[Any]] = {
        "sequence": st.integers(0, 20),
        "kind": st.sampled_from(EntryKind),
        "record_id": st.text("0123456789abcdef", min_size=32, max_size=32),
        "time": st.datetimes(timezones=st.just(UTC)),
        "body": st.binary(max_size=20),
        "previous_hash": other_hash,
        "hash": other_hash,
    }
    name = data.draw(st.sampled_from(sorted(changes)))
    value = data.draw(changes[name].filter(lambda value: value != getattr(victim, name)))
    changed = dataclasses.replace(victim, **{name: value})
    if data.draw(st.booleans()) and name != "hash":  # by somebody who knows the formula
        changed = dataclasses.replace(changed, hash=own_hash(changed))
    found = verify(
        [*entries[:position], changed, *entries[position + 1 :]], anchors=[end_of(entries)]
    )
    assert not found.intact
    assert min(abs(each.sequence - position - 1) for each in found.breaks) <= 1


@given(chains, st.data())
def test_any_single_insertion_is_found(entries: list[Entry], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(entries)))
    before = end_of(entries[:position]) if position else START
    body = data.draw(st.binary(max_size=20))
    sequence = data.draw(st.sampled_from([before.sequence, before.sequence + 1]))
    forged = Entry(
        sequence=sequence,
        kind=EntryKind.FEEDBACK,
        record_id="",
        time=TIME,
        body=body,
        previous_hash=before.hash,
        hash="",
    )
    forged = dataclasses.replace(forged, hash=own_hash(forged))
    found = verify([*entries[:position], forged, *entries[position:]], anchors=[end_of(entries)])
    if position == len(entries) and sequence == before.sequence + 1:
        # A sound continuation: that it was not made by the server no hash can tell.
        assert (found.intact, found.end.sequence) == (True, len(entries) + 1)
    else:
        assert not found.intact


@given(chains, st.data())
def test_any_swap_is_found(entries: list[Entry], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(entries) - 2))
    second = data.draw(st.integers(first + 1, len(entries) - 1))
    swapped = list(entries)
    swapped[first], swapped[second] = swapped[second], swapped[first]
    found = verify(swapped, anchors=[end_of(entries)])
    assert (first + 1, Fault.MISSING) in faults(found.breaks)
    assert Fault.ORDER in {each.fault for each in found.breaks}


@given(chains, st.data())
def test_a_chain_rewritten_to_its_end_shows_only_against_an_anchor(
    entries: list[Entry], data: st.DataObject
) -> None:
    changed = data.draw(st.integers(0, len(entries) - 1))
    bodies = [entry.body for entry in entries]
    bodies[changed] += b"!"
    rewritten = chain(bodies, kinds=[entry.kind for entry in entries])
    assert verify(rewritten, anchors=[end_of(rewritten)]).intact
    noted = data.draw(st.integers(changed, len(entries) - 1))
    anchor = end_of(entries[: noted + 1])
    assert faults(verify(rewritten, anchors=[anchor]).breaks) == [(noted + 1, Fault.ANCHOR)]


def test_an_empty_ledger_is_intact_and_one_that_was_emptied_is_not() -> None:
    assert verify([]).end == verify([], anchors=[START]).end == START
    noted = Point(sequence=3, hash="a" * 64)
    assert faults(verify([], anchors=[noted]).breaks) == [(3, Fault.ANCHOR)]


def _of_other(entry: Entry) -> str:
    return "another" if entry.sequence == 2 else entry.record_id


def _unreadable(entry: Entry) -> str:
    if entry.sequence == 2:
        raise LedgerError("the body of entry 2 does not read")
    return entry.record_id


@pytest.mark.parametrize("about", [_of_other, _unreadable])
def test_a_body_that_is_about_another_answer_or_does_not_read_is_told(
    about: Callable[[Entry], str],
) -> None:
    found = verify(chain([b"a", b"b", b"c"]), about=about)
    assert faults(found.breaks) == [(2, Fault.CONTENT)]
    assert verify(chain([b"a"]), about=lambda _: None).intact


def test_all_breaks_are_counted_and_the_first_are_told() -> None:
    entries = [dataclasses.replace(entry, body=b"x") for entry in chain([b""] * 250)]
    found = verify(entries)
    assert (found.broken, len(found.breaks)) == (250, MOST_BREAKS)


def test_a_walk_holds_one_entry_at_a_time() -> None:
    given = 0

    def entries() -> Any:
        nonlocal given
        for entry in chain([b""] * 10):
            given += 1
            yield entry
            assert given == entry.sequence

    assert verify(entries()).count == 10


@pytest.mark.parametrize(
    "text", ["", "5", "x:" + GENESIS, "-1:" + GENESIS, "5:abc", "5:" + "g" * 64]
)
def test_a_place_that_is_written_wrongly_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no place in the ledger"):
        Point.parse(text)


def test_of_anchors_that_contradict_each_other_one_is_not_met() -> None:
    entries = chain([b"a", b"b"])
    other = Point(sequence=2, hash="a" * 64)
    found = verify(entries, anchors=[end_of(entries), other])
    assert faults(found.breaks) == [(2, Fault.ANCHOR)]


def test_a_place_is_read_as_it_is_written() -> None:
    assert str(Point.parse("4:" + "A" * 64)) == "4:" + "a" * 64
