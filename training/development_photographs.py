"""Development sets that are near to what the model knows: photographs, and known images rearranged.

See `training.development_sets`. Every image is a function of (seed, index).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from training.ood_sets import FULL_COUNT, Images, LazyImages, OodSet, Pixels, choose

_PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "camera",
    "cat",
    "cell",
    "checkerboard",
    "clock",
    "coffee",
    "coins",
    "colorwheel",
    "grass",
    "gravel",
    "horse",
    "hubble_deep_field",
    "immunohistochemistry",
    "microaneurysms",
    "moon",
    "page",
    "rocket",
    "text",
)
"""Pictures that come inside of scikit-image."""


def photographs(*, side: int, count: int = FULL_COUNT, seed: int = 0) -> OodSet | None:
    """Square crops of scikit-image's pictures, resized; None where that is not installed."""
    try:
        pictures = _pictures()
    except ImportError:
        return None

    def make(index: int) -> Pixels:
        rng = np.random.default_rng([seed, 11, index])
        picture = pictures[int(rng.integers(len(pictures)))]
        height, width = picture.shape[:2]
        length = max(8, int(min(height, width) * rng.uniform(0.2, 1.0)))
        top = int(rng.integers(0, height - length + 1))
        left = int(rng.integers(0, width - length + 1))
        crop = Image.fromarray(picture[top : top + length, left : left + length])
        return np.asarray(crop.resize((side, side), Image.Resampling.BOX))

    return OodSet(
        name="dev-photographs",
        description="Crops of scikit-image's pictures: portraits, textures, text, sky, cells.",
        images=LazyImages(count=count, make=make),
    )


def mosaics(images: Images, *, side: int, count: int = FULL_COUNT, seed: int = 0) -> OodSet:
    """Four quarters, each cut from another validation image."""
    half = side // 2

    def make(index: int) -> Pixels:
        rng = np.random.default_rng([seed, 12, index])
        mosaic = np.empty((side, side, 3), np.uint8)
        for top, left in ((0, 0), (0, half), (half, 0), (half, half)):
            pixels = np.asarray(images[int(rng.integers(len(images)))])
            y, x = rng.integers(0, half + 1, size=2)
            mosaic[top : top + half, left : left + half] = pixels[y : y + half, x : x + half]
        return mosaic

    return OodSet(
        name="dev-mosaics",
        description="Four quarters of different validation images put together.",
        images=LazyImages(count=count, make=make),
    )


def turned(images: Images, *, count: int = FULL_COUNT, seed: int = 0) -> OodSet:
    """Validation images upside down, or with rows and columns exchanged."""
    chosen = choose(len(images), count, seed=seed)

    def make(index: int) -> Pixels:
        pixels = np.asarray(images[chosen[index]])
        other = np.rot90(pixels, 2) if index % 2 else pixels.transpose(1, 0, 2)
        return np.ascontiguousarray(other)

    return OodSet(
        name="dev-turned",
        description="Validation images turned upside down or mirrored about the diagonal.",
        images=LazyImages(count=len(chosen), make=make),
    )


def enlarged(images: Images, *, side: int, count: int = FULL_COUNT, seed: int = 0) -> OodSet:
    """A part of 0.38 to 0.6 of a validation image's side, enlarged to the whole."""
    chosen = choose(len(images), count, seed=seed)

    def make(index: int) -> Pixels:
        rng = np.random.default_rng([seed, 14, index])
        pixels = np.asarray(images[chosen[index]])
        length = max(2, int(side * rng.uniform(0.38, 0.6)))
        top, left = rng.integers(0, side - length + 1, size=2)
        part = Image.fromarray(pixels[top : top + length, left : left + length])
        return np.asarray(part.resize((side, side), Image.Resampling.BICUBIC))

    return OodSet(
        name="dev-enlarged",
        description="Parts of validation images enlarged to the whole picture.",
        images=LazyImages(count=len(chosen), make=make),
    )


@cache
def _pictures() -> tuple[Pixels, ...]:
    from skimage import data

    found = []
    for name in _PHOTOGRAPHS:
        picture = np.asarray(getattr(data, name)())
        if picture.dtype == np.bool_:
            picture = picture.astype(np.uint8) * 255
        if picture.ndim == 2:
            picture = np.stack([picture] * 3, axis=2)
        found.append(np.ascontiguousarray(picture[..., :3], dtype=np.uint8))
    return tuple(found)
