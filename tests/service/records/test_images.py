"""Kept images: they come back as they were, and go when they must."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from ibinn.errors import ConfigError, LedgerError, RecordsUnavailableError
from service.records.images import SWEPT_SHARE, ImageStore
from service.settings import Settings

DAY_S = 86_400.0


def name(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest()


def images(count: int, *, size: int = 10) -> list[bytes]:
    return [f"{number:0{size}d}".encode() for number in range(count)]


@pytest.fixture(params=["folder", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "folder":
        yield str(tmp_path / "kept")
        return
    url = f"memory://{uuid.uuid4().hex}"
    yield url
    files = fsspec.filesystem("memory")
    if files.exists(url):
        files.rm(url, recursive=True)


def store_in(place: str | Path, *, quota_bytes: int = 10**6, ttl_s: float = DAY_S) -> ImageStore:
    return ImageStore(place, quota_bytes=quota_bytes, ttl_s=ttl_s)


def age(folder: Path, image: bytes, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(folder / name(image)[:2] / name(image), (then, then))


def test_an_image_comes_back_as_it_was(place: str) -> None:
    store, image = store_in(place), b"\x89PNG" + bytes(range(256))
    assert store.get(name(image)) is None
    store.put(name(image), image)
    assert store.get(name(image)) == image
    assert store_in(place).get(name(image)) == image


def test_the_same_image_twice_is_kept_once(place: str) -> None:
    store, image = store_in(place), b"an image"
    store.put(name(image), image)
    store.put(name(image), image)
    assert list(store.names()) == [(name(image), len(image))]


def test_an_erased_image_is_gone_and_only_once(place: str) -> None:
    store, image = store_in(place), b"an image"
    store.put(name(image), image)
    assert store.delete(name(image))
    assert not store.delete(name(image))
    assert store.get(name(image)) is None


def test_a_changed_image_is_an_error_that_names_its_file(tmp_path: Path) -> None:
    store, image = store_in(tmp_path), b"an image"
    store.put(name(image), image)
    path = tmp_path / name(image)[:2] / name(image)
    path.write_bytes(b"another one")
    with pytest.raises(LedgerError) as caught:
        store.get(name(image))
    assert str(path) in str(caught.value)
    assert name(b"another one") in str(caught.value)


def test_putting_an_image_again_heals_a_file_that_was_cut_off(tmp_path: Path) -> None:
    store, image = store_in(tmp_path), b"an image"
    store.put(name(image), image)
    (tmp_path / name(image)[:2] / name(image)).write_bytes(b"an")
    store.put(name(image), image)
    assert store.get(name(image)) == image


def test_only_its_own_user_can_read_a_kept_image(tmp_path: Path) -> None:
    store, image = store_in(tmp_path / "kept"), b"an image"
    store.put(name(image), image)
    path = tmp_path / "kept" / name(image)[:2] / name(image)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_image_that_cannot_be_written_leaves_nothing_and_says_where(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file is in the way")
    with pytest.raises(RecordsUnavailableError, match="kept"):
        store_in(tmp_path / "kept").put("ab" * 32, b"image")


def test_what_is_no_sha256_is_no_path(tmp_path: Path) -> None:
    for wrong in ("", "../../etc/passwd", "AB" * 32, "ab" * 31):
        with pytest.raises(ValueError, match="64 hexadecimal digits"):
            store_in(tmp_path).get(wrong)


def test_an_empty_place_is_swept_without_harm(place: str) -> None:
    swept = store_in(place).sweep()
    assert swept.removed == ()
    assert swept.kept == 0


def test_images_whose_time_is_over_go(place: str) -> None:
    store = store_in(place, ttl_s=60)
    for image in images(3):
        store.put(name(image), image)
    assert store.sweep().removed == ()
    swept = store.sweep(now_s=time.time() + 120)
    assert set(swept.expired) == {name(image) for image in images(3)}
    assert swept.displaced == ()
    assert swept.removed_bytes == 30
    assert list(store.names()) == []
    assert store.sweep(now_s=time.time() + 120).removed == ()


def test_an_image_that_came_again_stays_longer(tmp_path: Path) -> None:
    store = store_in(tmp_path, ttl_s=60)
    first, second = images(2)
    for image in (first, second):
        store.put(name(image), image)
        age(tmp_path, image, 120)
    store.put(name(first), first)
    assert store.sweep().expired == (name(second),)


def test_the_oldest_make_room_and_what_is_left_is_within_the_quota(tmp_path: Path) -> None:
    store = store_in(tmp_path, quota_bytes=100)
    kept = images(15)
    for position, image in enumerate(kept):
        store.put(name(image), image)
        age(tmp_path, image, 1000 - position)
    swept = store.sweep()
    room = int(SWEPT_SHARE * 100) // 10
    assert swept.displaced == tuple(name(image) for image in kept[: 15 - room])
    assert swept.expired == ()
    assert swept.kept_bytes == 10 * room == store.size_bytes


def test_the_quota_holds_in_memory_too() -> None:
    store = store_in(f"memory://{uuid.uuid4().hex}", quota_bytes=100)
    for image in images(30):
        store.put(name(image), image)
    swept = store.sweep()
    assert len(swept.removed) == 21
    assert sum(size for _, size in store.names()) == swept.kept_bytes == 90


def test_a_sweep_is_due_before_the_first_when_the_quota_is_over_and_after_a_time(
    place: str,
) -> None:
    store = store_in(place, quota_bytes=15)
    assert store.due(3600)
    store.sweep()
    assert not store.due(3600)
    assert store.due(0)
    first, second = images(2)
    store.put(name(first), first)
    assert not store.due(3600)
    store.put(name(second), second)
    assert store.due(3600)
    store.sweep()
    assert not store.due(3600)
    assert store.size_bytes is not None
    assert store.size_bytes <= 15


def test_what_others_left_in_the_folder_stays_but_for_unfinished_files(tmp_path: Path) -> None:
    store, image = store_in(tmp_path, ttl_s=60), b"an image"
    store.put(name(image), image)
    folder = tmp_path / name(image)[:2]
    for file in ("note.txt", ".old.part", ".new.part"):
        (folder / file).write_text("something")
    long_ago = time.time() - DAY_S
    for path in folder.iterdir():
        if path.name != ".new.part":
            os.utime(path, (long_ago, long_ago))
    assert store.sweep().removed == (name(image),)
    assert {path.name for path in folder.iterdir()} == {"note.txt", ".new.part"}


def test_sweeps_and_writers_at_the_same_time_lose_no_new_image(tmp_path: Path) -> None:
    old, new = images(80), [image + b" new" for image in images(80)]
    for image in old:
        store_in(tmp_path).put(name(image), image)
        age(tmp_path, image, 120)
    start = threading.Barrier(4)

    def sweep() -> list[str]:
        store = store_in(tmp_path, ttl_s=60)
        start.wait(30)
        return [sha256 for _ in range(5) for sha256 in store.sweep().removed]

    def write() -> list[str]:
        store = store_in(tmp_path)
        start.wait(30)
        for image in [*new, *old[:20]]:
            store.put(name(image), image)
        return []

    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(action) for action in (sweep, sweep, sweep, write)]
        gone = {sha256 for found in running for sha256 in found.result(60)}
    left = {sha256 for sha256, _ in store_in(tmp_path).names()}
    assert {name(image) for image in new} <= left
    # Every old image that is not there was said to be gone, by one of the sweeps at least.
    assert {name(image) for image in old} - left <= gone
    assert gone <= {name(image) for image in old}


def test_a_place_that_nothing_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="nosuch"):
        store_in("nosuch://bucket")


def test_a_place_whose_package_is_missing_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("service.records.images.url_to_fs", missing)
    with pytest.raises(ConfigError, match=r"ibinn\[s3\]"):
        store_in("s3://bucket/folder")


def test_images_lie_in_the_state_folder_unless_a_place_is_given(tmp_path: Path) -> None:
    image = b"an image"
    store = ImageStore.open(Settings(state_dir=tmp_path, keep_images="all"))
    assert store is not None
    store.put(name(image), image)
    assert (tmp_path / "images" / name(image)[:2] / name(image)).is_file()
    other = ImageStore.open(Settings(state_dir=tmp_path, images=str(tmp_path / "other")))
    assert other is not None
    assert other.get(name(image)) is None


def test_without_a_place_images_cannot_be_kept() -> None:
    assert ImageStore.open(Settings()) is None
    with pytest.raises(ConfigError, match="--images"):
        ImageStore.open(Settings(keep_images="flagged"))


def test_quota_and_time_are_the_settings(tmp_path: Path) -> None:
    store = ImageStore.open(
        Settings(state_dir=tmp_path, images_quota_bytes=123, images_ttl_days=0.5)
    )
    assert store is not None
    assert store.quota_bytes == 123
    assert store.ttl_s == DAY_S / 2
