"""Heatmaps drawn over images.

A heatmap's neutral value is its mean share, log q(y|x) / (H·W): red cells speak for the class
more than that, blue cells less. H and W are the heatmap's cells, S the side of the image in
pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

_FOR: Colour = (202, 24, 38)
_AGAINST: Colour = (24, 92, 190)


def deviations(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Q(k, l) - Σ Q / (H·W) in nats: what each cell adds beyond its even share.

    Args:
        values: Q, shape (H, W).
    """
    exact = np.asarray(values, dtype=np.float64)
    return exact - np.float64(exact.mean())


def overlay(
    image: Pixels,
    values: npt.NDArray[np.floating[Any]],
    *,
    scale: float | None = None,
    size: int = 224,
) -> Pixels:
    """The image in grey with the heatmap in colour over it, smoothly enlarged.

    Args:
        image: uint8 (S, S, 3), what the network saw.
        values: Heatmap in nats, (H, W), finite.
        scale: Deviation from the mean share, in nats, that gets the full colour; the largest
            of this heatmap if None. Give one scale to heatmaps that are to be compared.
        size: Side of the result in pixels.

    Returns:
        uint8 (size, size, 3).
    """
    off_neutral = deviations(values)
    if scale is None:
        scale = float(np.abs(off_neutral).max())
    if scale > 0:
        off_neutral = off_neutral / scale
    smooth = Image.fromarray(off_neutral.astype(np.float32)).resize(
        (size, size), Image.Resampling.BICUBIC
    )
    grey = Image.fromarray(image).convert("L").resize((size, size), Image.Resampling.BICUBIC)
    # Less contrast below keeps black and white parts from swallowing the colour.
    ground = 40.0 + 0.74 * np.asarray(grey, dtype=np.float64)
    return tinted(ground, np.asarray(smooth, dtype=np.float64))


def tinted(
    ground: npt.NDArray[np.float64], strength: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint8]:
    """Grey levels (h, w) coloured by strengths (h, w): -1 all blue, 0 grey, 1 all red."""
    strength = np.clip(strength, -1, 1)[..., None]
    colour = np.where(strength > 0, _FOR, _AGAINST)
    share = 0.78 * np.abs(strength) ** 0.8
    mixed = (1 - share) * ground[..., None] + share * colour
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
