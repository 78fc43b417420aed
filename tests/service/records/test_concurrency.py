"""Several processes append to one database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ibinn.records import EntryKind, FeedbackOutcome
from service.converters import records as bodies
from service.records.ledger import Ledger
from tests.conftest import ROOT
from tests.service.records.made import new_answer, record_id, statement
from tests.service.records.test_ledger import whole

PROCESSES = 4
BATCHES = 12
SIZE = 8
COMMON = 5
"""Answers that every process appends, and has something to say about."""


def append(url: str, process: int) -> None:
    """What each process does: answers of its own, answers of all, statements about those."""
    ledger = Ledger.open(url, timeout_s=60)
    for batch in range(BATCHES):
        first = 1000 * process + SIZE * batch
        common = [new_answer(-1 - batch % COMMON)]
        ledger.append_answers([*common, *(new_answer(first + n) for n in range(SIZE))])
        number = -1 - batch % COMMON
        said = statement(number, source=f"process {process}", feedback_id=f"{process}-{number}")
        ledger.append_feedback(said, caller="x", digest=None)
    ledger.close()


@pytest.mark.slow
def test_processes_that_append_at_once_make_one_chain_without_doubles(records_url: str) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.service.records.test_concurrency", records_url, str(n)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(PROCESSES)
    ]
    for process in running:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors

    ledger = Ledger.open(records_url, timeout_s=60)
    entries = list(ledger.all_entries())
    ledger.close()
    assert whole(entries)
    answers = [entry.record_id for entry in entries if entry.kind is EntryKind.ANSWER]
    own = {record_id(1000 * p + n) for p in range(PROCESSES) for n in range(SIZE * BATCHES)}
    assert len(answers) == len(set(answers))
    assert set(answers) == own | {record_id(-1 - n) for n in range(COMMON)}
    said = [bodies.read_feedback(e.body) for e in entries if e.kind is EntryKind.FEEDBACK]
    assert len(said) == PROCESSES * COMMON
    for number in range(COMMON):
        about = [one for one in said if one.record_id == record_id(-1 - number)]
        assert [one.revision for one in about] == list(range(1, PROCESSES + 1))
        assert [one.outcome for one in about] == [
            FeedbackOutcome.FIRST,
            *[FeedbackOutcome.CONFIRMED] * (PROCESSES - 1),
        ]


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_appends_leaves_a_whole_chain(
    records_url: str, tmp_path: Path
) -> None:
    Ledger.open(records_url, timeout_s=60).close()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.service.records.test_concurrency", records_url, "0"], cwd=ROOT
    )
    ledger = Ledger.open(records_url, timeout_s=60)
    while ledger.entries(0, 1).head_sequence < 20 and process.poll() is None:
        pass
    process.kill()
    process.wait()

    # Its lock does not outlive it, and what it had committed is there.
    ledger.append_answers([new_answer(5000)])
    entries = list(ledger.all_entries())
    assert whole(entries)
    assert len(entries) >= 21
    append(records_url, 0)
    assert whole(list(ledger.all_entries()))
    ledger.close()


if __name__ == "__main__":
    append(sys.argv[1], int(sys.argv[2]))
