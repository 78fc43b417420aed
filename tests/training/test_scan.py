from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ibinn.decoding import Limits
from ibinn.errors import DataError
from tests.training.image_folders import write_folder, write_image
from training import folders, scan
from training.data import open_data
from training.image_set import ImageSet


@pytest.fixture(autouse=True)
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every set counts as large; what is remembered stays in the test's folder."""
    monkeypatch.setattr(folders, "REMEMBERED_FROM", 1)
    monkeypatch.setenv(scan.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "photos", {"a": 5, "b": 4})


def told(images: ImageSet) -> list[tuple[object, ...]]:
    return [
        (item, images.sizes[index].tolist(), images.thumbnails[index].tobytes())
        for index, item in enumerate(images.items)
    ]


def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files each scan has read."""
    counts: list[int] = []
    real = scan.scan_in_parallel

    def counting(paths, **options):
        counts.append(len(paths))
        return real(paths, **options)

    monkeypatch.setattr(scan, "scan_in_parallel", counting)
    return counts


def test_a_large_folder_gives_what_a_small_one_gives(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "a" / "bad.jpg").write_bytes(b"no")
    write_image(photos / "b" / "wide.png", seed=77, size=(30, 20))
    large = open_data(str(photos), skip_unreadable=True, group_by="(.)")
    monkeypatch.setattr(folders, "REMEMBERED_FROM", 1_000)
    small = open_data(str(photos), skip_unreadable=True, group_by="(.)")
    assert told(large.train) == told(small.train)
    assert [entry.name for entry in large.skipped] == ["a/bad.jpg"]
    assert [entry.reason for entry in large.skipped] == [entry.reason for entry in small.skipped]
    for index in range(len(small.train)):
        assert (large.train.load(index) == small.train.load(index)).all()


def test_a_second_start_reads_new_and_changed_files_only(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = reads(monkeypatch)
    first = open_data(str(photos)).train
    again = open_data(str(photos)).train
    assert counts == [9]
    assert told(first) == told(again)
    write_image(photos / "a" / "001.png", seed=500)
    write_image(photos / "a" / "new.png", seed=501)
    (photos / "b" / "002.png").unlink()
    third = open_data(str(photos)).train
    assert counts == [9, 2]
    assert len(third) == 9
    monkeypatch.setenv(scan.CACHE_VARIABLE, "")
    assert told(open_data(str(photos)).train) == told(third)
    assert counts == [9, 2, 9]


def test_a_file_of_the_same_size_that_was_written_later_is_read_again(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = reads(monkeypatch)
    before = open_data(str(photos)).train
    path = photos / "a" / "000.png"
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert told(open_data(str(photos)).train) == told(before)
    assert counts == [9, 1]


def test_unreadable_files_are_remembered_as_such(photos: Path) -> None:
    (photos / "a" / "bad.jpg").write_bytes(b"no")
    messages = []
    for _ in range(2):
        with pytest.raises(DataError, match=r"1 of 10 files cannot be read: a/bad\.jpg") as caught:
            open_data(str(photos))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("damage", [b"", b"no archive", b"PK\x05\x06" + bytes(18)])
def test_a_damaged_memory_costs_time_and_nothing_else(
    photos: Path, large: Path, damage: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = reads(monkeypatch)
    first = told(open_data(str(photos)).train)
    (file,) = large.glob("*.npz")
    file.write_bytes(damage)
    assert told(open_data(str(photos)).train) == first
    assert counts == [9, 9]
    assert told(open_data(str(photos)).train) == first
    assert counts == [9, 9]


def test_a_home_that_cannot_be_written_to_does_not_matter(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(scan.CACHE_VARIABLE, str(tmp_path / "file" / "inside"))
    assert len(open_data(str(photos)).train) == 9


def test_what_is_remembered_is_readable_by_its_owner_only(photos: Path, large: Path) -> None:
    open_data(str(photos))
    assert large.stat().st_mode & 0o077 == 0


def test_progress_counts_remembered_images_too(photos: Path) -> None:
    open_data(str(photos))
    write_image(photos / "a" / "new.png", seed=501)
    calls: list[tuple[int, int]] = []
    open_data(str(photos), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(9, 10), (10, 10)]


def test_the_order_of_a_parallel_scan_is_that_of_the_paths(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted(photos.rglob("*.png"))
    whole = scan.scan_in_parallel(paths, limits=Limits())
    monkeypatch.setattr(scan, "_CHUNK", 2)
    parts = scan.scan_in_parallel(paths, limits=Limits())
    assert (whole.ids == parts.ids).all()
    assert (whole.thumbnails == parts.thumbnails).all()
    assert len(np.unique(whole.ids, axis=0)) == 9
