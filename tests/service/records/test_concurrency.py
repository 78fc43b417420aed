"""Several processes append to one database."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from ibinn.records import EntryKind, FeedbackOutcome
from service.converters import records as bodies
from service.records.ledger import Ledger
from tests.conftest import ROOT
from tests.service.records import appending
from tests.service.records.appending import BATCHES, COMMON, SIZE
from tests.service.records.made import new_answer, record_id
from tests.service.records.test_ledger import whole

PROCESSES = 3
PATIENCE_S = 240.0


def start(url: str, number: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", appending.__name__, url, str(number)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_processes_that_append_at_once_make_one_chain_without_doubles(records_url: str) -> None:
    running = [start(records_url, number) for number in range(PROCESSES)]
    for process in running:
        _, errors = process.communicate(timeout=PATIENCE_S)
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
def test_a_process_that_is_killed_while_it_appends_leaves_a_whole_chain(records_url: str) -> None:
    ledger = Ledger.open(records_url, timeout_s=60)
    process = start(records_url, 0)
    give_up = time.monotonic() + PATIENCE_S
    while ledger.entries(0, 1).head_sequence < 20:
        assert time.monotonic() < give_up
        time.sleep(0.002)
    process.kill()
    process.communicate()

    # Its lock does not outlive it, and what it had committed is there.
    ledger.append_answers([new_answer(5000)])
    entries = list(ledger.all_entries())
    assert whole(entries)
    assert len(entries) >= 21
    appending.append(records_url, 0)
    assert whole(list(ledger.all_entries()))
    ledger.close()
