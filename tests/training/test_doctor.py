from __future__ import annotations

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.training.image_folders import random_set, source_of, write_folder, write_image
from training.data import open_data
from training.doctor import Diagnosis, diagnose, promise, rounded_up
from training.doctor_view import render
from training.splits import Role, SplitConfig


def text(diagnosis: Diagnosis) -> str:
    stream = StringIO()
    Console(file=stream, width=200).print(render(diagnosis))
    return stream.getvalue()


def test_eleven_calibration_images_promise_what_the_readme_says() -> None:
    # 220 and 2,000 images: a share of 0.05 leaves 11 and 100 calibration images.
    labels = np.repeat([0, 1], [220, 2_000])
    images = random_set(labels, class_count=2)
    images.class_names = ("crack", "sound")
    shown = text(diagnose(source_of(images), SplitConfig()))
    assert (
        "11 calibration images of class crack: no per-class α below 0.084; 8 more for 0.05 "
        "(about 160 more images at this split)." in shown
    )
    assert "The other 1 class can be tested at 0.05." in shown
    assert "111 calibration images in all: no α below 0.0090." in shown


@pytest.mark.parametrize(
    ("count", "smallest", "more"), [(0, None, 19), (18, 1 / 19, 1), (19, 1 / 20, 0), (99, 0.01, 0)]
)
def test_a_promise_follows_the_smallest_p_value(
    count: int, smallest: float | None, more: int
) -> None:
    made = promise(count, 0.05)
    assert made.smallest_alpha == smallest
    assert made.more == more


@pytest.mark.parametrize(
    ("alpha", "shown"),
    [(1 / 12, "0.084"), (0.1, "0.10"), (0.05, "0.050"), (1 / 2501, "0.00040"), (1.0, "1")],
)
def test_a_significance_is_rounded_up_to_two_digits(alpha: float, shown: str) -> None:
    assert rounded_up(alpha) == shown
    assert float(shown) >= alpha


def test_counts_per_class_and_role_add_up() -> None:
    diagnosis = diagnose(open_data("digits"), SplitConfig())
    assert [len(entry.counts) for entry in diagnosis.classes] == [len(Role)] * 10
    assert all(sum(entry.counts) == entry.total for entry in diagnosis.classes)
    assert sum(entry.total for entry in diagnosis.classes) == 1797
    assert "All images have 8×8 pixels." in text(diagnosis)


def test_unreadable_and_other_files_are_listed(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 30, "b": 30})
    for number in range(7):
        (tmp_path / "a" / f"bad{number}.jpg").write_bytes(b"\xff\xd8 broken")
    (tmp_path / "b" / "notes.txt").touch()
    diagnosis = diagnose(open_data(str(tmp_path), skip_unreadable=True), SplitConfig())
    shown = text(diagnosis)
    assert len(diagnosis.unreadable) == 7
    assert "7 files cannot be read" in shown
    assert "a/bad0.jpg" in shown
    assert "… and 2 more" in shown
    assert "1 file of other types" in shown


def test_near_duplicates_between_training_and_test_are_named(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/a": 30, "train/b": 30})
    write_folder(tmp_path, {"test/a": 5, "test/b": 5}, first_seed=100)
    write_image(tmp_path / "test" / "b" / "larger.png", seed=4, size=(32, 32))
    diagnosis = diagnose(open_data(str(tmp_path)), SplitConfig())
    assert diagnosis.duplicates.across_count == 1
    shown = text(diagnosis)
    assert "1 near-duplicate pair across splits" in shown
    assert "train/a/004.png ~ test/b/larger.png" in shown
    assert "1 near-duplicate pair in two classes" in shown
    assert "2 image sizes; the commonest is 16×16 (70 images)" in shown


def test_an_exact_copy_in_the_test_set_is_left_out_of_training(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/a": 30, "train/b": 30})
    write_folder(tmp_path, {"test/a": 5, "test/b": 5}, first_seed=100)
    write_image(tmp_path / "test" / "a" / "copy.png", seed=4)
    diagnosis = diagnose(open_data(str(tmp_path)), SplitConfig())
    assert (diagnosis.excluded, diagnosis.duplicates.copies) == (1, 1)
    assert diagnosis.duplicates.across_count == 0
    assert sum(diagnosis.classes[0].counts) == diagnosis.classes[0].total - 1
    assert "1 training image left out" in text(diagnosis)


def test_groups_are_counted(tmp_path: Path) -> None:
    lots = {f"{name}/lot{lot}": 4 for name in "ab" for lot in range(8)}
    source = open_data(str(write_folder(tmp_path, lots)), group_by=r"lot(\d+)")
    diagnosis = diagnose(source, SplitConfig())
    assert diagnosis.groups is not None
    assert (diagnosis.groups.count, diagnosis.groups.largest_count) == (8, 8)
    assert "8 groups" in text(diagnosis)


def test_a_data_set_too_small_to_split_is_still_diagnosed(tmp_path: Path) -> None:
    diagnosis = diagnose(open_data(str(write_folder(tmp_path, {"a": 2, "b": 2}))), SplitConfig())
    shown = text(diagnosis)
    assert "No split can be made" in shown
    assert "Nothing, until a split can be made." in shown


def test_many_classes_show_the_smallest_and_names_are_not_markup() -> None:
    images = random_set(np.arange(1_200) % 40, class_count=40)
    images.class_names = tuple(f"[red]{name}" for name in images.class_names)
    shown = text(diagnose(source_of(images), SplitConfig()))
    assert "… and 16 larger classes" in shown
    assert "[red]class0" in shown
