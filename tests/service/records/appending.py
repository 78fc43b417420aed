"""A process that appends to a ledger beside others: ``python -m ... URL NUMBER``."""

from __future__ import annotations

import sys

from service.records.ledger import Ledger
from tests.service.records.made import new_answer, statement

BATCHES = 20
SIZE = 8
COMMON = 5
"""Answers that every process appends, and has something to say about."""


def append(url: str, process: int) -> None:
    """Answers of its own, answers of all, statements about those."""
    ledger = Ledger.open(url, timeout_s=60)
    for batch in range(BATCHES):
        first = 1000 * process + SIZE * batch
        common = -1 - batch % COMMON
        ledger.append_answers([new_answer(common), *(new_answer(first + n) for n in range(SIZE))])
        said = statement(common, source=f"process {process}", feedback_id=f"{process}{common}")
        ledger.append_feedback(said, caller="x", digest=None)
    ledger.close()


if __name__ == "__main__":
    append(sys.argv[1], int(sys.argv[2]))
