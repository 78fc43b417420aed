"""Tables of answers: what is written is read again, whatever the format and wherever it broke."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibinn import tables
from ibinn.errors import ConfigError, DataError
from ibinn.folder import Results, images_in
from ibinn.tables import COLUMNS, Format, Outcome, Row, open_table, read_table
from ibinn.types import Action, Decision, Verdict, Versions
from tests.ibinn.answers import VERSIONS, make_prediction

FORMATS = pytest.mark.parametrize("form", Format)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.builds(
    Row,
    file=TEXT,
    status=st.sampled_from(Outcome),
    error=TEXT,
    class_name=TEXT,
    probability=NUMBER,
    verdict=TEXT,
    reason=TEXT,
    decision=TEXT,
    decision_class=TEXT,
    decision_rule=TEXT,
    conformal_set=st.lists(TEXT, max_size=3).map(tuple),
    p_value=NUMBER,
    bits_per_dim=NUMBER,
    weights=TEXT,
    calibration=TEXT,
    policy=TEXT,
    record_id=TEXT,
    request_id=TEXT,
)


def row(name: str, *, versions: Versions = VERSIONS, status: Outcome = Outcome.OK) -> Row:
    prediction = dataclasses.replace(make_prediction(), versions=versions)
    answered = tables.answered(name, prediction)
    return answered if status is Outcome.OK else tables.failed(name, "broken")


def write(path: Path, rows: list[Row]) -> None:
    table = open_table(path, Format.of(path))
    for one in rows:
        table.append(one)
    table.close()


def read(path: Path) -> list[Row]:
    return list(read_table(path, Format.of(path)))


@FORMATS
@given(rows=st.lists(ROWS, max_size=5))
@settings(max_examples=25, deadline=None)
def test_rows_are_read_as_they_were_written(
    form: Format, rows: list[Row], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("tables") / f"t{form}"
    write(path, rows)
    assert read(path) == rows


@FORMATS
def test_many_rows_come_in_groups(
    form: Format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 10)
    rows = [row(str(index)) for index in range(35)]
    write(tmp_path / f"t{form}", rows)
    assert read(tmp_path / f"t{form}") == rows
    if form is Format.PARQUET:
        from pyarrow.parquet import ParquetFile

        with ParquetFile(tmp_path / "t.parquet") as file:
            assert file.num_row_groups == 4


def test_a_row_holds_what_the_answer_says() -> None:
    decision = Decision(
        action=Action.ACCEPT, class_name="dog", rule="accepted", reason="cheap", expected_cost=0.1
    )
    answer = dataclasses.replace(make_prediction(verdict=Verdict.AMBIGUOUS), decision=decision)
    found = tables.answered("a.png", answer)
    assert (found.file, found.status, found.error) == ("a.png", "ok", "")
    assert (found.class_name, found.probability, found.verdict) == ("cat", 0.62, "AMBIGUOUS")
    assert (found.decision, found.decision_class, found.decision_rule) == (
        "ACCEPT",
        "dog",
        "accepted",
    )
    assert found.conformal_set == ("cat", "dog")
    assert (found.p_value, found.bits_per_dim) == (0.42, 4.113)
    assert (found.weights, found.policy) == (VERSIONS.weights, VERSIONS.policy)


@pytest.mark.parametrize("form", [Format.JSON_LINES, Format.CSV])
def test_a_row_that_was_not_written_to_its_end_is_left_out(form: Format, tmp_path: Path) -> None:
    path = tmp_path / f"t{form}"
    rows = [row("a"), dataclasses.replace(row("b"), reason='two\nlines, "quoted"')]
    write(path, rows)
    whole = path.read_bytes()
    for cut in range(1, 40):
        path.write_bytes(whole[:-cut])
        assert read(path) == rows[:1], cut


def test_columns_have_one_order_everywhere(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", [row("a")])
    write(tmp_path / "t.jsonl", [row("a")])
    write(tmp_path / "t.parquet", [row("a")])
    from pyarrow.parquet import read_schema

    with (tmp_path / "t.csv").open(encoding="utf-8") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS
    assert tuple(json.loads((tmp_path / "t.jsonl").read_text())) == COLUMNS
    assert tuple(read_schema(tmp_path / "t.parquet").names) == COLUMNS


@pytest.mark.parametrize("name", ["t", "t.txt", "t.json", "jsonl"])
def test_a_name_without_a_format_is_a_config_error(name: str) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.jsonl, \.csv, \.parquet"):
        Format.of(Path(name))


def test_without_pyarrow_parquet_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"install ibinn\[tables\]"):
        Format.of(Path("t.parquet"))
    assert Format.of(Path("t.CSV")) is Format.CSV


@FORMATS
def test_a_folder_that_does_not_exist_is_a_config_error(form: Format, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write"):
        open_table(tmp_path / "none" / f"t{form}", form)


@FORMATS
@pytest.mark.parametrize("content", [b"", b"not a table\n", b"\xff\xfe\n", b'{"file": 1}\n[]\n'])
def test_what_is_no_table_is_a_data_error(form: Format, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"t{form}"
    path.write_bytes(content)
    if form is Format.JSON_LINES and not content:
        assert read(path) == []  # a table that was just begun
    else:
        with pytest.raises(DataError, match="cannot be read as a table"):
            read(path)


@FORMATS
def test_rows_are_in_part_until_all_are_there(form: Format, tmp_path: Path) -> None:
    out = tmp_path / f"t{form}"
    with Results(out, versions=VERSIONS, resume=False) as results:
        results.append(row("a"))
        assert results.part.exists()
        assert not out.exists()
    assert [one.file for one in read(out)] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@FORMATS
def test_an_interrupted_table_is_kept_refused_and_gone_on_from(
    form: Format, tmp_path: Path
) -> None:
    out = tmp_path / f"t{form}"
    with pytest.raises(KeyboardInterrupt):
        interrupt(out, [row("a"), row("b", status=Outcome.FAILED)])
    with pytest.raises(ConfigError, match="--resume, or remove it"):
        Results(out, versions=VERSIONS, resume=False)
    other = dataclasses.replace(VERSIONS, policy="other")
    with pytest.raises(KeyboardInterrupt):
        interrupt(out, [row("c", versions=other)], resume=True)
    with Results(out, versions=VERSIONS, resume=True) as results:
        assert results.done == {"a"}  # b failed, c is of another policy
        results.append(row("b"))
    assert [one.file for one in read(out)] == ["a", "b"]
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def interrupt(out: Path, rows: list[Row], *, resume: bool = False) -> None:
    with Results(out, versions=VERSIONS, resume=resume) as results:
        for one in rows:
            results.append(one)
        raise KeyboardInterrupt


@FORMATS
def test_a_finished_table_can_be_added_to(form: Format, tmp_path: Path) -> None:
    out = tmp_path / f"t{form}"
    for names in (("a", "b"), ("c",)):
        with Results(out, versions=VERSIONS, resume=True) as results:
            for name in names:
                results.append(row(name))
    assert [one.file for one in read(out)] == ["a", "b", "c"]


@FORMATS
def test_a_run_killed_while_it_copied_loses_nothing(form: Format, tmp_path: Path) -> None:
    out = tmp_path / f"t{form}"
    write(tmp_path / f"t{form}", [row(str(index)) for index in range(5)])
    out.rename(tmp_path / f"t{form}.part.old")
    if form is Format.PARQUET:
        (tmp_path / f"t{form}.part").write_bytes(b"PAR1 without its end")
    else:
        write(out, [row("0")])
        out.rename(tmp_path / f"t{form}.part")
    with Results(out, versions=VERSIONS, resume=True) as results:
        assert results.done == {"0", "1", "2", "3", "4"}


def test_a_table_that_cannot_be_gone_on_from_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "t.parquet.part").write_bytes(b"PAR1 without its end")
    with pytest.raises(ConfigError, match="not written to its end; remove it"):
        Results(tmp_path / "t.parquet", versions=VERSIONS, resume=True)


def test_a_folder_stands_for_the_images_below_it_each_once(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.JPG", "a/c/x.webp", "a/notes.txt", "z.gif"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    found = images_in([tmp_path / "z.gif", tmp_path, tmp_path / "a" / "notes.txt"])
    names = [str(path.relative_to(tmp_path)) for path in found]
    assert names == ["z.gif", "a/c/x.webp", "b/1.JPG", "b/2.png", "a/notes.txt"]


def test_a_folder_without_images_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        images_in([tmp_path])
