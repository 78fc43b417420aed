"""An export reads as it was written, or tells where it does not."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ibinn import feedback_export
from ibinn.errors import DataError
from ibinn.feedback_export import LabelledImage, Statement
from ibinn.records import (
    OUT_OF_SCOPE,
    UNREADABLE,
    FeedbackOutcome,
    Reaction,
    Selection,
    Truth,
)
from tests.ibinn.exported import SOME_TIME, info, labelled, pixels, said, sha256, write

CAT, DOG = Truth.of_class("cat"), Truth.of_class("dog")

FULL = said(
    'Δ dog \u2028 "quoted"',
    feedback_id="f1",
    saw_answer=True,
    reaction=Reaction.OVERRULED,
    selection=Selection.RANDOM,
    sampling_probability=0.1,
    labelled_time=SOME_TIME - timedelta(days=3),
    outcome=FeedbackOutcome.CORRECTED,
    comment="two\nlines",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "export"
    write(found, [labelled(1), labelled(2, said("dog"), said("cat", source="bob"))])
    return found


def change_line(folder: Path, number: int, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "feedback.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")
    values = json.loads(lines[number - 1])
    change(values)
    lines[number - 1] = json.dumps(values)
    path.write_text("\n".join(lines), encoding="utf-8")


def refused(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        feedback_export.read(folder)
    return str(caught.value)


def test_an_export_reads_as_it_was_written(tmp_path: Path) -> None:
    images = (
        labelled(1, FULL),
        labelled(2, said(OUT_OF_SCOPE), said(UNREADABLE, source="bob")),
        labelled(3, kept=False),
    )
    written = write(tmp_path / "new" / "export", images)
    found = feedback_export.read(tmp_path / "new" / "export")
    assert found.info == written == info(3)
    assert found.images == images
    paths = [found.path(image) for image in found.images]
    assert paths[2] is None
    assert [path.read_bytes() for path in paths if path] == [pixels(1), pixels(2)]


def test_an_empty_export_is_one(tmp_path: Path) -> None:
    write(tmp_path, [])
    assert feedback_export.read(tmp_path).images == ()


def test_an_image_that_is_not_kept_any_more_is_null(tmp_path: Path) -> None:
    feedback_export.write(tmp_path, [labelled(1)], stored=lambda _: None, info=info)
    (image,) = feedback_export.read(tmp_path).images
    assert image.image is None
    assert not (tmp_path / "images").exists()


def test_an_image_of_two_answers_is_written_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def stored(name: str) -> bytes:
        asked.append(name)
        return pixels(1)

    first = labelled(1)
    second = dataclasses.replace(
        first, answer=dataclasses.replace(first.answer, record_id="9" * 32)
    )
    feedback_export.write(tmp_path, [first, second], stored=stored, info=info)
    assert asked == [sha256(1)]
    assert [image.image for image in feedback_export.read(tmp_path).images] == [first.image] * 2


@pytest.mark.parametrize(
    ("statements", "truth"),
    [
        ((said("cat"),), CAT),
        ((said("cat"), said("dog")), DOG),
        ((said("cat"), said("cat", source="bob")), CAT),
        ((said("cat"), said("dog", source="bob")), None),
        ((said("cat"), said("dog", source="bob"), said("dog")), DOG),
        ((said("cat"), said("dog", source="bob"), said("cat", source="bob")), CAT),
        ((said(OUT_OF_SCOPE), said("cat", source="bob")), None),
        ((said(UNREADABLE), said(UNREADABLE, source="bob")), UNREADABLE),
    ],
)
def test_the_last_statement_of_each_source_counts_and_they_must_agree(
    tmp_path: Path, statements: tuple[Statement, ...], truth: Truth | None
) -> None:
    write(tmp_path, [labelled(1, *statements)])
    (image,) = feedback_export.read(tmp_path).images
    assert image.truth == truth
    assert image.conflict == (truth is None)
    line = json.loads((tmp_path / "feedback.jsonl").read_text())
    assert line["conflict"] == (truth is None)
    assert (line["truth"] is None) == (truth is None)


def test_an_export_that_was_not_finished_does_not_read(tmp_path: Path) -> None:
    def images() -> Iterator[LabelledImage]:
        yield labelled(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, images())
    assert "no finished export" in refused(tmp_path)


def test_an_export_is_written_into_an_empty_folder_only(folder: Path) -> None:
    with pytest.raises(DataError, match="not empty"):
        write(folder, [])
    assert len(feedback_export.read(folder).images) == 2


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write(tmp_path / "file", [])


def test_an_answer_that_comes_twice_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match="twice"):
        write(tmp_path / "other", [labelled(1), labelled(1)])
    change_line(folder, 2, lambda line: line.update(record_id=f"{1:032x}"))
    assert "line 2: the answer" in refused(folder)


def test_lines_that_were_lost_are_noticed(folder: Path) -> None:
    path = folder / "feedback.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    assert "1 lines where export.json states 2" in refused(folder)


def test_a_line_that_was_cut_off_is_named(folder: Path) -> None:
    path = folder / "feedback.jsonl"
    path.write_text(path.read_text()[:-40])
    assert "feedback.jsonl line 2 is not JSON" in refused(folder)


def test_another_version_is_refused(folder: Path) -> None:
    path = folder / "export.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))
    assert "format_version is 2" in refused(folder)


def test_a_changed_or_lost_image_is_named_with_its_line(folder: Path) -> None:
    path = folder / feedback_export.image_path(sha256(2))
    path.write_bytes(b"poison")
    assert f"line 2: the image {path} has the sha256" in refused(folder)
    path.unlink()
    assert f"line 2: the image {path} cannot be read" in refused(folder)


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "/etc/passwd", f"images/{sha256(3)[:2]}/{sha256(3)}", ""]
)
def test_an_image_lies_where_its_hash_says_and_nowhere_else(folder: Path, path: str) -> None:
    change_line(folder, 1, lambda line: line.update(image=path))
    assert "line 1: image is" in refused(folder)


def test_keys_that_a_later_version_adds_are_passed_over(folder: Path) -> None:
    change_line(folder, 1, lambda line: line.update(weather="fine"))
    assert len(feedback_export.read(folder).images) == 2


def test_a_truth_that_does_not_follow_from_the_statements_is_refused(folder: Path) -> None:
    change_line(folder, 1, lambda line: line.update(truth={"kind": "class", "class_name": "dog"}))
    assert "line 1: truth is 'dog'; by each source's last statement it is 'cat'" in refused(folder)


def _keys(values: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield (*path, key)
            yield from _keys(value, (*path, key))
    elif isinstance(values, list):
        for place, value in enumerate(values):
            yield from _keys(value, (*path, place))


def test_every_key_of_a_line_must_be_there_and_of_its_kind(tmp_path: Path) -> None:
    write(tmp_path / "one", [labelled(1, FULL)])
    path = tmp_path / "one" / "feedback.jsonl"
    original = path.read_text()
    for keys in _keys(json.loads(original)):
        for wrong in (None, [1], 3.5, "x", {}, True):
            values = json.loads(original)
            inner = values
            for key in keys[:-1]:
                inner = inner[key]
            before = inner[keys[-1]]
            if wrong is None:
                del inner[keys[-1]]
            elif type(before) is type(wrong):
                continue
            else:
                inner[keys[-1]] = wrong
            path.write_text(json.dumps(values) + "\n")
            said = refused(tmp_path / "one")
            assert "feedback.jsonl line 1" in said
            assert str(keys[-1]) in said


def test_reading_needs_no_torch() -> None:
    code = "import sys, ibinn.feedback_export; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
