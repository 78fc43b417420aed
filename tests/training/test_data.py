from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ibinn.errors import DataError
from tests.training.image_folders import write_folder, write_image
from training import folders
from training.data import image_id, open_data
from training.image_set import FileStore


def test_a_class_folder_opens_with_sorted_classes_labels_and_names(tmp_path: Path) -> None:
    source = open_data(str(write_folder(tmp_path, {"dog": 2, "cat": 3})))
    assert source.test is None
    assert source.train.class_names == ("cat", "dog")
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert source.train.items[3].name == "dog/000.png"
    assert source.train.load(3).shape == (16, 16, 3)


def test_the_id_is_a_hash_of_the_pixels_and_not_of_name_or_encoding(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 1, "b": 1})
    pixels = Image.open(tmp_path / "a" / "000.png")
    pixels.save(tmp_path / "b" / "same.bmp")
    items = {item.name: item.id for item in open_data(str(tmp_path)).train.items}
    assert items["a/000.png"] == items["b/same.bmp"] == image_id(np.asarray(pixels))
    assert items["a/000.png"] != items["b/000.png"]


def test_train_and_test_folders_become_the_two_parts(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/a": 3, "train/b": 2, "test/a": 1, "test/b": 1})
    source = open_data(str(tmp_path))
    assert source.test is not None
    assert (len(source.train), len(source.test)) == (5, 2)
    assert source.test.items[0].name == "test/a/000.png"
    assert (source.test.load(1) == np.asarray(Image.open(tmp_path / "test/b/000.png"))).all()


def test_val_is_the_test_part_where_there_is_no_test_folder(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/a": 3, "train/b": 2, "val/a": 1, "val/b": 1})
    source = open_data(str(tmp_path))
    assert source.test is not None
    assert len(source.test) == 2


def test_val_joins_training_where_there_is_a_test_folder(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/a": 3, "train/b": 2, "val/a": 1, "test/b": 1})
    source = open_data(str(tmp_path))
    assert source.test is not None
    assert (len(source.train), len(source.test)) == (6, 1)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    source = open_data(str(write_folder(tmp_path, {"train": 2, "car": 2})))
    assert source.train.class_names == ("car", "train")


def test_unreadable_files_are_named_with_their_number(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 3, "b": 3})
    for number in range(7):
        (tmp_path / "a" / f"bad{number}.jpg").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"7 of 13 files.*a/bad0\.jpg.*and 2 more.*--skip-unread"):
        open_data(str(tmp_path))
    source = open_data(str(tmp_path), skip_unreadable=True)
    assert len(source.train) == 6
    assert [entry.name for entry in source.skipped] == [f"a/bad{n}.jpg" for n in range(7)]
    last = source.train.load(5)
    assert (last == np.asarray(Image.open(tmp_path / "b" / "002.png"))).all()


def test_a_truncated_image_is_unreadable(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 2, "b": 2})
    path = tmp_path / "b" / "001.png"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"1 of 4 files cannot be read: b/001\.png"):
        open_data(str(tmp_path))


def test_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"one class only \(cat\)"):
        open_data(str(write_folder(tmp_path, {"cat": 3})))


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class folders"):
        open_data(str(tmp_path))


def test_an_empty_class_folder_is_refused_by_name(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 3, "dog": 2})
    (tmp_path / "emu").mkdir()
    with pytest.raises(DataError, match="class emu holds no images"):
        open_data(str(tmp_path))


def test_a_test_class_that_training_lacks_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/a": 1, "train/b": 1, "test/c": 1})
    with pytest.raises(DataError, match=r"test/c is not one of the training classes \(a, b\)"):
        open_data(str(tmp_path))


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist.*digits, elpv"):
        open_data(str(tmp_path / "nowhere"))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file"):
        open_data(str(tmp_path / "file"))


def test_other_files_and_hidden_files_are_counted_or_left_out(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / "a" / ".DS_Store").touch()
    source = open_data(str(tmp_path))
    assert (len(source.train), source.ignored) == (4, 1)


def test_groups_come_from_a_pattern_or_the_parent_folder(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a/lot7": 2, "b/lot9": 1})
    by_pattern = open_data(str(tmp_path), group_by=r"lot(\d+)").train
    assert [item.group for item in by_pattern.items] == ["7", "7", "9"]
    by_parent = open_data(str(tmp_path), group_by="parent").train
    assert [item.group for item in by_parent.items] == ["lot7", "lot7", "lot9"]


@pytest.mark.parametrize(
    ("group_by", "message"),
    [
        ("lot(", "not a regular expression"),
        ("lot", "has 0 groups"),
        (r"lot(\d+)", "does not match a/000.png"),
        ("parent", "lies directly in its class folder"),
    ],
)
def test_a_group_pattern_that_cannot_work_is_refused(
    tmp_path: Path, group_by: str, message: str
) -> None:
    write_folder(tmp_path, {"a": 1, "b": 1})
    with pytest.raises(DataError, match=message):
        open_data(str(tmp_path), group_by=group_by)


def test_images_of_one_size_stay_in_memory_and_others_are_read_again(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 2, "b": 2})
    kept = open_data(str(tmp_path)).train
    write_image(tmp_path / "a" / "wide.png", seed=9, size=(24, 16))
    train = open_data(str(tmp_path)).train
    assert isinstance(train._store, FileStore)
    assert train.load(2).shape == (16, 24, 3)
    assert train.sizes.tolist() == [[16, 16], [16, 16], [16, 24], [16, 16], [16, 16]]
    assert train.one_size is None
    first = train.load(0)
    shutil.rmtree(tmp_path / "a")
    assert kept.one_size == (16, 16)
    assert (kept.load(0) == first).all()


def test_folders_called_by_wordnet_ids_get_readable_class_names(tmp_path: Path) -> None:
    write_folder(tmp_path, {"n01440764": 1, "n02012849": 1, "n03126707": 1})
    assert open_data(str(tmp_path)).train.class_names == ("tench", "crane bird", "crane")
    write_folder(tmp_path, {"other": 1})
    assert open_data(str(tmp_path)).train.class_names[:2] == ("n01440764", "n02012849")


def test_images_over_the_memory_limit_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, {"a": 2, "b": 2})
    monkeypatch.setattr(folders, "MEMORY_BYTES", 3000)
    train = open_data(str(tmp_path)).train
    assert isinstance(train._store, FileStore)
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(DataError, match="do not change the folder"):
        train.load(0)


def test_progress_reaches_the_number_of_images(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_folder(tmp_path, {"a": 2, "b": 2})
    open_data(str(tmp_path), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (4, 4)


def test_a_subset_shares_pixels_and_keeps_order(tmp_path: Path) -> None:
    train = open_data(str(write_folder(tmp_path, {"a": 3, "b": 3}))).train
    part = train.subset([4, 1])
    assert [item.name for item in part.items] == ["b/001.png", "a/001.png"]
    assert (part.load(0) == train.load(4)).all()
    assert (part.subset([1]).load(0) == train.load(1)).all()
    assert (part.thumbnails[1] == train.thumbnails[1]).all()


def test_digits_are_scaled_to_the_full_range_of_grey() -> None:
    source = open_data("digits")
    pixels = source.train.load(0)
    assert source.test is None
    assert pixels.dtype == np.uint8
    assert max(source.train.load(index).max() for index in range(20)) == 255
    assert (pixels[..., 0] == pixels[..., 2]).all()
    assert source.train.items[17].name == "digits/17"


def test_packaged_data_has_no_paths_to_group_by() -> None:
    with pytest.raises(DataError, match="no file paths to group by"):
        open_data("digits", group_by="parent")


def test_elpv_has_two_classes_split_at_probability_one_half(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "elpv_dataset"
    write_folder(package / "data", {"images": 4})
    rows = ["0.0", "0.3333333333333333", "0.6666666666666666", "1.0"]
    lines = [f"images/{n:03d}.png  {row}  mono" for n, row in enumerate(rows)]
    (package / "data" / "labels.csv").write_text("\n".join(lines))
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    train = open_data("elpv").train
    names = [train.class_names[label] for label in train.labels]
    assert names == ["functional", "functional", "defective", "defective"]


def test_mnist_in_torchvisions_format_opens(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("t10k", 5)):
        header = b"".join(n.to_bytes(4, "big") for n in (0x803, count, 28, 28))
        pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8).tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels)
        header = b"".join(n.to_bytes(4, "big") for n in (0x801, count))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + bytes(range(count)))
    source = open_data(str(tmp_path))
    assert source.test is not None
    assert (source.name, len(source.train), len(source.test)) == ("mnist", 12, 5)
    assert source.train.class_names[3] == "3"
    assert source.train.load(0).shape == (28, 28, 3)
    (raw / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        open_data(str(tmp_path))


def test_cifar_files_with_wrong_checksums_are_refused_before_unpickling(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        (folder / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(DataError, match="laid out like CIFAR-10 but cannot be read"):
        open_data(str(tmp_path))
