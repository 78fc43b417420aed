"""How an answer changes while an image is corrupted more and more (figure 5.13).

Shapes: N strengths, K classes, H and W sides of an image in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from ibinn.images import Pixels
from ibinn.trusted import TrustedClassifier

FloatArray = npt.NDArray[np.float64]
Corrupt = Callable[[Pixels, float], Pixels]
"""(uint8 (H, W, 3), strength at least 0) -> uint8 (H, W, 3); strength 0 changes nothing."""

_NOISE_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trajectory:
    """The answers along the way.

    Attributes:
        strengths: (N,), ascending.
        combined_p: p-value of the combined test (N,); NaN where not assessed.
        confidence: Largest calibrated probability (N,).
        first_class_probability: Probability of the class that was most probable at first (N,).
        entropy: Of the calibrated posterior, nats (N,).
        bits_per_dim: (N,).
        top: Position of the most probable class (N,).
    """

    strengths: FloatArray
    combined_p: FloatArray
    confidence: FloatArray
    first_class_probability: FloatArray
    entropy: FloatArray
    bits_per_dim: FloatArray
    top: npt.NDArray[np.int64]


def trajectory(
    classifier: TrustedClassifier,
    image: Pixels,
    corrupt: Corrupt,
    strengths: Sequence[float],
) -> Trajectory:
    """Answers for one image at growing strengths of a corruption, in one forward pass.

    Args:
        classifier: Calibrated, or every p-value is NaN.
        image: uint8 (H, W, 3), before the preprocessing.
        corrupt: Such as one of `CORRUPTIONS`.
        strengths: Ascending, the first one usually 0.
    """
    steps = classifier.preprocessing
    fit = steps.fit_size(image)
    pixels = np.stack([steps.finish(corrupt(fit, strength)) for strength in strengths])
    scores = classifier.score(pixels)
    p = scores.probabilities
    return Trajectory(
        strengths=np.asarray(strengths, dtype=np.float64),
        combined_p=scores.combined_p,
        confidence=p.max(axis=1),
        first_class_probability=p[:, int(p[0].argmax())],
        entropy=-(p * np.log(np.maximum(p, 1e-300))).sum(axis=1),
        bits_per_dim=scores.bits_per_dim,
        top=p.argmax(axis=1),
    )


def add_noise(image: Pixels, strength: float) -> Pixels:
    """Gaussian noise of σ = strength x 255 levels; the same pattern at every strength."""
    pattern = np.random.default_rng(_NOISE_SEED).standard_normal(image.shape)
    return _eight_bit(image + 255.0 * strength * pattern)


def blur(image: Pixels, strength: float) -> Pixels:
    """Gaussian blur of σ = strength pixels."""
    if strength == 0:
        return image
    return np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(strength)))


def rotate(image: Pixels, strength: float) -> Pixels:
    """Rotation by `strength` degrees about the centre; corners are filled by reflection."""
    if strength == 0:
        return image
    height, width, _ = image.shape
    padded = np.pad(image, ((height // 2,) * 2, (width // 2,) * 2, (0, 0)), mode="symmetric")
    turned = np.asarray(Image.fromarray(padded).rotate(strength, Image.Resampling.BILINEAR))
    top, left = height // 2, width // 2
    return np.ascontiguousarray(turned[top : top + height, left : left + width])


def fade(image: Pixels, strength: float) -> Pixels:
    """Contrast lowered towards the image's mean colour: (1 - strength) of it is left."""
    mean = image.mean(axis=(0, 1))
    return _eight_bit(mean + (1.0 - strength) * (image - mean))


CORRUPTIONS: Mapping[str, Corrupt] = MappingProxyType(
    {"noise": add_noise, "blur": blur, "rotation": rotate, "contrast": fade}
)
"""Corruptions by name, each with a strength in its own unit."""


def _eight_bit(values: npt.NDArray[np.floating]) -> Pixels:
    pixels: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels
