"""How often an acceptance set was looked at.

Every candidate that is measured learns, through what people make of its decision, a little of the
set; in the end candidates fit the set and not the world. At most `limit` comparisons are made on
one set, and a candidate that is worse beyond its margin passes one of k of them with probability
1 - (1 - level)^k at most where candidates do not depend on the set, the union bound k·level where
they are chosen by pass and fail alone. A set is the same as long as half of its images are: adding
an image does not begin a new count. The same comparison made again is the same use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.promotion import log
from training.promotion.log import Entry

LIMIT = 10
"""Uses of one set unless another limit is given."""
_SKETCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A look at an acceptance set.

    Attributes:
        number: 1 for the first comparison on this set.
        limit: The most that are made.
        repeated: Whether this very comparison was made before.
        allowed: Whether it may be made.
        log: The file.
        entry_sha256: Of its line; empty where it may not be made.
    """

    number: int
    limit: int
    repeated: bool
    allowed: bool
    log: str
    entry_sha256: str

    def sentence(self) -> str:
        """For people."""
        again = " (this comparison was made before)" if self.repeated else ""
        said = f"use {self.number} of {self.limit} of the acceptance set{again}"
        if not self.allowed:
            return f"{said}: the set is used up; collect new images, or see --use-limit"
        if self.number > self.limit / 2:
            return f"{said}; collect a new set in time"
        return said


def take(
    path: Path, *, ids: Sequence[str], digest: str, comparison: str, candidate: str, limit: int
) -> Use:
    """Note a use before it is made.

    Args:
        path: The log.
        ids: Content ids of the set's images.
        digest: Of the set.
        comparison: Digest of everything that decides the outcome besides the set.
        candidate: Digest of the candidate's manifest.
        limit: The most uses of one set.

    Raises:
        DataError: The log was changed, or cannot be written.
    """
    sketch = sorted(id_[:16] for id_ in ids)[:_SKETCH]
    number, repeated, allowed = 0, False, True

    def addition(entries: Sequence[Entry]) -> Entry | None:
        nonlocal number, repeated, allowed
        same = [entry for entry in entries if _overlap(entry["sketch"], sketch) >= 0.5]
        before = [
            at
            for at, entry in enumerate(same, start=1)
            if (entry["set"], entry["comparison"]) == (digest, comparison)
        ]
        number = before[0] if before else len(same) + 1
        repeated, allowed = bool(before), bool(before) or number <= limit
        if repeated or not allowed:
            return None
        return {"set": digest, "sketch": sketch, "comparison": comparison, "candidate": candidate}

    entries = log.add(path, addition)
    return Use(
        number=number,
        limit=limit,
        repeated=repeated,
        allowed=allowed,
        log=str(path),
        entry_sha256=entries[-1]["sha256"] if allowed and entries else "",
    )


def _overlap(first: Any, second: Sequence[str]) -> float:
    """Images in both sets per image in either, from the smallest ids of each."""
    smallest = sorted({*first, *second})[:_SKETCH]
    both = {*first} & {*second}
    return sum(name in both for name in smallest) / len(smallest)
