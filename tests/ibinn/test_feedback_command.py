"""`ibinn feedback`, one statement or a file of them, with a stub in place of the client."""

from __future__ import annotations

import csv
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ibinn import cli, tables
from ibinn.client.statements import truth_of
from ibinn.errors import DataError, NotFoundError, UnavailableError
from ibinn.feedback_file import COLUMNS, read
from ibinn.records import (
    OUT_OF_SCOPE,
    UNREADABLE,
    Acknowledgement,
    Feedback,
    FeedbackOutcome,
    Provenance,
    Reaction,
    Selection,
    Truth,
)
from tests.ibinn.answers import make_prediction

A, B, LOST = "a" * 32, "b" * 32, "e" * 32


class StubClient:
    """Takes statements as a server would, each id once; knows no record LOST."""

    statements: list[tuple[str, Truth | str, dict[str, Any]]]
    known: set[str]
    breaks_after: int | None

    def __init__(self, target: str, **options: Any) -> None:
        pass

    def __enter__(self) -> StubClient:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit_feedback(
        self, record: str, truth: Truth | str, *, feedback_id: str = "", **said: Any
    ) -> Acknowledgement:
        if self.breaks_after is not None and len(self.statements) >= self.breaks_after:
            raise UnavailableError("the records cannot be reached", code="UNAVAILABLE")
        if record == LOST:
            raise NotFoundError(f"there is no record {record}", code="NOT_FOUND")
        new = not feedback_id or feedback_id not in self.known
        self.known.add(feedback_id)
        self.statements.append((record, truth, said))
        return Acknowledgement(
            feedback_id=feedback_id or "made",
            outcome=FeedbackOutcome.FIRST if new else FeedbackOutcome.REPEATED,
            revision=1,
            record_known=not said["receipt"],
        )


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[StubClient]:
    StubClient.statements, StubClient.known, StubClient.breaks_after = [], set(), None
    module = SimpleNamespace(Client=StubClient, Retry=lambda **_: None, truth_of=truth_of)
    monkeypatch.setitem(sys.modules, "ibinn.client", module)  # type: ignore[arg-type]
    return StubClient


def feedback(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["feedback", *map(str, arguments), "--server", "host:1"])


def test_a_statement_says_all_that_the_options_say(stub: type[StubClient]) -> None:
    result = feedback(
        A, "dog", "--source", "inspector", "--not-saw-answer", "--reaction", "overruled",
        "--selection", "random", "--probability", "0.25", "--receipt", "token",
        "--labelled-time", "2026-01-31T09:30:00Z", "--comment", "blurred",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    provenance = Provenance(
        source="inspector",
        saw_answer=False,
        reaction=Reaction.OVERRULED,
        selection=Selection.RANDOM,
        sampling_probability=0.25,
    )
    said = {
        "provenance": provenance,
        "receipt": "token",
        "labelled_time": datetime(2026, 1, 31, 9, 30, tzinfo=UTC),
        "comment": "blurred",
    }
    assert stub.statements == [(A, "dog", said)]
    assert result.stdout == (
        f"{A}: kept as statement 1: the first statement about this answer; the answer's record was "
        "lost, its receipt was accepted\n"
    )


def test_a_statement_is_acknowledged_as_json(stub: type[StubClient]) -> None:
    result = feedback(A, "out-of-scope", "--source", "x", "--json")
    assert json.loads(result.stdout) == {
        "record_id": A,
        "feedback_id": "made",
        "outcome": "first",
        "revision": 1,
        "record_known": True,
    }
    assert stub.statements[0][2]["provenance"] == Provenance(source="x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((A,), "give RECORD and TRUTH"),
        ((), "give RECORD and TRUTH"),
        ((A, "cat"), "--source is missing"),
        ((A, "cat", "--source", "x", "--labelled-time", "yesterday"), "ISO 8601"),
        ((A, "cat", "--source", "x", "--labelled-time", "2026-01-31"), "ISO 8601"),
        ((A, "cat", "--source", "x", "--from", "f.csv"), "got --from and a statement"),
        (("--from", "f.txt"), "ends in .csv or .jsonl"),
        (("--from", "nowhere.csv"), "cannot read nowhere.csv"),
        ((LOST, "cat", "--source", "x"), "no record"),
        ((A, "cat", "--source", "x", "--probability", "0"), "probability"),
        ((A, "cat", "--source", "x", "--reaction", "laughed"), "reaction"),
    ],
)
def test_what_is_wrong_is_told_with_code_2(
    arguments: tuple[str, ...], message: str, stub: type[StubClient]
) -> None:
    result = feedback(*arguments)
    assert (result.exit_code, stub.statements) == (2, [])
    assert message in result.stderr


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, fieldnames=list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    return path


FULL = {
    "record_id": A,
    "truth": "unreadable",
    "source": "press",
    "saw_answer": "yes",
    "reaction": "not-used",
    "selection": "complaint",
    "sampling_probability": "0.5",
    "feedback_id": "mine-1",
    "receipt": "token",
    "labelled_time": "2026-01-31T09:30:00+01:00",
    "comment": "two, lines",
}
SPARSE = dict.fromkeys(COLUMNS, "") | {"record_id": B, "truth": "cat"}


@pytest.mark.parametrize("name", ["truths.csv", "truths.jsonl"])
def test_a_line_says_what_it_says_and_the_options_the_rest(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / name, [FULL, SPARSE, SPARSE | {"truth": ""}])
    default = Provenance(source="desk", saw_answer=False, selection=Selection.ALL)
    found = read(path, default=default, truth_of=truth_of)
    first, second = found.lines
    assert first.statement == Feedback(
        record_id=A,
        truth=UNREADABLE,
        provenance=Provenance(
            source="press",
            saw_answer=True,
            reaction=Reaction.NOT_USED,
            selection=Selection.COMPLAINT,
            sampling_probability=0.5,
        ),
        feedback_id="mine-1",
        receipt="token",
        labelled_time=datetime.fromisoformat(FULL["labelled_time"]),
        comment="two, lines",
    )
    assert (second.statement.truth, second.statement.provenance) == (
        Truth.of_class("cat"),
        default,
    )
    assert (found.unlabelled, second.number - first.number) == (1, 1)


def test_a_table_of_answers_with_a_truth_added_is_a_file_of_truths(tmp_path: Path) -> None:
    answers = tmp_path / "answers.csv"
    table = tables.open_table(answers, tables.Format.of(answers))
    table.append(tables.answered("photo.jpg", make_prediction()))
    table.close()
    with answers.open(newline="") as file:
        rows = [{**row, "record_id": A, "truth": "out-of-scope"} for row in csv.DictReader(file)]
    found = read(
        written(tmp_path / "truths.csv", rows), default=Provenance(source="x"), truth_of=truth_of
    )
    assert [line.statement.truth for line in found.lines] == [OUT_OF_SCOPE]


def test_the_same_file_makes_the_same_statements_and_no_two_alike(tmp_path: Path) -> None:
    rows = [SPARSE, SPARSE | {"truth": "dog"}, SPARSE, SPARSE | {"record_id": A}]
    files = [written(tmp_path / name, rows) for name in ("a.csv", "b.jsonl")]
    ids = [
        [
            line.statement.feedback_id
            for line in read(file, default=Provenance(source="x"), truth_of=truth_of).lines
        ]
        for file in files
    ]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 4  # the source may say "cat", then "dog", then "cat" again
    assert all(len(each) <= 64 for each in ids[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"saw_answer": "perhaps"}, "line 3: saw_answer is 'perhaps'"),
        ({"reaction": "laughed"}, "line 3: reaction is 'laughed', expected one of followed"),
        ({"selection": "none"}, "line 3: selection is 'none'"),
        ({"sampling_probability": "often"}, "line 3: sampling_probability is 'often'"),
        ({"sampling_probability": "nan"}, "line 3: sampling_probability is 'nan'"),
        ({"labelled_time": "2026-01-31"}, "line 3: the labelled time is"),
    ],
)
def test_a_wrong_line_is_named_before_anything_is_sent(
    change: dict[str, str], message: str, tmp_path: Path, stub: type[StubClient]
) -> None:
    path = written(tmp_path / "truths.csv", [SPARSE, SPARSE | change])
    result = feedback("--from", path, "--source", "x")
    assert (result.exit_code, stub.statements) == (2, [])
    assert message in result.stderr


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "record_id,truth\n" + A + ",cat\n", "there is no source"),
        ("t.csv", "record_id,truth,sorce\n", "'sorce', which says nothing about a truth"),
        ("t.csv", "record_id,source\n", "lacks truth"),
        ("t.csv", "record_id,truth\na,b,c\n", "line 2: it has another number of fields"),
        ("t.csv", "record_id,truth\na\n", "line 2: it has another number of fields"),
        ("t.jsonl", "\n{", "line 2: it is not JSON"),
        ("t.jsonl", "[]\n", "line 1: expected an object"),
        ("t.jsonl", '{"record_id": "a", "truth": ["b"], "source": "x"}\n', "truth is ['b']"),
        ("t.jsonl", '{"record_id": "a"}\n', "lacks truth"),
    ],
)
def test_a_file_that_is_none_of_truths_is_refused(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read(path, default=Provenance(source=""), truth_of=truth_of)
    assert message in str(caught.value)


def test_a_file_goes_on_where_it_stopped(tmp_path: Path, stub: type[StubClient]) -> None:
    records = [f"{number:032x}" for number in range(10)]
    path = written(tmp_path / "truths.csv", [SPARSE | {"record_id": each} for each in records])
    stub.breaks_after = 4
    result = feedback("--from", path, "--source", "x")
    assert result.exit_code == 2
    assert "stopped after 4 of 10 statements, which are kept" in result.stderr
    stub.breaks_after = None
    result = feedback("--from", path, "--source", "x")
    assert (result.exit_code, result.stdout) == (
        0,
        f"{path}: 10 statements: 6 first, 4 repeated\n",
    )
    assert {record for record, *_ in stub.statements} == set(records)


def test_a_refused_statement_is_named_and_the_others_go_on(
    tmp_path: Path, stub: type[StubClient]
) -> None:
    rows = [SPARSE, SPARSE | {"record_id": LOST}, SPARSE | {"record_id": A}]
    path = written(tmp_path / "truths.jsonl", rows)
    result = feedback("--from", path, "--source", "x")
    assert result.exit_code == 1
    assert f"ibinn: {path}, line 2: there is no record {LOST}\n" == result.stderr
    assert result.stdout == f"{path}: 3 statements: 2 first, 1 refused\n"
    lines = feedback("--from", path, "--source", "x", "--json").stdout.splitlines()
    assert [json.loads(line)["outcome"] for line in lines] == ["repeated", "repeated"]
