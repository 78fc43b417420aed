"""Fifteen common corruptions at five severities, with the parameters of CIFAR-10-C and ImageNet-C.

Names and parameters are those of Hendrycks & Dietterich, *Benchmarking Neural Network Robustness
to Common Corruptions and Perturbations* (ICLR 2019). The images are not bit-identical with the
published ones: the operations are made of numpy, scipy and Pillow instead of OpenCV and
ImageMagick, values are rounded instead of truncated to 8 bits, and frost is drawn by the computer
instead of photographed.

Shapes: H, W rows and columns, any; images are uint8 (H, W, 3) outside, float64 in [0, 1] inside.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from PIL import Image

from ibinn.errors import ConfigError, DataError
from training import corruption_filters as filters
from training.ood_sets import Pixels, to_8_bit, unit

FloatArray = npt.NDArray[np.float64]
Parameters = tuple[float, ...]
Apply = Callable[[FloatArray, Parameters, np.random.Generator], FloatArray]

SEVERITIES = (1, 2, 3, 4, 5)

LARGE_SIDE_PX = 112
"""From this shorter side on, the parameters of ImageNet-C (224 px) hold; below, of CIFAR-10-C."""


class Family(StrEnum):
    """What kind of damage it is, as in the paper."""

    NOISE = "noise"
    BLUR = "blur"
    WEATHER = "weather"
    DIGITAL = "digital"


@dataclass(frozen=True, slots=True, kw_only=True)
class Corruption:
    """One corruption.

    Attributes:
        name: As published, such as ``gaussian_noise``.
        family: Kind of damage.
        small: Parameters of severities 1 to 5 for images of CIFAR's size.
        large: The same for images of ImageNet's size.
        apply: (image (H, W, 3) in [0, 1], parameters, source of randomness) -> image; values
            outside of [0, 1] are clipped afterwards.
    """

    name: str
    family: Family
    small: tuple[Parameters, ...]
    large: tuple[Parameters, ...]
    apply: Apply

    def parameters(self, height: int, width: int, severity: int) -> Parameters:
        """The parameters for images of this size."""
        table = self.large if min(height, width) >= LARGE_SIDE_PX else self.small
        return table[severity - 1]


def corrupt(pixels: Pixels, name: str, severity: int, *, seed: int) -> Pixels:
    """One image, damaged.

    The randomness is a function of `seed`, `name` and the image's content: a set of images can
    share a seed and still get a different draw each, and all severities share one draw.

    Args:
        pixels: uint8 (H, W, 3).
        name: A key of `CORRUPTIONS`.
        severity: 1 to 5.
        seed: At least 0.

    Returns:
        uint8 (H, W, 3), new memory.

    Raises:
        ConfigError: An unknown name or severity.
        DataError: `pixels` is not a uint8 image of three channels.

    >>> black = np.zeros((32, 32, 3), np.uint8)
    >>> int(corrupt(black, "brightness", 1, seed=0).max())
    13
    """
    corruption = CORRUPTIONS.get(name)
    if corruption is None:
        raise ConfigError(f"corruption is {name!r}; expected one of {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ConfigError(f"severity is {severity!r}; expected an integer 1 to 5")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise DataError(
            f"image is {pixels.dtype} of shape {pixels.shape}; expected uint8 (height, width, 3)"
        )
    content = zlib.crc32(pixels.tobytes())
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), content])
    height, width, _ = pixels.shape
    parameters = corruption.parameters(height, width, severity)
    return to_8_bit(corruption.apply(unit(pixels), parameters, rng))


def _gaussian_noise(image: FloatArray, p: Parameters, rng: np.random.Generator) -> FloatArray:
    (sigma,) = p
    return image + sigma * rng.standard_normal(image.shape)


def _shot_noise(image: FloatArray, p: Parameters, rng: np.random.Generator) -> FloatArray:
    (photons,) = p
    return rng.poisson(image * photons) / photons


def _impulse_noise(image: FloatArray, p: Parameters, rng: np.random.Generator) -> FloatArray:
    (share,) = p
    struck = rng.random(image.shape)
    extremes = rng.integers(0, 2, size=image.shape).astype(np.float64)
    return np.where(struck < share, extremes, image)


def _defocus_blur(image: FloatArray, p: Parameters, rng: np.random.Generator) -> FloatArray:
    radius, softness = p
    return filters.convolve(image, filters.disk_kernel(radius, softness))


def _glass_blur(image: FloatArray, p: Parameters, rng: np.random.Generator) -> FloatArray:
    sigma, reach, rounds = p
    soft = filters.gaussian_blur(image, sigma)
    swapped = filters.glass(soft, reach_px=int(reach), rounds=int(rounds), rng=rng)
    return filters.gaussian_blur(swapped, sigma)


def _motion_blur(image: FloatArray, p: Parameters, rng: np.random.Generator) -> FloatArray:
    radius, sigma = p
    angle = float(rng.uniform(-45, 45))
    return filters.motion_blur(image, radius_px=int(radius), sigma_px=sigma, angle_deg=angle)


def _zoom_blur(image: FloatArray, p: Parameters, rng: np.random.Generator) -> FloatArray:
    largest, step = p
    factors = 1.0 + step * np.arange(round((largest - 1.0) / step) + 1)
    zoomed = [filters.zoom(image, float(factor)) for factor in factors]
    return (image + np.sum(zoomed, axis=0)) / (len(factors) + 1)


def _snow(image: FloatArray, p: Parameters, rng: np.random.Generator) -> FloatArray:
    mean, spread, size, threshold, radius, sigma, keep = p
    flakes = filters.zoom(rng.normal(mean, spread, size=image.shape[:2]), size)
    flakes = np.clip(np.where(flakes < threshold, 0.0, flakes), 0.0, 1.0)
    angle = float(rng.uniform(-135, -45))
    layer = filters.motion_blur(flakes, radius_px=int(radius), sigma_px=sigma, angle_deg=angle)
    grey = image @ np.array([0.299, 0.587, 0.114])
    whitened = np.maximum(image, (1.5 * grey + 0.5)[:, :, None])
    pale = keep * image + (1 - keep) * whitened
    return pale + (layer + np.rot90(layer, 2))[:, :, None]


def _frost(image: FloatArray, p: Parameters, rng: np.random.Generator) -> FloatArray:
    keep, weight = p
    height, width, _ = image.shape
    return keep * image + weight * filters.frost_texture(height, width, rng)


def _fog(image: FloatArray, p: Parameters, rng: np.random.Generator) -> FloatArray:
    weight, decay = p
    brightest = float(image.max())
    height, width, _ = image.shape
    thick = image + weight * filters.plasma(height, width, decay, rng)[:, :, None]
    return thick * brightest / (brightest + weight)


def _brightness(image: FloatArray, p: Parameters, rng: np.random.Generator) -> FloatArray:
    """HSV's value raised by the shift: RGB is proportional to it at fixed hue and saturation."""
    (shift,) = p
    value = image.max(axis=2, keepdims=True)
    raised = np.minimum(value + shift, 1.0)
    return np.where(value > 0, image * raised / np.maximum(value, 1e-12), raised)


def _contrast(image: FloatArray, p: Parameters, rng: np.random.Generator) -> FloatArray:
    (factor,) = p
    mean = image.mean(axis=(0, 1), keepdims=True)
    return mean + factor * (image - mean)


def _elastic_transform(image: FloatArray, p: Parameters, rng: np.random.Generator) -> FloatArray:
    height, width, _ = image.shape
    strength, smoothness, jolt = (share * min(height, width) for share in p)
    jolted = filters.warp(image, *filters.jolted_positions(height, width, jolt, rng))
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    down, right = (
        strength * filters.smooth_displacement(height, width, smoothness, rng) for _ in range(2)
    )
    return filters.warp(jolted, rows + down, columns + right)


def _pixelate(image: FloatArray, p: Parameters, rng: np.random.Generator) -> FloatArray:
    (share,) = p
    height, width, _ = image.shape
    whole = Image.fromarray(to_8_bit(image))
    size = (max(1, int(width * share)), max(1, int(height * share)))
    coarse = whole.resize(size, Image.Resampling.BOX)
    return unit(np.asarray(coarse.resize((width, height), Image.Resampling.BOX)))


def _jpeg_compression(image: FloatArray, p: Parameters, rng: np.random.Generator) -> FloatArray:
    (quality,) = p
    buffer = BytesIO()
    Image.fromarray(to_8_bit(image)).save(
        buffer, format="JPEG", quality=int(quality), subsampling="4:2:0"
    )
    with Image.open(buffer, formats=("JPEG",)) as read:
        return unit(np.asarray(read))


def _each(*values: float) -> tuple[Parameters, ...]:
    return tuple((value,) for value in values)


# ImageNet-C states its elastic lengths in multiples of 244 px for images of 224.
_WIDER = 244 / 224

_ALL = (
    Corruption(
        name="gaussian_noise",
        family=Family.NOISE,
        small=_each(0.04, 0.06, 0.08, 0.09, 0.10),
        large=_each(0.08, 0.12, 0.18, 0.26, 0.38),
        apply=_gaussian_noise,
    ),
    Corruption(
        name="shot_noise",
        family=Family.NOISE,
        small=_each(500, 250, 100, 75, 50),
        large=_each(60, 25, 12, 5, 3),
        apply=_shot_noise,
    ),
    Corruption(
        name="impulse_noise",
        family=Family.NOISE,
        small=_each(0.01, 0.02, 0.03, 0.05, 0.07),
        large=_each(0.03, 0.06, 0.09, 0.17, 0.27),
        apply=_impulse_noise,
    ),
    Corruption(
        name="defocus_blur",
        family=Family.BLUR,
        small=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        large=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        apply=_defocus_blur,
    ),
    Corruption(
        name="glass_blur",
        family=Family.BLUR,
        small=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        large=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        apply=_glass_blur,
    ),
    Corruption(
        name="motion_blur",
        family=Family.BLUR,
        small=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        large=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        apply=_motion_blur,
    ),
    Corruption(
        name="zoom_blur",
        family=Family.BLUR,
        small=((1.06, 0.01), (1.11, 0.01), (1.15, 0.01), (1.20, 0.01), (1.25, 0.01)),
        large=((1.11, 0.01), (1.15, 0.01), (1.20, 0.02), (1.24, 0.02), (1.30, 0.03)),
        apply=_zoom_blur,
    ),
    Corruption(
        name="snow",
        family=Family.WEATHER,
        small=(
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        large=(
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        apply=_snow,
    ),
    Corruption(
        name="frost",
        family=Family.WEATHER,
        small=((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        large=((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        apply=_frost,
    ),
    Corruption(
        name="fog",
        family=Family.WEATHER,
        small=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        large=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        apply=_fog,
    ),
    Corruption(
        name="brightness",
        family=Family.WEATHER,
        small=_each(0.05, 0.1, 0.15, 0.2, 0.3),
        large=_each(0.1, 0.2, 0.3, 0.4, 0.5),
        apply=_brightness,
    ),
    Corruption(
        name="contrast",
        family=Family.DIGITAL,
        small=_each(0.75, 0.5, 0.4, 0.3, 0.15),
        large=_each(0.4, 0.3, 0.2, 0.1, 0.05),
        apply=_contrast,
    ),
    Corruption(
        name="elastic_transform",
        family=Family.DIGITAL,
        small=(
            (0, 0, 0.08),
            (0.05, 0.2, 0.07),
            (0.08, 0.06, 0.06),
            (0.1, 0.04, 0.05),
            (0.1, 0.03, 0.03),
        ),
        large=(
            (2 * _WIDER, 0.7 * _WIDER, 0.1 * _WIDER),
            (2 * _WIDER, 0.08 * _WIDER, 0.2 * _WIDER),
            (0.05 * _WIDER, 0.01 * _WIDER, 0.02 * _WIDER),
            (0.07 * _WIDER, 0.01 * _WIDER, 0.02 * _WIDER),
            (0.12 * _WIDER, 0.01 * _WIDER, 0.02 * _WIDER),
        ),
        apply=_elastic_transform,
    ),
    Corruption(
        name="pixelate",
        family=Family.DIGITAL,
        small=_each(0.95, 0.9, 0.85, 0.75, 0.65),
        large=_each(0.6, 0.5, 0.4, 0.3, 0.25),
        apply=_pixelate,
    ),
    Corruption(
        name="jpeg_compression",
        family=Family.DIGITAL,
        small=_each(80, 65, 58, 50, 40),
        large=_each(25, 18, 15, 10, 7),
        apply=_jpeg_compression,
    ),
)

CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType({c.name: c for c in _ALL})
"""The fifteen, in the order of the paper's tables."""
