"""`ibinn audit`, with a ledger in place of a server."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ibinn import cli
from ibinn.audit_file import entries_of, entry_line
from ibinn.client import Page, content, record_id_in
from ibinn.errors import DataError, NotFoundError
from ibinn.records import Entry, EntryKind, ImageState, Record
from tests.ibinn import ledgers

HEAD = ledgers.ledger()[-1]


class StubClient:
    """A server's ledger, as a list."""

    ledger: list[Entry]
    head: tuple[int, str] | None
    record: Record

    def __init__(self, target: str, **options: Any) -> None:
        pass

    def __enter__(self) -> StubClient:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def get_record(self, record_id: str, *, include_image: bool = False) -> Record:
        if record_id != ledgers.RECORD_ID:
            raise NotFoundError(f"there is no record {record_id}", code="NOT_FOUND")
        return self.record

    def list_entries(self, *, after: int = 0, page_size: int = 0) -> Page:
        last = (self.ledger[-1].sequence, self.ledger[-1].hash) if self.ledger else (0, "")
        sequence, digits = self.head or last
        entries = tuple(entry for entry in self.ledger if entry.sequence > after)[:page_size]
        return Page(entries=entries, head_sequence=sequence, head_hash=digits)

    def entries(
        self, *, after: int = 0, page_size: int = 0, kinds: Iterable[EntryKind] = ()
    ) -> Iterator[Entry]:
        wanted = set(kinds) or set(EntryKind)
        return (each for each in self.ledger if each.sequence > after and each.kind in wanted)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[StubClient]:
    StubClient.ledger, StubClient.head = ledgers.ledger(), None
    StubClient.record = ledgers.record()
    module = SimpleNamespace(
        Client=StubClient, Retry=lambda **_: None, content=content, record_id_in=record_id_in
    )
    monkeypatch.setitem(sys.modules, "ibinn.client", module)  # type: ignore[arg-type]
    return StubClient


def audit(*arguments: object, server: str = "host:1") -> Result:
    asking = ("--server", server) if server else ()
    return CliRunner().invoke(cli.app, ["audit", *map(str, arguments), *asking])


def changed(number: int, **changes: Any) -> list[Entry]:
    entries = ledgers.ledger()
    entries[number - 1] = dataclasses.replace(entries[number - 1], **changes)
    return entries


def test_a_page_says_why_by_what_how_calibrated_and_what_was_said_later(
    stub: type[StubClient],
) -> None:
    result = audit("show", ledgers.RECORD_ID)
    assert result.exit_code == 0, result.output
    prediction = ledgers.prediction()
    for words in (
        "NOT FLAGGED  The combined test's p-value 0.42 is above α = 0.01.",
        "ACCEPT cat  why",
        "2026-01-02 03:04:05.678000 UTC by server host-1, Classify",
        "line-3, request request-1",
        "lot-7",
        f"2026-01, weights {prediction.versions.weights}",
        f"calibration  {prediction.versions.calibration}",
        "2,500 calibration images",
        "61.5 % of 312 calibration images answered with about this confidence were right",
        "holds the truth for 95.0 %, measured 95.2 %",
        "guarantee  SUSPENDED: the p-values drift",
        "log_q_x.typicality",
        "dog  the answer was wrong",
        "had not seen the answer, overruled, selected: random, chance 0.25, found 2026-01-03",
        "out_of_scope",
        "conflicting",
        "by receipt",
        "kept (kept because it was drawn)",
        f"{'00' * 32} of its bytes",
        "entry 1 of 2026-01-02 03:04:06 UTC, its hash fits its contents",
    ):
        assert words in result.stdout, words
    assert "\x1b" not in result.stdout


def test_a_record_as_json_holds_all_but_the_bytes(stub: type[StubClient]) -> None:
    found = json.loads(audit("show", ledgers.RECORD_ID, "--json").stdout)
    assert (found["sequence"], found["intact"], found["image_state"]) == (1, True, "kept")
    assert found["answer"]["prediction"]["receipt"]["group_id"] == "lot-7"
    assert [each["outcome"] for each in found["feedback"]] == ["first", "conflicting"]


def test_an_altered_record_is_shown_with_code_1(stub: type[StubClient]) -> None:
    entry = dataclasses.replace(stub.record.entry, body=stub.record.entry.body + b"\0\0")
    stub.record = ledgers.record(entry=entry, image_state=ImageState.EXPIRED, feedback=())
    result = audit("show", ledgers.RECORD_ID)
    assert result.exit_code == 1
    for words in ("ITS HASH DOES NOT FIT ITS CONTENTS", "gone: its time was over", "nothing"):
        assert words in result.stdout
    assert json.loads(audit("show", ledgers.RECORD_ID, "--json").stdout)["intact"] is False


def test_the_newest_entries_are_listed_whatever_they_are(stub: type[StubClient]) -> None:
    stub.ledger[0] = dataclasses.replace(stub.ledger[0], body=b"\xff")
    result = audit("list")
    assert result.exit_code == 0, result.output
    for words in (
        "the body of entry 1 of the ledger does not read",
        "dog says inspector, first  answered cat",
        "out_of_scope says press, conflicting",
        f"image {'00' * 6} by operator: asked for",
        "SUSPENDED for calibration 0f0f0f0f0f0f by detector p_values: the p-values drift",
    ):
        assert words in result.stdout, words
    last = audit("list", "--last", 2, "--json").stdout.splitlines()
    assert [json.loads(line)["sequence"] for line in last] == [4, 5]
    kind = audit("list", "--last", 1, "--kind", "feedback", "--json").stdout
    assert json.loads(kind)["sequence"] == 3


def test_a_sound_ledger_is_intact_and_its_head_is_told(stub: type[StubClient]) -> None:
    head = f"{HEAD.sequence}:{HEAD.hash}"
    result = audit("verify", "--anchor", head)
    assert result.exit_code == 0, result.output
    assert "INTACT  5 entries, the last one 5" in result.stdout
    assert head in result.stdout
    found = json.loads(audit("verify", "--json").stdout)
    assert (found["intact"], found["head"], found["breaks"]) == (True, head, [])
    stub.ledger = []
    assert audit("verify").exit_code == 0


@pytest.mark.parametrize(
    ("ledger", "head", "words"),
    [
        (changed(3, body=ledgers.ledger()[1].body), None, "entry 3 says that its hash is"),
        (ledgers.ledger()[:2] + ledgers.ledger()[3:], None, "entry 3 missing"),
        (ledgers.ledger()[:4], (HEAD.sequence, HEAD.hash), "is not there; the last entry is 4"),
        (ledgers.ledger(), (3, ledgers.ledger()[2].hash), "its head is entry 3, but it holds"),
        (ledgers.ledger(), (5, "a" * 64), "a" * 64),
    ],
)
def test_a_broken_ledger_gives_code_1_and_the_place(
    ledger: list[Entry], head: tuple[int, str] | None, words: str, stub: type[StubClient]
) -> None:
    stub.ledger, stub.head = ledger, head
    result = audit("verify")
    assert result.exit_code == 1, result.output
    assert "BROKEN: 1 break " in result.stdout
    assert words in result.stdout
    assert json.loads(audit("verify", "--json").stdout)["broken"] == 1


def test_a_rewritten_ledger_shows_against_the_head_noted_before(stub: type[StubClient]) -> None:
    stub.ledger = ledgers.ledger((*ledgers.CONTENTS[:3], *ledgers.CONTENTS[4:]))
    assert audit("verify").exit_code == 0
    for noted in (HEAD, ledgers.ledger()[3]):
        result = audit("verify", "--anchor", f"{noted.sequence}:{noted.hash}")
        assert result.exit_code == 1


def test_an_exported_ledger_reads_back_and_is_checked_without_a_server(
    stub: type[StubClient], tmp_path: Path
) -> None:
    file = tmp_path / "ledger.jsonl"
    result = audit("export", file)
    assert result.exit_code == 0, result.output
    assert f"{file}  INTACT" in result.stdout
    assert list(entries_of(file)) == ledgers.ledger()
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.jsonl"]
    assert audit("verify", "--file", file, server="").exit_code == 0
    stub.ledger = changed(2, hash="e" * 64)
    assert audit("export", file).exit_code == 1
    assert audit("verify", "--file", file, server="").exit_code == 1


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        entry_line(HEAD).replace('"sequence": 5', '"sequence": "5"'),
        entry_line(HEAD).replace('"guarantee"', '"promise"'),
        entry_line(HEAD).replace('"body": "', '"body": "?'),
    ],
)
def test_a_line_that_is_no_entry_is_named(line: str, tmp_path: Path) -> None:
    file = tmp_path / "ledger.jsonl"
    file.write_text(entry_line(HEAD) + "\n" + line + "\n")
    with pytest.raises(DataError, match="line 2 is no entry"):
        list(entries_of(file))


@pytest.mark.parametrize(
    ("arguments", "server", "message"),
    [
        (("verify",), "", "--server is missing"),
        (("verify", "--anchor", "5"), "host:1", "no place in the ledger"),
        (("verify", "--file", "x.jsonl"), "host:1", "got --file and --server"),
        (("verify", "--file", "nowhere.jsonl"), "", "cannot read nowhere.jsonl"),
        (("export", "nowhere/x.jsonl"), "host:1", "cannot write"),
        (("show", "f" * 32), "host:1", "there is no record"),
        (("replay", "f" * 32), "host:1", "there is no record"),
        (("replay", ledgers.RECORD_ID), "host:1", "is not kept; give the file"),
        (("replay", "a", "b", "--image", "x"), "host:1", "several records"),
        (("replay", "a", "--file", "x"), "", "which holds no images"),
        (("replay", "a", "--bundles", "nowhere"), "host:1", "is not a folder"),
        (("replay", "a", "--bundles", ".", "--bundle", "."), "host:1", "--bundle and --bundles"),
    ],
)
def test_what_is_wrong_is_told_with_code_2(
    arguments: tuple[str, ...], server: str, message: str, stub: type[StubClient]
) -> None:
    result = audit(*arguments, server=server)
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_a_record_of_another_bundle_names_the_one_that_is_needed(
    stub: type[StubClient], tmp_path: Path
) -> None:
    stub.record = ledgers.record(image=b"another image")
    result = audit("replay", ledgers.RECORD_ID)
    assert (result.exit_code, "give the very file that was sent" in result.stderr) == (2, True)
    sent = dataclasses.replace(ledgers.prediction().input, sha256_bytes="")
    stub.record = ledgers.record(image=b"pixels", answer=ledgers.answer(input=sent))
    for more, words in (
        ((), "the embedded bundle is not it"),
        (("--bundles", tmp_path), f"none of the 0 bundles in {tmp_path} is it"),
    ):
        result = audit("replay", ledgers.RECORD_ID, *more)
        assert result.exit_code == 2
        assert (
            "the record is of weights a1b2c3d4e5f6 with calibration 0f0f0f0f0f0f" in result.stderr
        )
        assert words in result.stderr
