"""From a released checkpoint to a bundle that answers, and back bit by bit."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ibinn import bundle
from ibinn.errors import AlphaTooSmallError, BundleIntegrityError, ConfigError, DataError
from ibinn.flow.ib_inn_50 import IbInn50Config
from ibinn.manifest import Manifest
from ibinn.ten_crop import ten_crops
from ibinn.types import Verdict
from tests.ibinn.bundles import make_manifest
from tests.training.image_folders import random_set, write_folder
from tests.training.released import MEANS, bits_equal, made_model, write_checkpoint
from training.chapters import uncertainty
from training.chapters.base import Material
from training.class_folders import folder_labels, halves, read_class_folders
from training.cli import app
from training.export_checkpoint import export_checkpoint
from training.import_checkpoint import (
    CALIBRATION,
    REMAINDER,
    ImportRequest,
    import_checkpoint,
    imported_roles,
    is_imported,
)
from training.recalibrate import recalibrate
from training.released_file import read_tensors
from training.splits import Role

CLASSES = ("ant", "great bee", "cat", "dog", "emu")
CPU = torch.device("cpu")


def imported(request: ImportRequest) -> Manifest:
    return import_checkpoint(request, device=CPU, say=lambda _: None)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("names") / "names.txt"
    path.write_text("\n".join(CLASSES) + "\n\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("file") / "beta_1.avg.pt")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of four of the five classes, 15 each."""
    folders = ("ant", "great_bee", "cat", "dog")
    return write_folder(
        tmp_path_factory.mktemp("photographs"), {f"val/{name}": 15 for name in folders}
    )


@pytest.fixture(scope="module")
def calibrated(
    checkpoint: Path, names: Path, photographs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("calibrated") / "bundle"
    imported(
        ImportRequest(
            file=checkpoint,
            out=out,
            class_names=names,
            calibrate=photographs / "val",
            images=50,
            alpha=0.05,
        )
    )
    return out


def test_the_golden_checkpoint_comes_back_bit_by_bit(shared_dir: Path, tmp_path: Path) -> None:
    file = shared_dir / "golden" / "reference_tiny.avg.pt"
    (tmp_path / "names").write_text("\n".join("abcdefghij"))
    imported(ImportRequest(file=file, out=tmp_path / "bundle", class_names=tmp_path / "names"))
    export_checkpoint(tmp_path / "bundle", tmp_path / "back.pt")
    before = torch.load(file, weights_only=True)
    after = torch.load(tmp_path / "back.pt", weights_only=True)
    kept = [key for key in before["inn"] if not key.startswith("tmp_var_")]
    assert list(after["inn"]) == kept
    assert set(after) == {"inn", *MEANS}
    assert [key for key in kept if not bits_equal(before["inn"][key], after["inn"][key])] == []
    assert [key for key in MEANS if not bits_equal(before[key], after[key])] == []
    assert all(type(after[key]) is type(before[key]) for key in MEANS)


def test_the_bundle_computes_what_the_checkpoint_does(checkpoint: Path, calibrated: Path) -> None:
    model, preprocessing = bundle.load_model(calibrated)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        z, log_det = made_model()(x)
        found, found_log_det = model(x)
        expected = made_model().mixture.logits(z)
        assert torch.allclose(found, z, atol=1e-5)
        assert torch.allclose(found_log_det, log_det, atol=1e-2)
        assert torch.allclose(model.mixture.logits(found), expected, atol=1e-4)
    assert (preprocessing.config.shorter_side, preprocessing.config.levels) == (37, 255)


def test_without_images_nothing_is_assessed(checkpoint: Path, names: Path, tmp_path: Path) -> None:
    found = imported(ImportRequest(file=checkpoint, out=tmp_path / "b", class_names=names))
    assert (found.name, found.classes, found.calibration_digest) == ("beta_1", CLASSES, "")
    assert is_imported(found)
    classifier = bundle.load(tmp_path / "b")
    answer = classifier.classify(np.zeros((50, 40, 3), np.uint8))
    assert isinstance(answer.verdict, Verdict)
    assert answer.verdict is Verdict.NOT_ASSESSED
    assert not classifier.info.calibrated


def test_with_images_answers_are_assessed(calibrated: Path, photographs: Path) -> None:
    classifier = bundle.load(calibrated)
    assert classifier.info.calibration_count == 25
    answer = classifier.classify(next((photographs / "val" / "cat").iterdir()))
    assert answer.verdict is not Verdict.NOT_ASSESSED
    explained = classifier.explain(next((photographs / "val" / "cat").iterdir()))
    assert max(heatmap.completeness_error for heatmap in explained.heatmaps) <= 1e-2


def test_calibration_and_test_images_are_told_apart(calibrated: Path, photographs: Path) -> None:
    found = bundle.verify(calibrated)
    ids = json.loads((calibrated / CALIBRATION).read_text())
    assert len(ids["calibration_a"]) == len(ids["calibration_b"]) == 25
    roles = imported_roles(calibrated, found, str(photographs / "val"))
    counts = {role: len(images) for role, images in roles.items()}
    assert counts == {Role.TEST: 10, Role.CALIBRATION_A: 25, Role.CALIBRATION_B: 25}
    assert roles[Role.TEST].class_names == CLASSES
    assert {i.id for i in roles[Role.TEST].items}.isdisjoint(
        [*ids["calibration_a"], *ids["calibration_b"]]
    )


def test_ten_crops_of_an_imported_model_are_windows_of_the_originals(
    calibrated: Path, photographs: Path
) -> None:
    classifier = bundle.load(calibrated)
    test = imported_roles(calibrated, bundle.verify(calibrated), str(photographs / "val"))[
        Role.TEST
    ]
    views = [ten_crops(test.load(i), classifier.preprocessing) for i in range(len(test))]
    expected = np.stack([classifier.score(v).probabilities.mean(axis=0) for v in views])
    material = SimpleNamespace(
        classifier=classifier,
        test=test,
        test_scores=SimpleNamespace(probabilities=expected),
        limit=len(test),
        seed=0,
        draws=5,
        progress=None,
    )
    crops = uncertainty._crops(cast(Material, material))
    assert (crops.count, crops.views) == (10, 10)
    for _, difference in crops.difference:
        assert difference.value == pytest.approx(0.0, abs=1e-6)


def test_images_that_were_all_calibrated_on_are_refused_as_a_test(
    calibrated: Path, photographs: Path, tmp_path: Path
) -> None:
    used = set(json.loads((calibrated / CALIBRATION).read_text())["calibration_a"])
    images, _ = read_class_folders(photographs / "val", CLASSES)
    name = next(item.name for item in images.items if item.id in used)
    copy = tmp_path / name
    copy.parent.mkdir(parents=True)
    copy.write_bytes((photographs / "val" / name).read_bytes())
    with pytest.raises(DataError, match=r"all 1 images .* served the bundle's calibration"):
        imported_roles(calibrated, bundle.verify(calibrated), str(tmp_path))


def test_export_survives_recalibration(
    checkpoint: Path, calibrated: Path, photographs: Path, tmp_path: Path
) -> None:
    roles = imported_roles(calibrated, bundle.verify(calibrated), str(photographs / "val"))
    recalibrate(calibrated, roles, tmp_path / "again", device=CPU)
    export_checkpoint(tmp_path / "again", tmp_path / "back.pt")
    before, after = read_tensors(checkpoint), read_tensors(tmp_path / "back.pt")
    assert list(before) == list(after)
    assert all(bits_equal(before[key], after[key]) for key in before)


def test_too_few_images_are_refused_before_anything_is_computed(
    checkpoint: Path, names: Path, photographs: Path, tmp_path: Path
) -> None:
    with pytest.raises(AlphaTooSmallError, match="99 are needed"):
        imported(
            ImportRequest(
                file=checkpoint,
                out=tmp_path / "b",
                class_names=names,
                calibrate=photographs / "val",
            )
        )
    assert not (tmp_path / "b").exists()


def test_names_are_asked_for_where_the_classes_are_not_imagenets(
    checkpoint: Path, names: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"has 5 classes; .* give --class-names"):
        imported(ImportRequest(file=checkpoint, out=tmp_path / "b"))
    for text, message in (
        ("a\nb\nc", "3 lines; the checkpoint has 5 classes"),
        ("a\nb\nc\nd\na", "'a' stands there 2 times"),
        ("a\n\nc\nd\ne", "none of them empty"),
    ):
        other = tmp_path / "names"
        other.write_text(text)
        with pytest.raises(ConfigError, match=message):
            imported(ImportRequest(file=checkpoint, out=tmp_path / "b", class_names=other))
    with pytest.raises(ConfigError, match="cannot be read"):
        imported(ImportRequest(file=checkpoint, out=tmp_path / "b", class_names=tmp_path))


def test_only_an_imported_bundle_is_written_again(
    checkpoint: Path, names: Path, tmp_path: Path
) -> None:
    request = ImportRequest(file=checkpoint, out=tmp_path / "b", class_names=names)
    first = imported(request)
    assert imported(request).weights_digest == first.weights_digest
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not an imported bundle"):
        imported(ImportRequest(file=checkpoint, out=tmp_path / "work", class_names=names))


# --------------------------------------------------------------------------------------- export


@pytest.mark.parametrize(
    ("config", "mixture", "message"),
    [
        ({}, {"rank": None}, "means are full"),
        ({"pooling": "orthonormal"}, {}, "pooling is orthonormal; expected published"),
        ({"clamp": 1.0}, {}, "clamp is 1; expected 0.7"),
    ],
)
def test_a_model_that_the_layout_has_no_place_for_is_refused(
    tmp_path: Path, config: dict, mixture: dict, message: str
) -> None:
    settings = {"pooling": "published", **config}
    architecture = IbInn50Config(side=8, width=4, blocks=(1,), strides=(1,), **settings)
    found = make_manifest(architecture, mixture={"rank": 2, "class_dims": 3, **mixture})
    bundle.save(found, made_model(architecture), None, tmp_path / "b")
    with pytest.raises(ConfigError, match=message):
        export_checkpoint(tmp_path / "b", tmp_path / "back.pt")
    assert not (tmp_path / "back.pt").exists()


def test_another_architecture_is_refused_by_name(embedded_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="architecture is small; expected ib-inn-50"):
        export_checkpoint(embedded_bundle, tmp_path / "back.pt")


def test_a_file_that_exists_is_not_overwritten(calibrated: Path, tmp_path: Path) -> None:
    (tmp_path / "back.pt").write_text("mine")
    with pytest.raises(ConfigError, match="exists"):
        export_checkpoint(calibrated, tmp_path / "back.pt")
    with pytest.raises(ConfigError, match="cannot be written"):
        export_checkpoint(calibrated, tmp_path / "none" / "back.pt")


def test_a_changed_remainder_is_noticed(checkpoint: Path, names: Path, tmp_path: Path) -> None:
    imported(ImportRequest(file=checkpoint, out=tmp_path / "b", class_names=names))
    path = tmp_path / "b" / REMAINDER
    path.write_text(path.read_text().replace("0", "1", 1))
    with pytest.raises(BundleIntegrityError, match=REMAINDER):
        export_checkpoint(tmp_path / "b", tmp_path / "back.pt")


# -------------------------------------------------------------------------------------- folders


def test_imagenet_folders_may_be_called_by_wordnet_ids() -> None:
    from training import imagenet_names

    labels = folder_labels(imagenet_names.class_names())
    assert labels["n01440764"] == labels["tench"] == 0
    assert labels["n02012849"] == labels["crane_bird"] == labels["crane bird"] == 134
    assert labels["crane"] == labels["n03126707"] == 517


def test_a_folder_that_is_no_class_is_named(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"val is not called like a class.*such as .*val"):
        read_class_folders(photographs, CLASSES)
    (tmp_path / "zebra").mkdir()
    with pytest.raises(DataError, match=r"zebra is not called .* \(ant, great bee, cat"):
        read_class_folders(tmp_path, CLASSES)
    (tmp_path / "zebra").rename(tmp_path / "emu")
    with pytest.raises(DataError, match="has no images"):
        read_class_folders(tmp_path, CLASSES)
    with pytest.raises(DataError, match="does not exist"):
        read_class_folders(tmp_path / "none", CLASSES)


def test_a_part_of_the_images_has_every_class_in_proportion(photographs: Path) -> None:
    images, _ = read_class_folders(photographs / "val", CLASSES, most=20)
    assert np.bincount(images.labels, minlength=5).tolist() == [5, 5, 5, 5, 0]
    again, _ = read_class_folders(photographs / "val", CLASSES, most=20)
    other, _ = read_class_folders(photographs / "val", CLASSES, most=20, seed=1)
    assert [i.name for i in images.items] == [i.name for i in again.items]
    assert [i.name for i in images.items] != [i.name for i in other.items]
    first, second = halves(images, seed=0)
    assert (len(first), len(second)) == (10, 10)
    assert {i.id for i in first.items}.isdisjoint(i.id for i in second.items)


def test_halves_are_equal_where_most_classes_have_one_image() -> None:
    images = random_set([*range(21), 0, 0, 0], class_count=25)
    first, second = halves(images, seed=0)
    assert (len(first), len(second)) == (12, 12)
    assert np.count_nonzero(first.labels == 0) == np.count_nonzero(second.labels == 0) == 2


def test_near_duplicates_stay_in_one_half() -> None:
    labels = [0, 1] * 10
    images = random_set(labels, class_count=2)
    images.thumbnails[10:14] = images.thumbnails[10]
    first, second = halves(images, seed=0)
    names = [{item.name for item in part.items} for part in (first, second)]
    copies = {f"image/{number}" for number in range(10, 14)}
    assert sorted(len(copies & part) for part in names) == [0, 4]
    assert abs(len(first) - len(second)) <= 1


def test_a_part_can_be_nearly_all_where_most_classes_have_one_image(tmp_path: Path) -> None:
    write_folder(tmp_path, {"ant": 3, "great bee": 1, "cat": 1, "dog": 1, "emu": 1})
    images, _ = read_class_folders(tmp_path, CLASSES, most=6)
    assert len(images) == 6


def test_an_unreadable_image_is_named_or_skipped(tmp_path: Path) -> None:
    write_folder(tmp_path, {"ant": 2, "cat": 1})
    (tmp_path / "cat" / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cat/broken\.png"):
        read_class_folders(tmp_path, CLASSES)
    images, skipped = read_class_folders(tmp_path, CLASSES, skip_unreadable=True)
    assert (len(images), [entry.name for entry in skipped]) == (3, ["cat/broken.png"])


# ------------------------------------------------------------------------------------- commands


def test_commands_import_and_export(checkpoint: Path, names: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    out, back = str(tmp_path / "b"), str(tmp_path / "back.pt")
    arguments = [str(checkpoint), "--out", out, "--class-names", str(names)]
    result = runner.invoke(app, ["import-checkpoint", *arguments])
    assert result.exit_code == 0, result.output
    assert "not calibrated: every verdict will be NOT_ASSESSED" in result.output
    result = runner.invoke(app, ["export-checkpoint", out, "--out", back])
    assert result.exit_code == 0, result.output
    before, after = read_tensors(checkpoint), read_tensors(Path(back))
    assert all(bits_equal(before[key], after[key]) for key in before)


def test_commands_tell_what_is_wrong_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 and no more")
    arguments = [str(tmp_path / "cut.pt"), "--out", str(tmp_path / "b")]
    result = CliRunner().invoke(app, ["import-checkpoint", *arguments])
    assert result.exit_code == 2
    assert "cut.pt is truncated or damaged" in result.output.replace("\n", " ")


def test_a_device_that_is_not_there_is_named(checkpoint: Path, tmp_path: Path) -> None:
    arguments = [str(checkpoint), "--out", str(tmp_path / "b"), "--device", "abacus"]
    result = CliRunner().invoke(app, ["import-checkpoint", *arguments])
    assert result.exit_code == 2
    assert "--device is 'abacus'" in result.output
