"""Sample images: real, few, reproducible, and with their sources named."""

from __future__ import annotations

import io
import re
from importlib import resources

import numpy as np
import pytest
from PIL import Image

from ibinn import samples
from ibinn.errors import DataError
from ibinn.samples import SampleKind

CIFAR10 = {
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
}  # fmt: skip


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def test_thumbnails_are_few_jpeg_files_named_after_their_class() -> None:
    thumbnails = samples.thumbnails()
    assert 8 <= len(thumbnails) <= 16
    for sample in thumbnails:
        assert re.fullmatch(r"[a-z]+-\d{4}\.jpg", sample.name)
        assert sample.kind is SampleKind.THUMBNAIL
        assert (opened(sample.data).format, opened(sample.data).size) == ("JPEG", (32, 32))
    assert {sample.shows for sample in thumbnails} == CIFAR10


def test_the_readme_names_the_source_of_every_kind() -> None:
    readme = (resources.files("ibinn.samples") / "README.md").read_text(encoding="utf-8")
    for word in ("CIFAR-10", "CC0", "public domain", "CC BY 4.0", "seed"):
        assert word in readme


def test_photographs_come_from_the_installed_package() -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    photographs = samples.photographs()
    assert [sample.name for sample in photographs] == [
        "chelsea.png", "rocket.jpg", "coffee.png", "astronaut.png",
    ]  # fmt: skip
    assert all(min(opened(sample.data).size) >= 300 for sample in photographs)


def test_a_digit_is_dark_on_white_and_always_the_same() -> None:
    sample = samples.digit(3)
    pixels = np.asarray(opened(sample.data))
    assert (pixels.shape, pixels.max()) == ((32, 32), 255)
    assert pixels.min() < 32
    assert sample.shows == "a handwritten 3"
    assert samples.digit(3) == sample != samples.digit(4)


def test_digits_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    digits = datasets.load_digits()
    for index in (0, 1, 1796):
        sample = samples.digit(index)
        assert sample.shows == f"a handwritten {digits.target[index]}"
        ink = 1.0 - np.asarray(opened(sample.data))[::4, ::4] / 255.0
        np.testing.assert_allclose(ink, digits.images[index] / 16.0, atol=0.002)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install scikit-image"):
        samples.photographs()


def test_a_digit_that_does_not_exist_is_refused() -> None:
    with pytest.raises(DataError, match="digit number 1797 does not exist; choose 0 to 1796"):
        samples.digit(1797)


def test_noise_follows_its_seed_and_fills_the_range() -> None:
    sample = samples.noise(7, side=64)
    pixels = np.asarray(opened(sample.data))
    assert pixels.shape == (64, 64, 3)
    assert abs(pixels.std() - 256 / np.sqrt(12)) < 2.0
    assert samples.noise(7, side=64) == sample != samples.noise(8, side=64)
