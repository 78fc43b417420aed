"""MNIST's digits: reading them, damaging them, and dealing them out to their roles.

Shapes: N images of 28x28 pixels; uint8, (N, 28, 28) when read and (28, 28, 3) when damaged.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ibinn.errors import DataError

Pixels = npt.NDArray[np.uint8]

SIDE_PX = 28
MISSING = "9"
"""The class that the base model is not told of."""
NOISE = "gaussian_noise"
SEVERITY = 3
NOISE_SIGMA = 0.08
"""Standard deviation of Gaussian noise of severity 3 for small images (CIFAR-10-C), of [0, 1]."""
NOISE_SEED = 0

_LAYOUT = Path("MNIST") / "raw"
_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_IMAGES_MAGIC = 2051
_LABELS_MAGIC = 2049


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Digits with their labels.

    Attributes:
        name: Of the part, ``train`` or ``test``.
        pixels: uint8 (N, 28, 28).
        labels: uint8 (N,), 0 to 9.
    """

    name: str
    pixels: Pixels
    labels: Pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image that is sent or kept.

    Attributes:
        name: Where it comes from, such as ``train-00017`` or ``train-00017-noisy``.
        truth: The digit that it shows.
        data: Encoded as PNG.
        noisy: Whether noise was added.
    """

    name: str
    truth: str
    data: bytes
    noisy: bool


def read_digits(folder: Path, part: str) -> Digits:
    """The digits of ``train`` or ``test`` in a folder of torchvision's layout.

    Raises:
        DataError: The files are not there, or are not what they should be.
    """
    pixels, labels = (folder / _LAYOUT / name for name in _FILES[part])
    images = _read(pixels, _IMAGES_MAGIC, header_bytes=16).reshape(-1, SIDE_PX, SIDE_PX)
    truths = _read(labels, _LABELS_MAGIC, header_bytes=8)
    if len(images) != len(truths):
        raise DataError(
            f"{pixels} holds {len(images)} images and {labels} {len(truths)} labels; expected as "
            "many; unpack the data set again: make data"
        )
    return Digits(name=part, pixels=images, labels=truths)


def noisy(pixels: Pixels) -> Pixels:
    """An image with Gaussian noise of severity 3: uint8 (28, 28, 3).

    x + 0.08 n with n ~ N(0, I) per pixel and channel, clipped and rounded, and drawn from the
    image's content, as the corruption of the trust report is.

    Args:
        pixels: uint8 (28, 28).
    """
    image = np.repeat(pixels[:, :, None], 3, axis=2)
    content = zlib.crc32(image.tobytes())
    rng = np.random.default_rng([NOISE_SEED, zlib.crc32(NOISE.encode()), content])
    damaged = image / 255.0 + NOISE_SIGMA * rng.standard_normal(image.shape)
    return np.rint(np.clip(damaged, 0.0, 1.0) * 255.0).astype(np.uint8)


def picture(digits: Digits, index: int, *, add_noise: bool = False) -> Picture:
    """One digit as an image file."""
    pixels = digits.pixels[index]
    buffer = BytesIO()
    Image.fromarray(noisy(pixels) if add_noise else pixels).save(buffer, format="PNG")
    return Picture(
        name=f"{digits.name}-{index:05d}{'-noisy' if add_noise else ''}",
        truth=str(digits.labels[index]),
        data=buffer.getvalue(),
        noisy=add_noise,
    )


def write_folder(pictures: Iterable[Picture], folder: Path) -> int:
    """Write images into one folder per class; how many there were."""
    count = 0
    for image in pictures:
        target = folder / image.truth
        if not target.is_dir():
            target.mkdir(parents=True)
        (target / f"{image.name}.png").write_bytes(image.data)
        count += 1
    return count


def shuffled(digits: Digits, *, seed: int, classes: Sequence[str] = ()) -> list[int]:
    """Positions of the digits (of some classes only) in a seeded order."""
    order = np.random.default_rng(seed).permutation(len(digits.labels))
    if not classes:
        return [int(index) for index in order]
    wanted = np.isin(digits.labels[order], [int(name) for name in classes])
    return [int(index) for index in order[wanted]]


def _read(path: Path, magic: int, *, header_bytes: int) -> Pixels:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); unpack MNIST with: make data"
        ) from error
    found = int.from_bytes(data[:4], "big")
    if found != magic:
        raise DataError(
            f"{path} begins with {found}, expected {magic} (MNIST's IDX format); unpack the data "
            "set again: make data"
        )
    return np.frombuffer(data, np.uint8, offset=header_bytes)
