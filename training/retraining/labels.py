"""What is true of an image by those whose statements count, and where they disagree.

Statements of quarantined sources neither settle a label nor dispute one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ibinn.records import Truth
from training.retraining.candidates import Candidate, Statement, is_class


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """An image whose class is settled.

    Attributes:
        candidate: The first answer about these pixels.
        class_name: What it shows.
        source: Who gave the label first; a trusted source before others.
        trusted: Whether that source is trusted.
        weight: 1 / sampling probability of the labelling; None: not known.
        selection: Why it was labelled; empty: not said.
    """

    candidate: Candidate
    class_name: str
    source: str
    trusted: bool
    weight: float | None
    selection: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disputed:
    """An image that a person should look at; it is not used.

    Attributes:
        id: sha256 of its pixels.
        record_ids: Answers about it.
        said: (who, what), such as a source and its class, or the old data and its class.
        why: In words.
    """

    id: str
    record_ids: tuple[str, ...]
    said: tuple[tuple[str, str], ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What becomes of the candidates.

    Attributes:
        labelled: One per image (by its pixels) with a settled class, in the order of time.
        disputed: Those whose sources disagree.
        apart: (kind, record id) of images out of scope or unreadable.
        unheard: Images about which only quarantined sources say something.
        repeated: Further answers about pixels that are there already.
    """

    labelled: tuple[Labelled, ...]
    disputed: tuple[Disputed, ...]
    apart: tuple[tuple[str, str], ...]
    unheard: int
    repeated: int


def settle(
    candidates: Sequence[Candidate], *, trusted: Collection[str], released: Collection[str]
) -> Settled:
    """Settle each image's class.

    A source's last statement about an image is what it says. All sources that count have to say
    the same.

    Args:
        candidates: With files.
        trusted: Sources that are trusted.
        released: Sources that are not, and count nevertheless.
    """
    counted = {*trusted, *released}
    by_pixels: dict[str, list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda c: (c.time, c.record_id)):
        by_pixels.setdefault(candidate.id, []).append(candidate)

    labelled: list[Labelled] = []
    disputed: list[Disputed] = []
    apart: list[tuple[str, str]] = []
    unheard = repeated = 0
    for key, same in by_pixels.items():
        statements = _last(same, counted)
        if not statements:
            unheard += len(same)
            continue
        repeated += len(same) - 1
        truths: set[Truth] = {statement.truth for statement in statements}
        if len(truths) > 1:
            disputed.append(
                Disputed(
                    id=key,
                    record_ids=tuple(c.record_id for c in same),
                    said=tuple((s.source, s.truth.text) for s in statements),
                    why="sources disagree",
                )
            )
        elif not is_class(statements[0].truth):
            apart.append((statements[0].truth.kind.value, same[0].record_id))
        else:
            labelled.append(_labelled(same[0], statements, trusted))
    return Settled(
        labelled=tuple(labelled),
        disputed=tuple(disputed),
        apart=tuple(apart),
        unheard=unheard,
        repeated=repeated,
    )


def _last(same: Sequence[Candidate], counted: Collection[str]) -> list[Statement]:
    """The last statement of each source that counts, over all answers about the same pixels."""
    last: dict[str, Statement] = {}
    for candidate in same:
        for statement in candidate.statements:
            if statement.source in counted:
                before = last.get(statement.source)
                if before is None or statement.time >= before.time:
                    last[statement.source] = statement
    return sorted(last.values(), key=lambda s: (s.time, s.source))


def _labelled(
    candidate: Candidate, statements: Sequence[Statement], trusted: Collection[str]
) -> Labelled:
    first = next((s for s in statements if s.source in trusted), statements[0])
    return Labelled(
        candidate=candidate,
        class_name=first.truth.class_name,
        source=first.source,
        trusted=first.source in trusted,
        weight=first.weight,
        selection="" if first.selection is None else first.selection.value,
    )
