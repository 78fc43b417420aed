"""An auditor's day with the command line: decisions of a real server shown, replayed, verified."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from ibinn import cli, manifest
from ibinn.client import Client
from ibinn.client.payload import to_bytes
from ibinn.policy import Costs, Policy
from ibinn.policy.file import write
from ibinn.records import AnswerEntry, ImageState
from ibinn.samples import all_samples
from ibinn.types import Action, Prediction
from service.access import grants
from service.call import Role

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0
DECISIONS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """A server that keeps records and images, and what it answered.

    Attributes:
        target: Its address.
        token: File with a token that allows everything.
        records: Its database.
        answers: What it answered, by the image's file.
        bundles: The folder that its bundle lies in.
    """

    target: str
    token: Path
    records: Path
    answers: dict[Path, Prediction]
    bundles: Path

    def ibinn(self, *arguments: object) -> Result:
        """A command that asks the server."""
        asking = ["--server", self.target, "--token-file", str(self.token)]
        return CliRunner().invoke(cli.app, [*map(str, arguments), *asking])

    def record_ids(self) -> list[str]:
        return [record_id_of(answer) for answer in self.answers.values()]


def record_id_of(answer: Prediction) -> str:
    assert answer.receipt is not None
    return answer.receipt.record_id


def noise(seed: int) -> bytes:
    """An image that shows nothing."""
    return to_bytes(np.random.default_rng(seed).integers(0, 256, (40, 32, 3), np.uint8))


def policy_for(bundle: Path) -> Policy:
    found = manifest.read(bundle)
    return Policy(
        name="audited",
        classes=found.classes,
        origin=None,
        alpha=0.02,
        class_alphas=(),
        coverage=found.conformal_coverage,
        costs=Costs.zero_one(len(found.classes), defer=0.2, reject=0.1),
        priors=None,
        certificate=None,
    )


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, embedded_bundle: Path) -> Iterator[Audited]:
    folder = tmp_path_factory.mktemp("audited")
    token = grants.new_token()
    roles = ", ".join(f'"{role}"' for role in Role)
    (folder / "token").write_text(token)
    (folder / "tokens.toml").write_text(
        f'[[token]]\nname = "auditor"\nsha256 = "{grants.token_digest(token).hex()}"\n'
        f"roles = [{roles}]\n"
    )
    bundle = folder / "bundles" / "2026-01"
    shutil.copytree(embedded_bundle, bundle)
    policy = folder / "bundles" / "2026-01.policy.json"
    write(policy_for(bundle), policy)
    told = {
        "state_dir": folder / "state",
        "audit": "required",
        "keep_images": "all",
        "tokens": folder / "tokens.toml",
        "bundle": bundle,
        "policy": policy,
        "port": 0,
        "metrics_port": 0,
        "threads": 1,
    }
    images = folder / "images"
    images.mkdir()
    sent = [sample.data for sample in all_samples()]
    sent += [noise(seed) for seed in range(DECISIONS - len(sent))]
    for number, data in enumerate(sent):
        (images / f"{number:02d}.image").write_bytes(data)
    with served(told, folder / "log.txt") as target:
        with Client(target, token=token) as client:
            paths = sorted(images.iterdir())
            answers = dict(zip(paths, client.classify_many(paths, group_id="lot-1"), strict=True))
        assert all(isinstance(answer, Prediction) for answer in answers.values())
        yield Audited(
            target=target,
            token=folder / "token",
            records=folder / "state" / "records.db",
            answers=answers,  # type: ignore[arg-type]
            bundles=folder / "bundles",
        )


@contextlib.contextmanager
def served(told: dict[str, Any], log: Path) -> Iterator[str]:
    """The address of a server process; ended afterwards."""
    environment = {f"IBINN_{name.upper()}": str(value) for name, value in told.items()}
    with log.open("a") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        assert process.stdout is not None
        found = re.match(r"ready grpc=(\S+) ", process.stdout.readline())
        assert found is not None, log.read_text()
        yield found[1]
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_twenty_decisions_are_shown_replayed_and_verified_in_ten_minutes(audited: Audited) -> None:
    start = time.monotonic()
    for path, answer in audited.answers.items():
        result = audited.ibinn("audit", "show", record_id_of(answer))
        assert result.exit_code == 0, result.output
        page = " ".join(result.stdout.split())
        assert answer.decision is not None
        for words in (
            answer.top.name,
            answer.reason,
            answer.decision.rule,
            answer.versions.weights,
            answer.versions.calibration,
            answer.versions.policy,
            answer.input.sha256_bytes,
            "its hash fits its contents",
            "2026-01",
            "lot-1",
            "kept (kept because every image is)",
            "2,500 calibration images",
        ):
            assert words in page, (path, words)
    result = audited.ibinn("audit", "replay", *audited.record_ids(), "--bundles", audited.bundles)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("THE SAME ANSWER") == DECISIONS
    result = audited.ibinn("audit", "verify")
    assert result.exit_code == 0, result.output
    assert "INTACT" in result.stdout
    assert time.monotonic() - start < 600


def test_what_is_shown_as_json_is_the_answer_that_was_given(audited: Audited) -> None:
    answer = next(iter(audited.answers.values()))
    shown = json.loads(audited.ibinn("audit", "show", record_id_of(answer), "--json").stdout)
    assert shown["intact"] is True
    kept = shown["answer"]["prediction"]
    assert kept["verdict"] == answer.verdict
    assert [each["log_likelihood"] for each in kept["classes"]] == [
        each.log_likelihood for each in answer.classes
    ]
    assert (shown["answer"]["caller"], shown["answer"]["method"]) == ("auditor", "ClassifyStream")
    result = audited.ibinn("audit", "show", "f" * 32)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "f" * 32 in result.stderr


def test_a_truth_is_told_once_corrected_and_seen_by_whoever_asks(
    audited: Audited, tmp_path: Path
) -> None:
    record_id = audited.record_ids()[3]
    for truth, outcome in (("cat", "first"), ("cat", "repeated"), ("axolotl", "corrected")):
        result = audited.ibinn("feedback", record_id, truth, "--source", "desk", "--json")
        assert (result.exit_code, json.loads(result.stdout)["outcome"]) == (0, outcome)
    result = audited.ibinn("audit", "show", record_id)
    for words in ("axolotl  the answer was wrong", "corrected", "desk"):
        assert words in result.stdout
    truths = tmp_path / "truths.csv"
    lines = [f"{each},unreadable" for each in audited.record_ids()[4:9]]
    truths.write_text("\n".join(["record_id,truth", *lines, "f" * 32 + ",cat"]) + "\n")
    for outcome in ("first", "repeated"):
        result = audited.ibinn("feedback", "--from", truths, "--source", "press")
        assert result.exit_code == 1
        assert "line 7" in result.stderr
        assert f"6 statements: 5 {outcome}, 1 refused" in result.stdout
    listed = audited.ibinn("audit", "list", "--last", 5, "--kind", "feedback", "--json")
    entries = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [entry["content"]["truth"]["kind"] for entry in entries] == ["unreadable"] * 5
    assert audited.ibinn("audit", "verify").exit_code == 0


def test_erasing_an_image_keeps_its_record_and_the_sent_file_replays_it(audited: Audited) -> None:
    path, answer = list(audited.answers.items())[1]
    record_id = record_id_of(answer)
    assert audited.ibinn("admin", "erase", record_id, "the person asked for it").exit_code == 0
    with Client(audited.target, token=audited.token.read_text()) as client:
        record = client.get_record(record_id, include_image=True)
    assert (record.image_state, record.image) == (ImageState.ERASED, None)
    assert record.answer.prediction.top == answer.top
    shown = audited.ibinn("audit", "show", record_id)
    assert "erased on request" in shown.stdout
    told = audited.ibinn("audit", "list", "--kind", "erasure")
    assert "the person asked for it" in told.stdout
    replay = ("audit", "replay", record_id, "--bundles", audited.bundles)
    result = audited.ibinn(*replay)
    assert result.exit_code == 2
    assert "is not kept; give the file" in result.stderr
    result = audited.ibinn(*replay, "--image", path)
    assert result.exit_code == 0, result.output
    other = next(other for other in audited.answers if other != path)
    result = audited.ibinn(*replay, "--image", other)
    assert result.exit_code == 2
    assert "give the very file that was sent" in result.stderr
    assert audited.ibinn("audit", "verify").exit_code == 0


def test_an_exported_ledger_is_checked_and_replayed_without_a_server(
    audited: Audited, tmp_path: Path
) -> None:
    file = tmp_path / "ledger.jsonl"
    result = audited.ibinn("audit", "export", file, "--json")
    assert result.exit_code == 0, result.output
    head = json.loads(result.stdout)["head"]

    def ibinn(*arguments: object) -> Result:
        return CliRunner().invoke(cli.app, ["audit", *map(str, arguments)])

    assert ibinn("verify", "--file", file, "--anchor", head).exit_code == 0
    path, answer = next(iter(audited.answers.items()))
    replay = ("replay", record_id_of(answer), "--file", file, "--image", path)
    result = ibinn(*replay, "--bundles", audited.bundles, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["same"], found["differences"]) == (True, [])
    assert found["policy"].endswith("2026-01.policy.json")
    # Another policy than the one on record is not taken for it.
    result = ibinn(*replay)
    assert result.exit_code == 2
    assert "made under a policy with the digest" in result.stderr

    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    result = ibinn("verify", "--file", file, "--anchor", head)
    assert result.exit_code == 1
    assert (
        f"entry {len(lines)} with the hash {head.partition(':')[2]} is not there" in result.stdout
    )


@pytest.fixture
def tampered(audited: Audited, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The server's own database, put back as it was afterwards."""
    before = tmp_path / "before.db"
    with (
        contextlib.closing(sqlite3.connect(audited.records, timeout=PATIENCE_S)) as database,
        contextlib.closing(sqlite3.connect(before)) as kept,
    ):
        database.backup(kept)
        yield database
        database.rollback()
        kept.backup(database)


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (["DELETE FROM {ledger} WHERE sequence = 7"], "entry 7 missing"),
        (
            ["UPDATE {ledger} SET body = CAST(body || x'00' AS BLOB) WHERE sequence = 7"],
            "entry 7 says that its hash is",
        ),
        (["UPDATE {ledger} SET kind = 'feedback' WHERE sequence = 7"], "entry 7"),
        (
            [
                "UPDATE {ledger} SET sequence = -1 WHERE sequence = 7",
                "UPDATE {ledger} SET sequence = 7 WHERE sequence = 8",
                "UPDATE {ledger} SET sequence = 8 WHERE sequence = -1",
            ],
            "entry 7",
        ),
        (
            ["DELETE FROM {ledger} WHERE sequence = (SELECT max(sequence) FROM {ledger})"],
            "is not there; the last entry is",
        ),
    ],
)
def test_what_somebody_does_to_the_database_is_found(
    statements: list[str], words: str, audited: Audited, tampered: sqlite3.Connection
) -> None:
    assert audited.ibinn("audit", "verify").exit_code == 0
    tampered.execute("PRAGMA foreign_keys = OFF")
    for (trigger,) in tampered.execute(
        "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    ).fetchall():
        tampered.execute(f"DROP TRIGGER {trigger}")
    for statement in statements:
        tampered.execute(statement.format(ledger="ledger"))
    tampered.commit()
    result = audited.ibinn("audit", "verify")
    assert result.exit_code == 1, result.output
    assert "BROKEN" in result.stdout
    assert words in result.stdout


def test_an_answer_altered_on_record_is_not_replayed_but_told_of(
    audited: Audited, tampered: sqlite3.Connection, tmp_path: Path
) -> None:
    record_id = audited.record_ids()[0]
    for (trigger,) in tampered.execute(
        "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    ).fetchall():
        tampered.execute(f"DROP TRIGGER {trigger}")
    (body,) = tampered.execute(
        "SELECT body FROM ledger WHERE kind = 'answer' AND record_id = ?", (record_id,)
    ).fetchone()
    changed = bytes(body).replace(b"auditor", b"nobody!")
    assert changed != body
    tampered.execute(
        "UPDATE ledger SET body = ? WHERE kind = 'answer' AND record_id = ?", (changed, record_id)
    )
    tampered.commit()
    shown = audited.ibinn("audit", "show", record_id)
    assert shown.exit_code == 1
    assert "ITS HASH DOES NOT FIT ITS CONTENTS" in shown.stdout
    replayed = audited.ibinn("audit", "replay", record_id, "--bundles", audited.bundles)
    assert replayed.exit_code == 2
    assert "it was altered" in replayed.stderr


def test_the_stop_button_stands_in_the_record_and_replays(audited: Audited) -> None:
    path = next(iter(audited.answers))
    assert audited.ibinn("admin", "mode", "abstain-all", "--reason", "drill").exit_code == 0
    with Client(audited.target, token=audited.token.read_text()) as client:
        answer = client.classify(path)
        assert audited.ibinn("admin", "mode", "normal").exit_code == 0
        record = client.get_record(record_id_of(answer))
    assert isinstance(record.answer, AnswerEntry)
    assert record.answer.prediction.decision is not None
    assert record.answer.prediction.decision.action is Action.DEFER
    replay = ("audit", "replay", record_id_of(answer), "--bundles", audited.bundles)
    result = audited.ibinn(*replay)
    assert result.exit_code == 0, result.output
