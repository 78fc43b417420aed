"""Random variations of training images, before the JPEG step.

Written with Pillow and numpy because every variation must be a function of the generator that
is passed in: torchvision's and timm's random transforms draw from global generators, which
would tie a run's images to its number of worker processes. Corners that a shift or a rotation
uncovers are filled by reflection: constant pixels break a density.

Shapes: S x S pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from ibinn.errors import ConfigError
from training.image_set import Pixels

_TRIES = 10
_LOG_RATIO = math.log(4 / 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    """Which variations to draw; all are off by default.

    Attributes:
        crop_padding: Shift by up to this many pixels in each direction.
        flip: Mirror left and right with probability 1/2.
        color_jitter: Factors of brightness, contrast and saturation from [1 - j, 1 + j].
        rotation_degrees: Rotate by an angle from [-r, r].
        random_resized_crop_min: Cut a rectangle whose area is at least this share of the whole
            image (aspect ratio 3/4 ... 4/3) out of the original and resize it; 1 is off.

    Raises:
        ConfigError: A value is out of range.
    """

    crop_padding: int = 0
    flip: bool = False
    color_jitter: float = 0.0
    rotation_degrees: float = 0.0
    random_resized_crop_min: float = 1.0

    def __post_init__(self) -> None:
        _check("crop_padding", self.crop_padding, 0, 1024)
        _check("color_jitter", self.color_jitter, 0, 1)
        _check("rotation_degrees", self.rotation_degrees, 0, 180)
        _check("random_resized_crop_min", self.random_resized_crop_min, 0.01, 1)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"augmentation {name} is {value!r}; expected {low:g} to {high:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle in an image, in pixels; fractions are meant."""

    left: float
    top: float
    width: float
    height: float


def draw_box(size: tuple[int, int], smallest: float, rng: np.random.Generator) -> Box:
    """Where to cut an image: an area from U(smallest, 1), a log-uniform aspect ratio.

    Of ten draws the first that fits into the image is taken, else the largest centred rectangle
    whose ratio is in range, as is usual for ImageNet (Szegedy et al. 2015).

    Args:
        size: Height and width of the image in pixels.
        smallest: Least share of its area, in (0, 1].
        rng: Where to draw from.
    """
    height, width = size
    for _ in range(_TRIES):
        area = rng.uniform(smallest, 1.0) * height * width
        ratio = math.exp(rng.uniform(-_LOG_RATIO, _LOG_RATIO))
        wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if wide <= width and high <= height:
            left, top = rng.uniform(0, width - wide), rng.uniform(0, height - high)
            return Box(left=left, top=top, width=wide, height=high)
    wide, high = min(width, height * 4 / 3), min(height, width * 4 / 3)
    return Box(left=(width - wide) / 2, top=(height - high) / 2, width=wide, height=high)


def reduction(box: Box, side: int) -> int:
    """By how much an original may be reduced while it is decoded, 1, 2, 4 or 8.

    The cut is still twice as large as the result then, so that the filter of the resize, and not
    the decoder's, decides what is seen: training images must not differ from served ones.
    """
    spare = min(box.width, box.height) / (2 * side)
    return next((factor for factor in (8, 4, 2) if spare >= factor), 1)


def cut(
    pixels: Pixels,
    box: Box,
    side: int,
    *,
    size: tuple[int, int],
    interpolation: Image.Resampling = Image.Resampling.BILINEAR,
) -> Pixels:
    """A rectangle of an image, resized to a square.

    Args:
        pixels: uint8 (h, w, 3), the image or a reduced form of it.
        box: The rectangle, in pixels of the whole image.
        side: S of the result.
        size: Height and width of the whole image.
        interpolation: Filter; it averages when it shrinks.

    Returns:
        uint8 (S, S, 3).
    """
    height, width = pixels.shape[:2]
    # Reduced sides are rounded up; the factor itself is whole.
    factor = max(1, round(size[1] / width), round(size[0] / height))
    left, top = box.left / factor, box.top / factor
    image = Image.fromarray(pixels).resize(
        (side, side),
        interpolation,
        box=(
            left,
            top,
            min(left + box.width / factor, width),
            min(top + box.height / factor, height),
        ),
    )
    return np.asarray(image)


def augment(pixels: Pixels, config: AugmentConfig, rng: np.random.Generator) -> Pixels:
    """One random variation of a square image, the resized crop included.

    Args:
        pixels: uint8 (S, S, 3); not written to.
        config: What to draw.
        rng: Where to draw from; what is switched off draws nothing.

    Returns:
        uint8 (S, S, 3).
    """
    if config.random_resized_crop_min < 1:
        size = (len(pixels), len(pixels))
        box = draw_box(size, config.random_resized_crop_min, rng)
        pixels = cut(pixels, box, len(pixels), size=size)
    return vary(pixels, config, rng)


def vary(pixels: Pixels, config: AugmentConfig, rng: np.random.Generator) -> Pixels:
    """`augment` without the resized crop, which is cut out of the original.

    Args:
        pixels: uint8 (S, S, 3); not written to.
        config: What to draw.
        rng: Where to draw from; what is switched off draws nothing.

    Returns:
        uint8 (S, S, 3).
    """
    side = len(pixels)
    if config.rotation_degrees > 0:
        angle = rng.uniform(-config.rotation_degrees, config.rotation_degrees)
        pixels = _rotate(pixels, angle)
    if config.crop_padding > 0 or config.flip:
        down, right, mirror = rng.random(3).tolist()
        index = _reflected(side, config.crop_padding)
        shifts = 2 * config.crop_padding + 1
        top, left = int(down * shifts), int(right * shifts)
        columns = index[left : left + side]
        if config.flip and mirror < 0.5:
            columns = columns[::-1]
        # Two takes are four times as fast as one two-dimensional index.
        pixels = pixels.take(index[top : top + side], axis=0).take(columns, axis=1)
    if config.color_jitter > 0:
        pixels = _jitter(pixels, config.color_jitter, rng)
    return pixels


@lru_cache(maxsize=16)
def _reflected(side: int, padding: int) -> npt.NDArray[np.int64]:
    """Positions -padding ... side + padding - 1, reflected into 0 ... side - 1."""
    if side == 1:
        return np.zeros(1 + 2 * padding, np.int64)
    period = 2 * (side - 1)
    position = np.arange(-padding, side + padding) % period
    return np.minimum(position, period - position)


def _rotate(pixels: Pixels, angle: float) -> Pixels:
    side = len(pixels)
    # A square turned by 45 degrees reaches (sqrt(2) - 1)/2 of its side beyond itself.
    padding = math.ceil(side * 0.21) + 1
    index = _reflected(side, padding)
    image = Image.fromarray(pixels[index[:, None], index])
    turned = np.asarray(image.rotate(angle, Image.Resampling.BILINEAR))
    return turned[padding : padding + side, padding : padding + side]


def _jitter(pixels: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    factors = rng.uniform(1 - strength, 1 + strength, size=3)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    for enhancer, factor in zip(
        (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
    ):
        image = enhancer(image).enhance(float(factor))
    return np.asarray(image)
