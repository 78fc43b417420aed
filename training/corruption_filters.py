"""Image operations that common corruptions are put together from.

Shapes: H, W rows and columns. Images are float64 (H, W, 3) and fields (H, W), in units of the
pixel range [0, 1].
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatArray = npt.NDArray[np.float64]


def gaussian_blur(image: FloatArray, sigma_px: float) -> FloatArray:
    """Each channel convolved with a Gaussian of `sigma_px`; edges continue outwards."""
    result: FloatArray = ndimage.gaussian_filter(image, (sigma_px, sigma_px, 0), mode="nearest")
    return result


def disk_kernel(radius_px: float, softness_px: float) -> FloatArray:
    """A disk of `radius_px` whose rim is softened by a Gaussian; sums to 1.

    The Gaussian has 3 taps up to a radius of 8 px and 5 above, as in ImageNet-C.
    """
    reach = max(1, int(np.floor(radius_px)))
    half = 1 if radius_px <= 8 else 2
    offsets = np.arange(-reach - half, reach + half + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius_px**2).astype(np.float64)
    taps = np.exp(-0.5 * (np.arange(-half, half + 1) / softness_px) ** 2)
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, taps, axis=axis, mode="constant")
    result: FloatArray = disk / disk.sum()
    return result


def convolve(image: FloatArray, kernel: FloatArray) -> FloatArray:
    """Each channel with a symmetric kernel; edges are mirrored."""
    result: FloatArray = ndimage.correlate(image, kernel[:, :, None], mode="mirror")
    return result


def motion_blur(
    image: FloatArray, *, radius_px: int, sigma_px: float, angle_deg: float
) -> FloatArray:
    """A one-sided Gaussian smear of 2 radius + 1 taps along one direction; edges continue.

    Tap i has the weight exp(-i²/(2σ²)) and lies i px away, rounded to whole pixels, which is
    what ImageMagick's motion blur does.

    Args:
        image: (H, W) or (H, W, 3).
        radius_px: Half the reach.
        sigma_px: Standard deviation of the weights.
        angle_deg: Direction, 0 along the columns' axis, clockwise.
    """
    taps = np.arange(2 * radius_px + 1)
    weights = np.exp(-0.5 * (taps / sigma_px) ** 2)
    weights /= weights.sum()
    angle = np.deg2rad(angle_deg)
    down = np.rint(taps * np.sin(angle)).astype(int)
    right = np.rint(taps * np.cos(angle)).astype(int)
    reach = int(taps[-1])
    height, width = image.shape[:2]
    margins = ((reach, reach), (reach, reach), (0, 0))[: image.ndim]
    padded = np.pad(image, margins, mode="edge")
    result = np.zeros_like(image)
    for weight, y, x in zip(weights, reach + down, reach + right, strict=True):
        result += weight * padded[y : y + height, x : x + width]
    return result


def zoom(image: FloatArray, factor: float) -> FloatArray:
    """Enlarged by `factor` about the centre at the same size, bilinear.

    Args:
        image: (H, W) or (H, W, 3).
        factor: At least 1.
    """
    rows, columns = (_zoom_weights(side, factor) for side in image.shape[:2])
    result: FloatArray = np.einsum("ih,hw...,jw->ij...", rows, image, columns, optimize=True)
    return result


def _zoom_weights(side: int, factor: float) -> FloatArray:
    """Linear interpolation of `side` samples at positions shrunk towards the centre."""
    centre = (side - 1) / 2
    at = (np.arange(side) - centre) / factor + centre
    result: FloatArray = np.clip(1.0 - np.abs(at[:, None] - np.arange(side)), 0.0, None)
    return result


def glass(image: FloatArray, *, reach_px: int, rounds: int, rng: np.random.Generator) -> FloatArray:
    """Every pixel away from the edge replaced by one at most `reach_px` away, `rounds` times.

    The pixels are visited in turn, from the last one on. The paper speaks of swapping; the
    published images come of code that copies, which displaces less.
    """
    height, width = image.shape[:2]
    order = list(range(height * width))
    places = [
        (y, x)
        for y in range(height - reach_px - 1, reach_px - 1, -1)
        for x in range(width - reach_px - 1, reach_px - 1, -1)
    ]
    for _ in range(rounds):
        steps = rng.integers(-reach_px, reach_px, size=(len(places), 2)).tolist()
        for (y, x), (down, right) in zip(places, steps, strict=True):
            here, there = y * width + x, (y + down) * width + x + right
            order[here] = order[there]
    return image.reshape(height * width, -1)[order].reshape(image.shape)


def plasma(height: int, width: int, decay: float, rng: np.random.Generator) -> FloatArray:
    """Clouds by midpoint displacement, scaled to [0, 1], shape (height, width).

    Starting from one point of a torus, the grid is halved until it is fine enough; points of the
    k-th halving lie midway between their neighbours plus U(-1, 1)·decay^(-2k). (ImageNet-C's
    displacement is a product of two factors that each shrink by `decay`.)
    """
    field = np.zeros((1, 1))
    amplitude = 1.0
    while len(field) < max(height, width):
        size = 2 * len(field)
        finer = np.zeros((size, size))
        finer[::2, ::2] = field
        finer[1::2, ::2] = (field + np.roll(field, -1, axis=0)) / 2
        finer[:, 1::2] = (finer[:, ::2] + np.roll(finer[:, ::2], -1, axis=1)) / 2
        displacement = rng.uniform(-amplitude, amplitude, size=finer.shape)
        displacement[::2, ::2] = 0.0
        field = finer + displacement
        amplitude /= decay**2
    return _stretched(field)[:height, :width]


def frost_texture(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """Ice as on a window pane, made and not photographed: bluish needles on a dark ground.

    Needles are the zero crossings of smooth noise, stretched along the rows or the columns, at
    four sizes; a coarse field says where the ice is thick.

    Returns:
        (height, width, 3), mean about 0.45.
    """
    side = max(height, width)
    ice = np.zeros((height, width))
    for octave in range(4):
        size_px = max(side / 2 ** (octave + 2), 0.7)
        sigma = (0.25 * size_px, size_px) if octave % 2 else (size_px, 0.25 * size_px)
        ice += 0.7**octave * np.exp(-((_smooth_noise(height, width, sigma, rng) / 0.5) ** 2))
    thick = _stretched(_smooth_noise(height, width, (side / 4, side / 4), rng))
    grey = 0.1 + 0.9 * np.clip(_stretched(ice) * (0.4 + 0.9 * thick), 0.0, 1.0)
    result: FloatArray = grey[:, :, None] * np.array([0.88, 0.96, 1.0])
    return result


def warp(image: FloatArray, rows: FloatArray, columns: FloatArray) -> FloatArray:
    """The image at the positions (rows, columns), each (H, W) in px, bilinear, edges mirrored."""
    channels = [
        ndimage.map_coordinates(image[..., channel], (rows, columns), order=1, mode="mirror")
        for channel in range(image.shape[2])
    ]
    return np.stack(channels, axis=-1)


def jolted_positions(
    height: int, width: int, jolt_px: float, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Where an affine map, drawn by moving three points by U(-jolt, jolt), takes pixels from.

    Returns:
        Rows and columns (H, W) each, px.
    """
    centre = np.array([height // 2, width // 2], dtype=np.float64)
    third = max(min(height, width) // 3, 1)
    before = centre + third * np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]])
    after = before + rng.uniform(-jolt_px, jolt_px, size=before.shape)
    inverse = np.linalg.lstsq(np.c_[after, np.ones(3)], before, rcond=None)[0]
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    source = np.stack([rows, columns, np.ones_like(rows)], axis=-1) @ inverse
    return source[..., 0], source[..., 1]


def smooth_displacement(
    height: int, width: int, smoothness_px: float, rng: np.random.Generator
) -> FloatArray:
    """U(-1, 1) per pixel, smoothed by a Gaussian, (height, width)."""
    noise = rng.uniform(-1.0, 1.0, size=(height, width))
    result: FloatArray = ndimage.gaussian_filter(noise, smoothness_px, truncate=3, mode="reflect")
    return result


def _smooth_noise(
    height: int, width: int, sigma_px: tuple[float, float], rng: np.random.Generator
) -> FloatArray:
    noise = ndimage.gaussian_filter(rng.standard_normal((height, width)), sigma_px, mode="wrap")
    result: FloatArray = noise / max(float(noise.std()), 1e-12)
    return result


def _stretched(field: FloatArray) -> FloatArray:
    """Shifted and scaled to [0, 1]; 0 where the field is flat."""
    spread = float(np.ptp(field))
    result: FloatArray = (field - field.min()) / (spread if spread > 0 else 1.0)
    return result
