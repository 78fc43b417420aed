"""Heatmaps enlarged to more cells, with what they add up to kept.

H and W are the heatmap's cells, S the side of the image in pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ibinn.errors import ConfigError

FloatArray = npt.NDArray[np.float64]


def enlarged(values: FloatArray, side: int) -> FloatArray:
    """The heatmap on side x side cells, interpolated linearly between the centres of its own.

    Each cell's value is spread over the new cells around it with weights that add up to 1, so that
    the sum is kept: with an interpolation matrix A whose columns add up to 1, the result is
    A·Q·Aᵀ (A taken for rows and for columns), and 1ᵀA·Q·Aᵀ1 = 1ᵀQ1.

    Args:
        values: Q in nats, shape (H, W).
        side: S, at least H and W.

    Returns:
        Shape (side, side), nats per new cell.

    Raises:
        ConfigError: `side` is below H or W; leaving cells out would lose evidence.

    >>> enlarged(np.array([[1.0, 3.0]]), 2)
    array([[0.5, 1.5],
           [0.5, 1.5]])
    """
    height, width = values.shape
    if side < max(height, width):
        raise ConfigError(
            f"heatmap of {height}×{width} cells cannot be drawn on {side}×{side}; expected a side "
            f"of at least {max(height, width)}"
        )
    exact = np.asarray(values, dtype=np.float64)
    result: FloatArray = _spreading(height, side) @ exact @ _spreading(width, side).T
    return result


def _spreading(cells: int, side: int) -> FloatArray:
    """A (side, cells): linear interpolation at the new centres, columns that add up to 1."""
    places = np.clip((np.arange(side) + 0.5) * cells / side - 0.5, 0.0, cells - 1.0)
    weights = np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(cells)[None, :]))
    result: FloatArray = weights / weights.sum(axis=0)
    return result
