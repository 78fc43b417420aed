"""The hash chain of the ledger: how an entry's hash is made, and what breaks the chain.

    hash_n = sha256(n "\\n" hash_{n-1} "\\n" kind "\\n" record_id "\\n" time "\\n" body)

n in decimal digits, hashes in hexadecimal digits, time in microseconds since 1970 (UTC) in decimal
digits, hash_0 = 64 zeros (``proto/ibinn/v1/record.proto``).

A deleted, altered, inserted or moved entry breaks the chain where it was. Whoever rewrites all
entries from one on to the end leaves a chain that holds: that shows only against an anchor, a hash
that was noted down elsewhere before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from ibinn.errors import ConfigError, LedgerError
from ibinn.records import Entry, EntryKind

GENESIS = "0" * 64
"""What stands before the first entry."""

MOST_BREAKS = 100
"""Breaks that are told one by one; all are counted."""


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def entry_hash(
    *,
    sequence: int,
    previous_hash: str,
    kind: EntryKind,
    record_id: str,
    time: datetime,
    body: bytes,
) -> str:
    """The hash of an entry (64 hexadecimal digits), made of everything else that it holds."""
    microseconds = (time - _EPOCH) // timedelta(microseconds=1)
    head = f"{sequence}\n{previous_hash}\n{kind.value}\n{record_id}\n{microseconds}\n"
    digest = hashlib.sha256(head.encode())
    digest.update(body)
    return digest.hexdigest()


def own_hash(entry: Entry) -> str:
    """The hash that an entry's contents have; its `hash`, unless one of both was altered.

    >>> time = datetime(2026, 1, 2, tzinfo=UTC)
    >>> own_hash(Entry(sequence=1, kind=EntryKind.ANSWER, record_id="", time=time, body=b"",
    ...                previous_hash=GENESIS, hash=""))[:12]
    '8d9e73045281'
    """
    return entry_hash(
        sequence=entry.sequence,
        previous_hash=entry.previous_hash,
        kind=entry.kind,
        record_id=entry.record_id,
        time=entry.time,
        body=entry.body,
    )


class Fault(StrEnum):
    """In what way a chain is broken."""

    MISSING = "missing"
    """Numbers are left out."""
    ORDER = "order"
    """A number comes again, or after a higher one."""
    ALTERED = "altered"
    """An entry's hash is not that of its contents."""
    LINK = "link"
    """An entry was made after another one than the one before it."""
    CONTENT = "content"
    """An entry's body does not read, or is about another answer than the entry says."""
    ANCHOR = "anchor"
    """An entry is not the one that was noted down, or is no longer there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A place in the chain.

    Attributes:
        sequence: Number of an entry; 0: before the first.
        hash: Of the entry.
    """

    sequence: int
    hash: str

    def __post_init__(self) -> None:
        digits = len(self.hash) == 64 and set(self.hash) <= set("0123456789abcdef")
        if self.sequence < 0 or not digits:
            raise ConfigError(
                f"{self} is no place in the ledger; expected NUMBER:HASH with 64 hexadecimal "
                "digits, as `ibinn audit verify` prints it"
            )

    @classmethod
    def parse(cls, text: str) -> Point:
        """The place written as ``NUMBER:HASH``.

        Raises:
            ConfigError: It is not written so.

        >>> Point.parse("0:" + GENESIS) == START
        True
        """
        number, _, digits = text.partition(":")
        if not (number.isascii() and number.isdigit()):
            raise ConfigError(
                f"{text!r} is no place in the ledger; expected NUMBER:HASH, as `ibinn audit "
                "verify` prints it"
            )
        return cls(sequence=int(number), hash=digits.lower())

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash}"


START = Point(sequence=0, hash=GENESIS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """A place where the chain is broken.

    Attributes:
        sequence: Of the entry where it shows.
        fault: In what way.
        words: A sentence that says what was found and what was expected.
    """

    sequence: int
    fault: Fault
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a walk along the chain found.

    Attributes:
        count: Entries that were looked at.
        end: The last one; where the walk began, if there was none.
        broken: Number of breaks.
        breaks: The first of them, at most `MOST_BREAKS`.
    """

    count: int
    end: Point
    broken: int
    breaks: tuple[Break, ...]

    @property
    def intact(self) -> bool:
        """Whether nothing is missing or changed between the start, the anchors and the end."""
        return not self.broken


def verify(
    entries: Iterable[Entry],
    *,
    start: Point = START,
    anchors: Iterable[Point] = (),
    about: Callable[[Entry], str | None] | None = None,
) -> Verified:
    """Walks along the chain, one entry at a time, and tells every place where it is broken.

    Args:
        entries: In the order in which they are kept.
        start: Where the walk begins: the entry before the first of `entries`, known from before.
        anchors: Places noted down elsewhere, the head that the ledger states among them; each must
            be met.
        about: Reads the record id out of an entry's body, which must be the entry's; None where
            its kind names none. Raises LedgerError where the body does not read. Not given: bodies
            are not read.
    """
    walk = _Walk(start, anchors, about)
    for entry in entries:
        walk.add(entry)
    return walk.ended()


class _Walk:
    def __init__(
        self,
        start: Point,
        anchors: Iterable[Point],
        about: Callable[[Entry], str | None] | None,
    ) -> None:
        self._last = start
        self._about = about
        self._count = 0
        self._broken = 0
        self._breaks: list[Break] = []
        self._anchors: dict[int, set[str]] = {}
        for anchor in anchors:
            if anchor.sequence >= start.sequence:  # else it is not of this part of the chain
                self._anchors.setdefault(anchor.sequence, set()).add(anchor.hash)
        self._meet(start.sequence, start.hash)

    def add(self, entry: Entry) -> None:
        last = self._last
        following = last.sequence + 1
        self._count += 1
        if entry.sequence > following:
            missing = entry.sequence - following
            numbers = (
                f"entry {following}"
                if missing == 1
                else f"entries {following} to {entry.sequence - 1}"
            )
            self._break(
                following,
                Fault.MISSING,
                f"{numbers} missing: after entry {last.sequence} comes entry {entry.sequence}.",
            )
        elif entry.sequence < following:
            self._break(
                entry.sequence,
                Fault.ORDER,
                f"entry {entry.sequence} comes after entry {last.sequence}.",
            )
        elif entry.previous_hash != last.hash:
            self._break(
                entry.sequence,
                Fault.LINK,
                f"entry {entry.sequence} was made after an entry with the hash "
                f"{entry.previous_hash}, but entry {last.sequence} has {last.hash}: one of the two "
                "was replaced.",
            )
        own = own_hash(entry)
        if own != entry.hash:
            self._break(
                entry.sequence,
                Fault.ALTERED,
                f"entry {entry.sequence} says that its hash is {entry.hash}; its contents have "
                f"{own}: they were altered, or the hash was.",
            )
        self._read(entry)
        self._meet(entry.sequence, entry.hash)
        # An entry out of order does not change where the walk is: what follows it is held to the
        # entries before it.
        if entry.sequence >= following:
            self._last = Point(sequence=entry.sequence, hash=entry.hash)

    def ended(self) -> Verified:
        for sequence, wanted in sorted(self._anchors.items()):
            for digits in sorted(wanted):
                self._break(
                    sequence,
                    Fault.ANCHOR,
                    f"entry {sequence} with the hash {digits} is not there; the last entry is "
                    f"{self._last.sequence}.",
                )
        return Verified(
            count=self._count, end=self._last, broken=self._broken, breaks=tuple(self._breaks)
        )

    def _meet(self, sequence: int, digits: str) -> None:
        for wanted in sorted(self._anchors.pop(sequence, set()) - {digits}):
            self._break(
                sequence,
                Fault.ANCHOR,
                f"entry {sequence} has the hash {digits}; noted down was {wanted}: the ledger was "
                "rewritten up to there, or the note is of another one.",
            )

    def _read(self, entry: Entry) -> None:
        if self._about is None:
            return
        try:
            said = self._about(entry)
        except LedgerError as error:
            self._break(entry.sequence, Fault.CONTENT, f"{error}.")
            return
        if said is not None and said != entry.record_id:
            self._break(
                entry.sequence,
                Fault.CONTENT,
                f"entry {entry.sequence} is filed under record {entry.record_id!r}, but its body "
                f"is about {said!r}.",
            )

    def _break(self, sequence: int, fault: Fault, words: str) -> None:
        self._broken += 1
        if len(self._breaks) < MOST_BREAKS:
            self._breaks.append(Break(sequence=sequence, fault=fault, words=words))
