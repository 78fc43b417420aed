"""Old data and feedback as one data set that can be opened again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ibinn.errors import DataError
from tests.training.feedback import Exporter, Said
from tests.training.image_folders import write_folder
from training.data import open_data
from training.image_set import Pixels
from training.retraining.composed import OldData, read_composed, recorded_split, write_composed
from training.retraining.composition import Base, Composition, Rules, compose
from training.retraining.intake import take_in
from training.splits import Role, SplitConfig, make_splits, role_set

SPLIT = SplitConfig(validation=0.1, calibration_a=0.1, calibration_b=0.1, test=0.2)
FOLDERS = {
    "split here": {"bolt": 20, "nut": 20},
    "with its own test set": {
        "train/bolt": 20,
        "train/nut": 20,
        "test/bolt": 5,
        "test/nut": 5,
    },
}


def picture(seed: int) -> Pixels:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((16, 16), Image.Resampling.BICUBIC))


@pytest.fixture(params=FOLDERS)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Composition]:
    old = write_folder(tmp_path / "old", FOLDERS[request.param])
    source = open_data(str(old))
    base = Base(
        classes=("bolt", "nut"), weights="w", source=source, split=make_splits(source, SPLIT)
    )
    export = Exporter()
    for seed in range(30):
        export.add(picture(9_000 + seed), Said(truth="washer" if seed % 3 else "nut"))
    intake = take_in(export.write(tmp_path / "export"))
    rules = Rules(trusted=frozenset({"inspection/anna"}), min_new_class=5)
    composition = compose(intake.candidates, base, rules, excluded={})
    write_composed(tmp_path / "data", composition, OldData(data=str(old)))
    return tmp_path / "data", composition


def test_every_role_is_found_again(written: tuple[Path, Composition]) -> None:
    folder, composition = written
    source = open_data(str(folder))
    split = recorded_split(str(folder))
    assert split is not None
    assert split.sha256 == composition.split.sha256
    assert source.train.class_names == ("bolt", "nut", "washer")
    expected = {item.id: item.label for item in composition.images.items}
    for role in Role:
        images = role_set(source, split, role)
        assert len(images) == len(split.roles[role])
        new = [index for index, item in enumerate(images.items) if item.id in expected]
        assert new
        for index in new:
            item = images.items[index]
            assert item.label == expected[item.id]
            assert item.name.startswith("feedback/")
    total = len(source.train) + (0 if source.test is None else len(source.test))
    assert total == sum(len(ids) for ids in split.roles.values())


def test_the_pixels_are_those_that_were_sent(written: tuple[Path, Composition]) -> None:
    folder, composition = written
    source = open_data(str(folder))
    sets = [source.train] if source.test is None else [source.train, source.test]
    positions = {
        item.id: (images, index) for images in sets for index, item in enumerate(images.items)
    }
    for index, item in enumerate(composition.images.items):
        images, position = positions[item.id]
        assert np.array_equal(images.load(position), composition.images.load(index))


def test_an_image_that_was_exchanged_is_refused(written: tuple[Path, Composition]) -> None:
    folder, _ = written
    first, second = sorted((folder / "images").rglob("*/*"))[:2]
    first.write_bytes(second.read_bytes())
    with pytest.raises(DataError, match="the file was changed, compose the data again"):
        open_data(str(folder))


def test_a_damaged_list_is_refused(written: tuple[Path, Composition]) -> None:
    folder, _ = written
    (folder / "composed.json").write_text("{}")
    with pytest.raises(DataError, match=r"composed\.json is malformed"):
        open_data(str(folder))


def test_old_data_of_other_classes_is_refused(
    written: tuple[Path, Composition], tmp_path: Path
) -> None:
    folder, _ = written
    other = open_data(str(write_folder(tmp_path / "other", {"axe": 3, "bow": 3})))
    with pytest.raises(DataError, match="the old data has classes axe, bow"):
        read_composed(folder, other)


def test_data_of_another_kind_has_no_recorded_split(tmp_path: Path) -> None:
    assert recorded_split("digits") is None
    assert recorded_split(str(tmp_path)) is None


def test_groups_are_refused_for_composed_data(written: tuple[Path, Composition]) -> None:
    with pytest.raises(DataError, match="has no file paths to group by"):
        open_data(str(written[0]), group_by="parent")
