from __future__ import annotations

import io
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ibinn.errors import ConfigError, DataError
from ibinn.images import Preprocessing, PreprocessingConfig
from tests.training.image_folders import write_folder
from training import loader, scan, shards
from training.augment import AugmentConfig
from training.data import open_data
from training.image_set import DataSource
from training.loader import TrainLoader, eval_batches
from training.shard_index import INDEX_FILE, ShardIndex
from training.shard_places import expanded, locate
from training.shard_writer import write_shards
from training.splits import Role, SplitConfig, make_splits, role_set

PREPROCESSING = Preprocessing(
    PreprocessingConfig(side=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
)
VARY = AugmentConfig(crop_padding=1, flip=True)
SPLIT = SplitConfig(validation=0.1, calibration_a=0.1, calibration_b=0.1, test=0.1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is remembered stays in the test's folder."""
    monkeypatch.setenv(scan.CACHE_VARIABLE, str(tmp_path / "cache" / "scans"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(
        tmp_path / "photos",
        {"train/cat/lot1": 20, "train/dog/lot2": 20, "test/cat/x": 4, "test/dog/y": 3},
    )


@pytest.fixture
def written(folder: Path, tmp_path: Path) -> Path:
    """A few images a shard."""
    source = open_data(str(folder), group_by="parent")
    write_shards(source, tmp_path / "shards", shard_bytes=8_000)
    return tmp_path / "shards"


class WithRanges(SimpleHTTPRequestHandler):
    """Serves files and parts of files; remembers what was asked for."""

    asked: list[tuple[str, str]]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        bounds = self.headers.get("Range", "")
        self.asked.append((self.path, bounds))
        path = Path(self.translate_path(self.path))
        if not bounds or not path.is_file():
            super().do_GET()
            return
        first, _, last = bounds.removeprefix("bytes=").partition("-")
        data = path.read_bytes()[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server(written: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(URL of the shards, what has been asked for: path and range)."""
    asked: list[tuple[str, str]] = []
    handler = type("Handler", (WithRanges,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(written))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}", asked
        finally:
            httpd.shutdown()
            thread.join()


def contents(source: DataSource) -> list[dict[str, tuple[object, ...]]]:
    """Everything about each image by its id, in training and test set."""
    sets = [source.train] + ([source.test] if source.test is not None else [])
    return [
        {
            item.id: (
                images.class_names[item.label],
                item.group,
                item.name,
                images.load(index).tobytes(),
                images.thumbnails[index].tobytes(),
                images.sizes[index].tolist(),
            )
            for index, item in enumerate(images.items)
        }
        for images in sets
    ]


def make(
    source: DataSource, *, workers: int = 0, rank: int = 0, world_size: int = 1
) -> TrainLoader:
    return TrainLoader(
        source.train,
        PREPROCESSING,
        VARY,
        batch_size=8 // world_size,
        seed=0,
        workers=workers,
        rank=rank,
        world_size=world_size,
    )


def test_shards_hold_what_the_folder_holds(folder: Path, written: Path) -> None:
    assert contents(open_data(str(written))) == contents(open_data(str(folder), group_by="parent"))


def test_shards_open_without_an_image_being_read(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr(shards.ShardStore, "encoded", never)
    monkeypatch.setattr(scan.Scan, "put", never)
    source = open_data(str(written))
    assert len(source.train) == 40
    assert source.test is not None
    assert len(source.test) == 7


def test_roles_do_not_depend_on_the_order_of_the_shards(folder: Path, tmp_path: Path) -> None:
    source = open_data(str(folder))
    write_shards(source, tmp_path / "one", seed=1)
    write_shards(source, tmp_path / "two", seed=2, shard_bytes=5_000)
    digests = [
        make_splits(open_data(str(tmp_path / name)), SPLIT).sha256 for name in ("one", "two")
    ]
    assert digests[0] == digests[1] == make_splits(source, SPLIT).sha256


def test_the_layout_is_that_of_webdataset(written: Path) -> None:
    names = sorted(path.name for path in written.glob("*.tar"))
    assert names[0] == "test-000000.tar"
    assert "train-000001.tar" in names
    with tarfile.open(written / "train-000000.tar") as tar:
        members = tar.getnames()
        assert members[:2] == ["000000000.png", "000000000.cls"]
        label = tar.extractfile("000000000.cls")
        assert label is not None
        assert label.read() in (b"0", b"1")
    assert (written / "classes.txt").read_text() == "cat\ndog\n"


def test_foreign_shards_are_read_once_and_then_remembered(
    written: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (written / INDEX_FILE).unlink()
    source = open_data(str(written))
    expected = [
        {key: (value[0], *value[3:]) for key, value in part.items()}
        for part in contents(open_data(str(folder)))
    ]
    found = [
        {key: (value[0], *value[3:]) for key, value in part.items()} for part in contents(source)
    ]
    assert found == expected
    monkeypatch.setattr(scan.Scan, "put", None)
    assert contents(open_data(str(written))) == contents(source)


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def test_labels_come_from_cls_or_json_and_numbers_are_names_where_there_are_none(
    tmp_path: Path,
) -> None:
    members = {
        "a/1.png": png(1),
        "a/1.json": json.dumps({"label": 0, "text": "x"}).encode(),
        "a/2.png": png(2),
        "a/2.json": json.dumps({"cls": 1}).encode(),
        "3.txt": b"nothing of ours",
        "4.cls": b"1",
        "4.png": png(4),
    }
    path = write_tar(tmp_path / "data.tar", members)
    train = open_data(str(path)).train
    assert train.class_names == ("0", "1")
    assert {item.name: item.label for item in train.items} == {
        "data.tar:a/1": 0,
        "data.tar:a/2": 1,
        "data.tar:4": 1,
    }
    assert train.load(2)[0, 0, 0] == 4


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"1.png": png(1)}, r"1 of 1 images have no class, the first is 1.*1\.cls"),
        ({"1.png": png(1), "1.cls": b"cat"}, "have no class"),
        ({"1.png": png(1), "1.cls": b"-1"}, "have no class"),
        ({"1.png": b"no", "1.cls": b"0"}, r"1 of 1 images.*data.tar:1 .*--skip-unreadable"),
        ({"1.txt": b"x"}, "hold no image"),
        ({"1.png": png(1), "1.cls": b"0"}, "one class only"),
        ({"1.png": png(1), "1.cls": b"1"}, "no image of 0"),
    ],
)
def test_shards_that_cannot_be_used_are_refused(
    tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    path = write_tar(tmp_path / "data.tar", members)
    with pytest.raises(DataError, match=message):
        open_data(str(path))


def test_unreadable_images_of_shards_can_be_skipped(tmp_path: Path) -> None:
    members = {"1.png": b"no", "1.cls": b"0"}
    for number in range(2, 6):
        members |= {f"{number}.png": png(number), f"{number}.cls": str(number % 2).encode()}
    source = open_data(str(write_tar(tmp_path / "data.tar", members)), skip_unreadable=True)
    assert [entry.name for entry in source.skipped] == ["data.tar:1"]
    assert [int(source.train.load(index)[0, 0, 0]) for index in range(4)] == [2, 3, 4, 5]


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.tar"
    with tarfile.open(path, "w:gz"):
        pass
    with pytest.raises(DataError, match=r"not a plain tar file.*must not be compressed"):
        open_data(str(path))


def test_patterns_name_shards(written: Path) -> None:
    whole = open_data(str(written))
    globbed = open_data(f"{written}/train-*.tar")
    braced = open_data(f"{written}/train-{{000000..000002}}.tar")
    assert globbed.test is None
    assert contents(globbed)[0] == contents(whole)[0]
    assert 0 < len(braced.train) < len(whole.train)
    assert contents(braced)[0].items() <= contents(whole)[0].items()
    assert list(expanded("{a,b}-{8..10}")) == [f"{x}-{n}" for x in "ab" for n in (8, 9, 10)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("pipe:curl http://x/y.tar", "would run a shell command, which is refused"),
        ("ftp://host/a.tar", "begins with ftp://; expected one of http, https"),
        ("nowhere/train-{0..3}.tar", r"no file nowhere/train-0\.tar"),
        ("x-{0..99999999}.tar", "shards; at most"),
        ("https://host/*.tar", "named by braces"),
    ],
)
def test_places_that_cannot_be_read_are_refused(data: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(data)


def test_shards_that_are_not_those_of_the_index_are_refused(written: Path) -> None:
    with (written / "train-000001.tar").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"train-000001\.tar has \d+ bytes, index\.npz states"):
        open_data(str(written))
    (written / "train-000001.tar").unlink()
    with pytest.raises(DataError, match=r"train-000001\.tar is listed in index\.npz and is not"):
        open_data(str(written))


def test_bytes_that_changed_under_the_index_are_named(written: Path) -> None:
    source = open_data(str(written))
    path = written / "train-000000.tar"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(DataError, match=r"train-000000\.tar: image .* cannot be read"):
        source.train.load(0)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 no", b"\x93NUMPY"])
def test_a_damaged_index_is_refused(written: Path, data: bytes) -> None:
    (written / INDEX_FILE).write_bytes(data)
    with pytest.raises(DataError, match=r"index\.npz is not an index of shards"):
        open_data(str(written))


def test_an_index_that_points_outside_of_its_shards_is_refused(written: Path) -> None:
    index = ShardIndex.load(written / INDEX_FILE, where="index")
    index.offset[3] = 10**9
    index.save(written / INDEX_FILE)
    with pytest.raises(DataError, match="lies outside of train-000000"):
        open_data(str(written))


def test_shards_go_into_a_new_folder_only(folder: Path, written: Path) -> None:
    with pytest.raises(ConfigError, match="not empty"):
        write_shards(open_data(str(folder)), written)


def test_images_of_one_size_are_decoded_once_and_others_each_time(written: Path) -> None:
    train = open_data(str(written)).train
    first = train.load(0).copy()
    shutil.rmtree(written)
    assert (train.load(0) == first).all()
    with pytest.raises(DataError, match="cannot be read"):
        train.load(1)


def test_a_url_gives_the_same_as_the_folder(
    written: Path, server: tuple[str, list[tuple[str, str]]]
) -> None:
    url, asked = server
    source = open_data(url)
    assert [path for path, _ in asked] == ["/index.npz"]
    assert contents(source) == contents(open_data(str(written)))
    named = open_data(f"{url}/train-{{000000..000001}}.tar")
    assert 0 < len(named.train) < len(source.train)
    with pytest.raises(DataError, match=r"index\.npz does not exist|cannot be read"):
        open_data(f"{url}/nothing")


def shards_of(folder: Path) -> list[str]:
    return sorted(f"/{path.name}" for path in folder.glob("train-*.tar"))


def test_images_by_url_come_as_ranges_and_a_training_run_fetches_whole_shards(
    written: Path, server: tuple[str, list[tuple[str, str]]], own_cache: Path
) -> None:
    url, asked = server
    source = open_data(url)
    list(eval_batches(source.train.subset([0, 1]), PREPROCESSING, 2))
    assert [bool(bounds) for path, bounds in asked if path.endswith(".tar")] == [True, True]
    asked.clear()
    batches = list(make(source).epoch(0))
    whole = [path for path, bounds in asked if path.endswith(".tar") and not bounds]
    assert sorted(whole) == shards_of(written)
    assert len({key for batch in batches for key in batch.ids}) == 40
    asked.clear()
    assert len(list(make(open_data(url), workers=2).epoch(1))) == 5
    assert [path for path, _ in asked] == ["/index.npz"]  # the shards are here already
    assert len(list((own_cache / "shards").glob("*/*.tar"))) == len(whole)


def test_fetched_shards_are_held_to_their_sha256(
    written: Path, server: tuple[str, list[tuple[str, str]]]
) -> None:
    url, _ = server
    source = open_data(url)
    path = written / "train-000000.tar"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"train-000000\.tar: fetched bytes have sha256"):
        source.train.prepare([0])


def test_fetched_shards_stay_within_the_limit(
    server: tuple[str, list[tuple[str, str]]],
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(shards.FETCHED_VARIABLE, "0.00003")
    source = open_data(server[0])
    batches = list(make(source).epoch(0))
    assert len(batches) == 5
    held = sum(path.stat().st_size for path in (own_cache / "shards").glob("*/*.tar"))
    assert 0 < held <= 30_000


def test_a_url_that_nobody_answers_is_refused_with_its_name() -> None:
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/index\.npz cannot be read"):
        open_data("http://127.0.0.1:9")


def test_an_epoch_over_a_url_visits_each_image_once_and_few_shards_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loader, "WINDOW", 2)
    places = np.repeat(np.arange(10, dtype=np.int32), 20)
    first, second = (loader.shuffled_order(200, places, [0, epoch]) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(200))
    assert (first != second).any()
    for start in range(0, 200, 40):
        assert len(set(places[first[start : start + 40]])) == 2
    mixed = places[first[:40]]
    assert np.abs(np.diff(mixed)).astype(bool).sum() > 5


def test_batches_over_a_url_do_not_depend_on_workers_and_resume_at_any_step(
    server: tuple[str, list[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "WINDOW", 2)
    source = open_data(server[0])
    whole = list(make(source).epoch(0))
    for other in (
        list(make(source, workers=2).epoch(0)),
        whole[:2] + list(make(source).epoch(0, start_step=2)),
    ):
        for one, two in zip(whole, other, strict=True):
            assert torch.equal(one.images, two.images)
            assert one.ids == two.ids
    parts = [list(make(source, rank=rank, world_size=2).epoch(0)) for rank in range(2)]
    for step, *shares in zip(whole, *parts, strict=True):
        assert tuple(key for share in shares for key in share.ids) == step.ids


def test_roles_of_shards_are_subsets_that_load_their_own_images(written: Path) -> None:
    source = open_data(str(written))
    split = make_splits(source, SplitConfig(validation=0.0, calibration_a=0.0, calibration_b=0.0))
    train = role_set(source, split, Role.TRAIN)
    assert len(train) == 40
    assert locate(str(written)).names == ()
