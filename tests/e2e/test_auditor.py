"""Tried as an auditor would: decisions of a run of the loop, by the command line alone."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console

from ibinn.loop.auditing import Audited, audited
from ibinn.loop.timeline import Timeline
from tests.e2e.conftest import LOOP_WITHIN_S, LoopRun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LOOP_WITHIN_S + 660)]

DECISIONS = 20
AUDIT_WITHIN_S = 600.0
IBINN = Path(sys.executable).with_name("ibinn")


@pytest.fixture(scope="module")
def left(loop_run: LoopRun) -> Iterator[Audited]:
    """The database and the server over what the run left, as ``--serve`` starts them."""
    with audited(loop_run.out, Timeline(Console(quiet=True))) as found:
        yield found


def asked(left: Audited, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(IBINN), "audit", *words, "--server", left.server.target, "--token-file",
         str(left.token)],
        capture_output=True, text=True, timeout=AUDIT_WITHIN_S, check=False,
    )  # fmt: skip


def test_twenty_random_decisions_are_shown_replayed_and_verified_in_ten_minutes(
    left: Audited, loop_run: LoopRun
) -> None:
    lines = (loop_run.out / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    answers = {answer["record_id"]: answer for answer in map(json.loads, lines)}
    chosen = random.Random(0).sample(sorted(answers), DECISIONS)
    began = time.monotonic()

    with ThreadPoolExecutor(2) as pool:
        shown = list(pool.map(lambda name: asked(left, "show", name), chosen))
    replayed = asked(left, "replay", *chosen, "--bundles", str(left.bundles))
    verified = asked(left, "verify")

    seconds = time.monotonic() - began
    print(f"{DECISIONS} decisions shown, replayed and verified in {seconds:.0f} s")
    for name, done in zip(chosen, shown, strict=True):
        assert done.returncode == 0, done.stderr
        assert name in done.stdout
        assert answers[name]["verdict"].replace("_", " ") in done.stdout
        assert answers[name]["weights"][:12] in done.stdout
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert seconds < AUDIT_WITHIN_S


def test_an_answer_without_a_record_is_not_found(left: Audited) -> None:
    done = asked(left, "show", "00000000000000000000000000000000")
    assert done.returncode == 2
    assert "000000" in done.stderr


def test_both_models_and_a_suspended_guarantee_are_among_the_records(
    left: Audited, loop_run: LoopRun
) -> None:
    lines = (loop_run.out / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line) for line in lines]
    assert len({answer["weights"] for answer in answers}) == 2
    suspended = next(answer for answer in answers if answer["held"] is False)
    done = asked(left, "show", suspended["record_id"])
    assert "suspended" in done.stdout.lower()
