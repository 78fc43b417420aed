"""The out-of-distribution sets that a report states miss rates on (science: section 5).

Shapes: N images, h, w rows and columns of an 8-bit RGB image. Every image is a function of
(seed, its index) alone, so a set does not depend on the order in which it is read, and passes
afterwards through the bundle's own preprocessing like every other image.

Statistics are chosen on other images than these: see `training.development_sets`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from ibinn.errors import DataError
from training import imagenet_names
from training.tiny_imagenet_overlap import CIFAR_OVERLAP

Pixels = npt.NDArray[np.uint8]
FULL_COUNT = 3_000


class Images(Protocol):
    """A sequence of uint8 images (h, w, 3): an array (N, h, w, 3), a list, or `LazyImages`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LazyImages:
    """Images made when they are asked for.

    Attributes:
        count: Number of images.
        make: Index in [0, count) -> uint8 (h, w, 3), the same for every call.
    """

    count: int
    make: Callable[[int], Pixels]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Pixels:
        if not 0 <= index < self.count:
            raise IndexError(f"image {index} of a set of {self.count}")
        return self.make(index)


@dataclass(frozen=True, slots=True, kw_only=True)
class OodSet:
    """Images that the model has no class for, or that are damaged.

    Attributes:
        name: Short name, such as ``rotation``; the key in reports.
        description: How the images were made, in one or two sentences.
        images: uint8 (h, w, 3) each, before the preprocessing unless `finished`.
        finished: True if the images already went through the bundle's preprocessing.
        caveat: What a reader of its figures must know; empty if nothing.
        barred: False if no bar is set on this set (it is reported only).
    """

    name: str
    description: str
    images: Images
    finished: bool = False
    caveat: str = ""
    barred: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A set that could not be made, and why; the report says so."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OodCollection:
    """What there is to report on."""

    sets: tuple[OodSet, ...]
    left_out: tuple[LeftOut, ...]


def report_sets(
    test_images: Images,
    *,
    side: int,
    mnist: Path | None = None,
    tiny_imagenet: Path | None = None,
    class_names: Sequence[str] = (),
    count: int = FULL_COUNT,
    seed: int = 0,
) -> OodCollection:
    """Every set of science section 5 that can be made here.

    Args:
        test_images: The model's test images at its input size, uint8 (side, side, 3) each.
        side: The model's input side in pixels.
        mnist: Root of torchvision's MNIST layout (``MNIST/raw/...`` inside).
        tiny_imagenet: Root of Tiny ImageNet (``val/<wnid>/*.JPEG`` inside).
        class_names: The model's classes; Tiny ImageNet classes of the same name are left out.
        count: Images per set; sets made from test images hold at most one per test image.
        seed: Seed of every choice.

    Returns:
        The sets in reporting order, and what was left out with the reason.
    """
    left_out: list[LeftOut] = []
    sets = [
        rotated_colours(test_images, count=count, seed=seed),
        noisy(test_images, sigma=0.1, count=count, seed=seed),
        noisy(test_images, sigma=0.015, count=count, seed=seed),
    ]
    try:
        if mnist is None:
            raise DataError("no MNIST directory was given")
        digits = mnist_digits(mnist)
        name, source = "digits", "MNIST test digits"
    except DataError as error:
        left_out.append(
            LeftOut(name="digits", reason=f"{error}; scikit-learn's 8×8 digits stand in for it")
        )
        digits = sklearn_digits()
        name, source = "digits-8x8", "scikit-learn's 8×8 digits, enlarged to 28×28"
    known = {str(digit) for digit in range(10)} & set(class_names)
    caveat = "The model's own classes, in colours that it has not seen." if known else ""
    sets.append(
        coloured_digits(digits, name=name, source=source, caveat=caveat, count=count, seed=seed)
    )
    try:
        if tiny_imagenet is None:
            raise DataError("no Tiny ImageNet directory was given")
        sets.append(
            tiny_imagenet_set(
                tiny_imagenet, side=side, class_names=class_names, count=count, seed=seed
            )
        )
    except DataError as error:
        left_out.append(LeftOut(name="tiny-imagenet", reason=str(error)))
    return OodCollection(sets=tuple(sets), left_out=tuple(left_out))


def rotation_matrix() -> npt.NDArray[np.float64]:
    """R_x(0.2 pi 0.35^0.7) R_y(pi 0.35^1.2), (3, 3), acting on RGB column vectors."""
    a = 0.2 * np.pi * 0.35**0.7
    b = np.pi * 0.35**1.2
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, np.cos(a), -np.sin(a)], [0.0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0.0, np.sin(b)], [0.0, 1.0, 0.0], [-np.sin(b), 0.0, np.cos(b)]])
    return about_x @ about_y


def rotated_colours(images: Images, *, count: int = FULL_COUNT, seed: int = 0) -> OodSet:
    """RGB vectors v -> clip(R (v - 1/2) + 1/2), with R of `rotation_matrix` and v in [0, 1]."""
    rotation = rotation_matrix()
    chosen = choose(len(images), count, seed=seed)

    def make(index: int) -> Pixels:
        return to_8_bit((unit(images[chosen[index]]) - 0.5) @ rotation.T + 0.5)

    return OodSet(
        name="rotation",
        description="Test images whose RGB vectors are rotated about mid-grey by one fixed "
        "matrix, clipped, rounded to 8 bits.",
        images=LazyImages(count=len(chosen), make=make),
    )


def noisy(images: Images, *, sigma: float, count: int = FULL_COUNT, seed: int = 0) -> OodSet:
    """Gaussian noise added to test images: clip(v + sigma n), n ~ N(0, 1) per value.

    Args:
        images: uint8 (h, w, 3) each.
        sigma: Standard deviation in units of the pixel range [0, 1].
        count: At most this many images.
        seed: Seed of the choice and of the noise.

    Returns:
        The set ``noise-<sigma>``.
    """
    chosen = choose(len(images), count, seed=seed)

    def make(index: int) -> Pixels:
        values = unit(images[chosen[index]])
        noise = np.random.default_rng([seed, round(sigma * 1e6), index])
        return to_8_bit(values + sigma * noise.standard_normal(values.shape))

    faint = sigma < 0.05
    return OodSet(
        name=f"noise-{sigma:g}",
        description=f"Test images with Gaussian noise of standard deviation {sigma:g} of the "
        "pixel range, clipped, rounded to 8 bits.",
        images=LazyImages(count=len(chosen), make=make),
        caveat=(
            f"A standard deviation of {255 * sigma:.1f} grey levels is near what rounding and "
            "compression leave of an image; a JPEG step, where there is one, erases most of it. "
            "No bar is set."
            if faint
            else ""
        ),
        barred=not faint,
    )


def coloured_digits(
    digits: Pixels,
    *,
    name: str,
    source: str,
    caveat: str = "",
    count: int = FULL_COUNT,
    seed: int = 0,
) -> OodSet:
    """Digits drawn in one random colour on white: 1 - m c, c ~ U(0.3, 1)^3, margin 2 px.

    Args:
        digits: uint8 (M, 28, 28), 255 where the pen was. Used in turn if M < count.
        name: Name of the set.
        source: Where the digits come from, in words.
        caveat: As in `OodSet`.
        count: Number of images.
        seed: Seed of the colours.

    Returns:
        A set of 32x32 images.
    """

    def make(index: int) -> Pixels:
        ink = 0.3 + 0.7 * np.random.default_rng([seed, index]).random(3)
        mask = np.pad(unit(digits[index % len(digits)]), 2)
        return to_8_bit(1.0 - mask[..., None] * ink)

    return OodSet(
        name=name,
        description=f"{source}, each in one random colour on white, with a margin to 32×32.",
        images=LazyImages(count=count, make=make),
        caveat=caveat,
    )


def mnist_digits(root: Path) -> Pixels:
    """The MNIST test digits under `root`, uint8 (M, 28, 28).

    Raises:
        DataError: The file is absent or is not an IDX file of 28x28 images.
    """
    path = root / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"MNIST test images not found: {path} ({error.strerror})") from error
    header = np.frombuffer(data[:16], dtype=">i4")
    if len(header) < 4 or header[0] != 2051 or tuple(header[2:]) != (28, 28):
        raise DataError(f"{path} is not an IDX file of 28x28 images (magic number 2051)")
    pixels = np.frombuffer(data, dtype=np.uint8, offset=16)
    # Data sets are shipped shortened: the file then holds fewer images than its header says.
    whole = pixels[: len(pixels) // 784 * 784].reshape(-1, 28, 28)
    if not len(whole):
        raise DataError(f"{path} holds no image")
    return whole


def sklearn_digits() -> Pixels:
    """scikit-learn's 1,797 digits, enlarged from 8x8 to uint8 (1797, 28, 28)."""
    from sklearn.datasets import load_digits

    small = np.asarray(load_digits().images)
    enlarged = [
        np.asarray(
            Image.fromarray(to_8_bit(digit / 16.0)).resize((28, 28), Image.Resampling.BICUBIC)
        )
        for digit in small
    ]
    return np.stack(enlarged)


def tiny_imagenet_set(
    root: Path,
    *,
    side: int,
    class_names: Sequence[str] = (),
    count: int = FULL_COUNT,
    seed: int = 0,
) -> OodSet:
    """Validation images of Tiny ImageNet without the classes that overlap CIFAR or the model's.

    Args:
        root: Holds ``val/<wnid>/*.JPEG`` and, for names, ``classes.json``.
        side: Images (64x64) are reduced to this side by averaging (BOX) if it is smaller.
        class_names: The model's own classes.
        count: Number of images, drawn without repetition.
        seed: Seed of the draw.

    Raises:
        DataError: There are no such images.
    """
    val = root / "val"
    if not val.is_dir():
        raise DataError(f"Tiny ImageNet validation images not found: {val} is not a folder")
    own = wnids_named(root / "classes.json", class_names) | _imagenet_wnids(class_names)
    folders = [folder for folder in val.iterdir() if folder.is_dir()]
    paths = sorted(
        path
        for folder in folders
        if folder.name not in CIFAR_OVERLAP and folder.name not in own
        for path in folder.glob("*.JPEG")
    )
    if not paths:
        what = (
            f"each of its {len(folders)} classes is one of the model's or shows a CIFAR class"
            if folders
            else f"no image val/<wnid>/*.JPEG under {root}"
        )
        raise DataError(f"Tiny ImageNet: {what}")
    chosen = choose(len(paths), count, seed=seed)

    def make(index: int) -> Pixels:
        with Image.open(paths[chosen[index]], formats=("JPEG",)) as image:
            rgb = image.convert("RGB")
        if side < min(rgb.size):
            rgb = rgb.resize((side, side), Image.Resampling.BOX)
        return np.asarray(rgb)

    excluded = len(CIFAR_OVERLAP) + len(own - CIFAR_OVERLAP.keys())
    return OodSet(
        name="tiny-imagenet",
        description=f"Tiny ImageNet validation images without the {excluded} classes that show "
        "a CIFAR class or one of the model's, averaged down to the model's input size.",
        images=LazyImages(count=len(chosen), make=make),
    )


def _imagenet_wnids(class_names: Sequence[str]) -> frozenset[str]:
    """WordNet ids whose class, as `training.imagenet_names` calls it, is one of `class_names`."""
    wanted = set(class_names)
    named = zip(imagenet_names.wordnet_ids(), imagenet_names.class_names(), strict=True)
    return frozenset(wnid for wnid, name in named if name in wanted)


def wnids_named(classes_json: Path, class_names: Sequence[str]) -> frozenset[str]:
    """WordNet ids that are, or whose words contain, one of `class_names` (any case)."""
    wanted = {name.casefold() for name in class_names}
    words = json.loads(classes_json.read_text("utf-8")) if classes_json.is_file() else {}
    named = {
        wnid
        for wnid, text in words.items()
        if wanted & {wnid, *(word.strip().casefold() for word in text.split(","))}
    }
    return frozenset(named | {name for name in wanted if re.fullmatch(r"n\d{8}", name)})


def choose(available: int, count: int, *, seed: int) -> list[int]:
    """`count` indices below `available` without repetition, ascending; all if there are fewer.

    Raises:
        DataError: There is nothing to choose from.
    """
    if available == 0:
        raise DataError("an out-of-distribution set needs at least one image to start from, got 0")
    if available <= count:
        return list(range(available))
    drawn = np.random.default_rng(seed).choice(available, size=count, replace=False)
    return [int(index) for index in np.sort(drawn)]


def unit(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """8-bit values as numbers in [0, 1]: k / 255."""
    return np.asarray(pixels, dtype=np.float64) / 255.0


def to_8_bit(values: npt.NDArray[np.float64]) -> Pixels:
    """Values in units of the pixel range, clipped to [0, 1] and rounded to 8 bits."""
    return np.rint(255.0 * np.clip(values, 0.0, 1.0)).astype(np.uint8)
