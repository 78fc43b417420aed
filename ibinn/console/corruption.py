"""Images damaged on purpose, in five ways and five strengths.

An image is damaged after it was reduced to what the network looks at, so that a severity means
the same whatever the size of the original. S: side of the network's input in pixels.
"""

from __future__ import annotations

import math
from enum import StrEnum
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from ibinn.decoding import Limits, open_image
from ibinn.types import InputInfo

Pixels = npt.NDArray[np.uint8]

SEVERITIES = (0, 1, 2, 3, 4, 5)
"""0 leaves the image as it is."""

_SEED = 0
_NOISE = (0.02, 0.04, 0.07, 0.1, 0.15)  # standard deviation, share of the pixel range
_BLUR = (0.4, 0.6, 0.8, 1.1, 1.5)  # radius in pixels of an image of 32
_CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)  # share that is left
_JPEG = (60, 40, 25, 15, 8)  # quality
_ROTATION = (20.0, 45.0, 75.0, 120.0, 180.0)  # degrees about the grey axis


class Corruption(StrEnum):
    """How an image is damaged."""

    NOISE = "noise"
    """Gaussian noise on every value."""
    BLUR = "blur"
    """Gaussian blur."""
    CONTRAST = "contrast"
    """Values drawn towards their mean."""
    JPEG = "jpeg"
    """Strong JPEG compression."""
    COLOUR = "colour"
    """Colours rotated about the grey axis."""


NAMES = {
    Corruption.NOISE: "Gaussian noise",
    Corruption.BLUR: "Blur",
    Corruption.CONTRAST: "Less contrast",
    Corruption.JPEG: "JPEG compression",
    Corruption.COLOUR: "Rotated colours",
}


def strength(corruption: Corruption, severity: int) -> str:
    """What a severity means, in words and units.

    >>> strength(Corruption.JPEG, 5)
    'quality 8'
    """
    if severity == 0:
        return "as it is"
    at = severity - 1
    match corruption:
        case Corruption.NOISE:
            return f"σ = {_NOISE[at]:g} of the pixel range"
        case Corruption.BLUR:
            return f"radius {_BLUR[at] / 32:.1%} of the side"
        case Corruption.CONTRAST:
            return f"{_CONTRAST[at]:.0%} of the contrast left"
        case Corruption.JPEG:
            return f"quality {_JPEG[at]}"
        case Corruption.COLOUR:
            return f"by {_ROTATION[at]:g}° about grey"


def reduced(data: bytes, seen: InputInfo, side: int, *, limits: Limits) -> Pixels:
    """What a network of this side looks at in an encoded image, uint8 (S, S, 3).

    Args:
        data: The encoded image.
        seen: What its answer says was looked at.
        side: S.
        limits: Of what is decoded.

    Raises:
        ImageError: The image does not decode here.
    """
    region = seen.region
    cut = open_image(data, limits).pixels[
        region.top : region.top + region.height, region.left : region.left + region.width
    ]
    if cut.shape[:2] == (side, side):
        return np.ascontiguousarray(cut)
    return np.asarray(Image.fromarray(cut).resize((side, side), Image.Resampling.BILINEAR))


def corrupted(pixels: Pixels, corruption: Corruption, severity: int) -> Pixels:
    """An image damaged; the same every time.

    Args:
        pixels: uint8 (S, S, 3).
        corruption: How.
        severity: Of `SEVERITIES`.
    """
    if severity == 0:
        return pixels
    at = severity - 1
    match corruption:
        case Corruption.NOISE:
            noise = np.random.default_rng(_SEED).normal(0.0, 255 * _NOISE[at], pixels.shape)
            return _eight_bits(pixels + noise)
        case Corruption.BLUR:
            blur = ImageFilter.GaussianBlur(_BLUR[at] * pixels.shape[0] / 32)
            return np.asarray(Image.fromarray(pixels).filter(blur))
        case Corruption.CONTRAST:
            mean = pixels.mean()
            return _eight_bits(mean + _CONTRAST[at] * (pixels - mean))
        case Corruption.JPEG:
            buffer = BytesIO()
            Image.fromarray(pixels).save(buffer, format="JPEG", quality=_JPEG[at])
            return np.asarray(Image.open(buffer).convert("RGB"))
        case Corruption.COLOUR:
            turn = _about_grey(math.radians(_ROTATION[at]))
            return _eight_bits((pixels - 127.5) @ turn.T + 127.5)


def _about_grey(angle: float) -> npt.NDArray[np.float64]:
    """The rotation by an angle in radians about (1, 1, 1)/√3 (Rodrigues)."""
    off = math.sin(angle) / math.sqrt(3.0)
    cross = off * np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    along = np.full((3, 3), (1.0 - math.cos(angle)) / 3.0)
    turn: npt.NDArray[np.float64] = math.cos(angle) * np.eye(3) + cross + along
    return turn


def _eight_bits(values: npt.NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
