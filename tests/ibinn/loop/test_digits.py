"""MNIST's digits for the loop: read, damaged and dealt out."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ibinn.errors import DataError
from ibinn.loop.digits import (
    MISSING,
    NOISE,
    NOISE_SEED,
    SEVERITY,
    Digits,
    noisy,
    picture,
    read_digits,
    shuffled,
    write_folder,
)
from ibinn.loop.scenario import INVERTED, KNOWN, SCRAMBLED, Deck, Scenario, foreign
from training.corruptions import corrupt


@pytest.fixture
def digits(rng: np.random.Generator) -> Digits:
    """Sixty images that are no digits, six of each class."""
    return Digits(
        name="train",
        pixels=rng.integers(0, 256, (60, 28, 28)).astype(np.uint8),
        labels=np.tile(np.arange(10, dtype=np.uint8), 6),
    )


def idx(folder: Path, part: str, digits: Digits) -> Path:
    """The files of torchvision's layout."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    count = len(digits.labels).to_bytes(4, "big")
    side = (28).to_bytes(4, "big")
    name = {"train": "train", "test": "t10k"}[part]
    (raw / f"{name}-images-idx3-ubyte").write_bytes(
        (2051).to_bytes(4, "big") + count + side + side + digits.pixels.tobytes()
    )
    (raw / f"{name}-labels-idx1-ubyte").write_bytes(
        (2049).to_bytes(4, "big") + count + digits.labels.tobytes()
    )
    return folder


def test_noise_is_the_corruption_of_the_trust_report(digits: Digits) -> None:
    for pixels in (*digits.pixels[:3], np.zeros((28, 28), np.uint8)):
        rgb = np.repeat(pixels[:, :, None], 3, axis=2)
        assert (noisy(pixels) == corrupt(rgb, NOISE, SEVERITY, seed=NOISE_SEED)).all()


def test_files_are_read_as_they_were_written(tmp_path: Path, digits: Digits) -> None:
    read = read_digits(idx(tmp_path, "test", digits), "test")
    assert (read.pixels == digits.pixels).all()
    assert (read.labels == digits.labels).all()


def test_a_missing_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="make data"):
        read_digits(tmp_path, "train")


def test_a_file_of_another_kind_is_refused(tmp_path: Path, digits: Digits) -> None:
    idx(tmp_path, "train", digits)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(b"\0\0\0\0" + path.read_bytes()[4:])
    with pytest.raises(DataError, match="begins with 0, expected 2051"):
        read_digits(tmp_path, "train")


def test_a_picture_is_a_lossless_file(digits: Digits) -> None:
    for add_noise, expected in ((False, digits.pixels[4]), (True, noisy(digits.pixels[4]))):
        made = picture(digits, 4, add_noise=add_noise)
        with Image.open(BytesIO(made.data)) as image:
            assert (np.asarray(image) == expected).all()
        assert (made.truth, made.noisy) == ("4", add_noise)


def test_folders_are_named_by_the_truth(tmp_path: Path, digits: Digits) -> None:
    assert write_folder((picture(digits, index) for index in range(20)), tmp_path) == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(n) for n in range(10)]
    assert len(list((tmp_path / "3").iterdir())) == 2


def test_order_is_a_function_of_the_seed(digits: Digits) -> None:
    first = shuffled(digits, seed=1, classes=("2", "5"))
    assert first == shuffled(digits, seed=1, classes=("2", "5"))
    assert first != shuffled(digits, seed=2, classes=("2", "5"))
    assert {int(digits.labels[index]) for index in first} == {2, 5}


def test_no_digit_is_dealt_twice(digits: Digits, rng: np.random.Generator) -> None:
    deck = Deck(digits, seed=0)
    known = list(deck.known(30))
    mixed = list(deck.mixed(20, missing=0.2, noisy=0.5, rng=rng))
    names = [image.name.removesuffix("-noisy") for image in (*known, *mixed)]
    assert len(set(names)) == len(names)
    assert {image.truth for image in known} <= set(KNOWN)
    assert MISSING in {image.truth for image in mixed}
    assert {image.noisy for image in mixed} == {True, False}


def test_a_deck_without_digits_says_so(digits: Digits) -> None:
    with pytest.raises(DataError, match="no digits left"):
        list(Deck(digits, seed=0).known(55))


def test_images_that_are_no_digits_are_of_two_kinds(digits: Digits) -> None:
    made = list(foreign(picture(digits, index) for index in range(6)))
    assert [image.truth for image in made] == [INVERTED, SCRAMBLED] * 3
    with Image.open(BytesIO(made[0].data)) as image:
        assert (np.asarray(image) == 255 - digits.pixels[0]).all()
    with Image.open(BytesIO(made[1].data)) as image:
        changed = np.asarray(image)
    assert (changed != digits.pixels[1]).any()
    assert (np.sort(changed, axis=None) == np.sort(digits.pixels[1], axis=None)).all()


def test_a_base_model_of_other_images_or_another_recipe_has_another_name() -> None:
    names = {
        Scenario().digest({"epochs": 6}),
        Scenario().digest({"epochs": 7}),
        Scenario(seed=1).digest({"epochs": 6}),
        Scenario(base_images=9_000).digest({"epochs": 6}),
    }
    assert len(names) == 4
