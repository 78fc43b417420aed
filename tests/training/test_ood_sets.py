from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ibinn.errors import DataError
from training import development_sets, ood_sets
from training.tiny_imagenet_overlap import CIFAR_OVERLAP

COUNT = 40
COLLECTIONS = ("report", "development")


@pytest.fixture
def photographs(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, size=(25, 32, 32, 3), dtype=np.uint8)


def made(collection: str, photographs: np.ndarray, seed: int = 0) -> tuple[ood_sets.OodSet, ...]:
    if collection == "development":
        return development_sets.development_sets(photographs, side=32, count=COUNT, seed=seed)
    return ood_sets.report_sets(photographs, side=32, count=COUNT, seed=seed).sets


def write_mnist(root: Path, count: int = 5) -> Path:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    header = np.array([2051, 10_000, 28, 28], dtype=">i4").tobytes()
    pixels = np.zeros((count, 28, 28), dtype=np.uint8)
    pixels[:, 10:18, 10:18] = 255
    (raw / "t10k-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
    return root


def write_tiny_imagenet(root: Path, wnids: tuple[str, ...], each: int = 3) -> Path:
    for number, wnid in enumerate(wnids):
        folder = root / "val" / wnid
        folder.mkdir(parents=True)
        for index in range(each):
            Image.new("RGB", (64, 64), (10 * number, 20 * index, 0)).save(
                folder / f"val_{index}.JPEG"
            )
    (root / "classes.json").write_text(json.dumps({wnid: f"word {wnid}, other" for wnid in wnids}))
    return root


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_images_are_8_bit_rgb_and_the_same_in_any_order(
    collection: str, photographs: np.ndarray
) -> None:
    first, second = made(collection, photographs), made(collection, photographs)
    for ood, again in zip(first, second, strict=True):
        backwards = {i: again.images[i] for i in reversed(range(len(again.images)))}
        for i in range(len(ood.images)):
            image = ood.images[i]
            assert image.dtype == np.uint8
            assert image.shape == (32, 32, 3)
            np.testing.assert_array_equal(image, backwards[i])


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_made_images_differ_between_seeds_and_between_indices(
    collection: str, photographs: np.ndarray
) -> None:
    for ood, other in zip(
        made(collection, photographs), made(collection, photographs, seed=1), strict=True
    ):
        assert (ood.images[0] != ood.images[1]).any()
        if ood.name not in ("rotation", "dev-blur", "dev-negatives", "dev-turned"):
            assert (ood.images[0] != other.images[0]).any()


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_sets_hold_the_count_or_one_per_image_they_are_made_from(
    collection: str, photographs: np.ndarray
) -> None:
    from_photographs = {"rotation", "noise-0.1", "noise-0.015", "dev-blur", "dev-negatives"}
    from_photographs |= {"dev-turned", "dev-enlarged"}
    for ood in made(collection, photographs):
        assert len(ood.images) == (25 if ood.name in from_photographs else COUNT)


def test_default_count_is_three_thousand_drawn_without_repetition() -> None:
    assert ood_sets.FULL_COUNT == 3000
    drawn = ood_sets.choose(10_000, 3000, seed=0)
    assert len(set(drawn)) == 3000
    assert drawn == sorted(drawn)
    assert drawn == ood_sets.choose(10_000, 3000, seed=0)


def test_rotation_is_orthogonal_and_leaves_mid_grey() -> None:
    rotation = ood_sets.rotation_matrix()
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    grey = np.full((1, 4, 4, 3), 127, dtype=np.uint8)
    rotated = ood_sets.rotated_colours(grey).images[0].astype(int)
    assert np.abs(rotated - 127).max() <= 1


def test_noise_has_the_standard_deviation_asked_for() -> None:
    grey = np.full((3, 64, 64, 3), 128, dtype=np.uint8)
    for sigma in (0.1, 0.015):
        images = ood_sets.noisy(grey, sigma=sigma).images
        spread = np.stack([images[i] for i in range(3)]).astype(float).std() / 255
        assert spread == pytest.approx(sigma, rel=0.03)


def test_faint_noise_is_reported_without_a_bar(photographs: np.ndarray) -> None:
    barred = {ood.name: ood.barred for ood in made("report", photographs)}
    assert barred["noise-0.1"]
    assert not barred["noise-0.015"]


def test_digits_are_coloured_on_white(tmp_path: Path) -> None:
    digits = ood_sets.mnist_digits(write_mnist(tmp_path))
    assert digits.shape == (5, 28, 28)
    image = ood_sets.coloured_digits(digits, name="digits", source="MNIST", count=7).images[6]
    assert (image[:4] == 255).all()
    ink = image[16, 16]
    assert (ink < 180).all()
    assert len(set(ink.tolist())) > 1


def test_a_set_without_its_directory_is_left_out_with_the_reason(
    photographs: np.ndarray, tmp_path: Path
) -> None:
    made = ood_sets.report_sets(
        photographs, side=32, mnist=tmp_path / "none", tiny_imagenet=tmp_path / "none", count=4
    )
    names = [ood.name for ood in made.sets]
    assert names == ["rotation", "noise-0.1", "noise-0.015", "digits-8x8"]
    reasons = {left.name: left.reason for left in made.left_out}
    assert set(reasons) == {"digits", "tiny-imagenet"}
    assert str(tmp_path / "none") in reasons["tiny-imagenet"]


def test_digits_are_marked_as_known_to_a_model_of_digits(photographs: np.ndarray) -> None:
    def caveat(names: list[str]) -> str:
        sets = ood_sets.report_sets(photographs, side=32, class_names=names, count=2).sets
        return next(ood.caveat for ood in sets if ood.name == "digits-8x8")

    assert "own classes" in caveat(["0", "1"])
    assert caveat(["bolt", "nut"]) == ""


def test_a_file_that_is_not_mnist_is_named(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"not an IDX file, but long enough")
    with pytest.raises(DataError, match="t10k-images"):
        ood_sets.mnist_digits(tmp_path)


def test_tiny_imagenet_leaves_out_overlaps_and_the_models_own_classes(tmp_path: Path) -> None:
    root = write_tiny_imagenet(tmp_path, ("n01443537", "n02123045", "n07753592"))
    ood = ood_sets.tiny_imagenet_set(root, side=32, class_names=["Word n07753592"])
    assert len(ood.images) == 3
    # What is left is the goldfish folder, the first one: no red.
    assert all(int(ood.images[i][..., 0].max()) < 8 for i in range(3))
    assert ood.images[0].shape == (32, 32, 3)


def test_tiny_imagenet_is_not_enlarged(tmp_path: Path) -> None:
    root = write_tiny_imagenet(tmp_path, ("n01443537",))
    assert ood_sets.tiny_imagenet_set(root, side=128).images[0].shape == (64, 64, 3)


def test_overlap_holds_every_class_that_shows_a_cifar_class() -> None:
    words = " | ".join(overlap.words for overlap in CIFAR_OVERLAP.values())
    for shown in (
        "tabby", "Persian cat", "Egyptian cat",
        "Chihuahua", "Yorkshire terrier", "golden retriever", "Labrador", "German shepherd",
        "standard poodle",
        "bullfrog", "tailed frog",
        "goose", "black stork", "king penguin", "albatross",
        "beach wagon", "convertible", "limousine", "sports car",
        "moving van", "police van", "school bus", "trolleybus",
        "gondola", "lifeboat",
    ):  # fmt: skip
        assert shown in words
    assert len(CIFAR_OVERLAP) == 30


def test_overlap_does_not_hold_classes_that_only_share_a_word() -> None:
    only_words = {"n03126707", "n02917067", "n03393912", "n02509815", "n02843684", "n03599486"}
    assert not only_words & CIFAR_OVERLAP.keys()


def test_overlap_has_the_words_of_the_data_set(shared_dir: Path) -> None:
    path = shared_dir / "data" / "tiny-imagenet-200.classes.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    words = json.loads(path.read_text("utf-8"))
    assert {wnid: overlap.words for wnid, overlap in CIFAR_OVERLAP.items()} == {
        wnid: words[wnid] for wnid in CIFAR_OVERLAP
    }


def test_negatives_of_negatives_are_the_images(photographs: np.ndarray) -> None:
    negatives = development_sets.flipped_contrast(photographs)
    twice = development_sets.flipped_contrast([negatives.images[i] for i in range(25)])
    np.testing.assert_array_equal(twice.images[7], photographs[7])


def test_development_sets_are_not_report_sets(photographs: np.ndarray) -> None:
    report = {ood.name for ood in made("report", photographs)} | {"digits", "tiny-imagenet"}
    assert not report & {ood.name for ood in made("development", photographs)}


def test_an_empty_source_is_refused() -> None:
    with pytest.raises(DataError, match="at least one image"):
        ood_sets.rotated_colours(np.empty((0, 32, 32, 3), dtype=np.uint8))
