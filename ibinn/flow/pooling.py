"""The last layer: an orthonormal cosine transform over all pixels, then a vector.

Shapes: (B, C, H, W) -> (B, D) with D = H*W*C.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ibinn.flow.base import FlowLayer


class DctPooling(FlowLayer):
    """Orthonormal two-dimensional DCT-II of each channel, flattened; log|det J| = 0 (Eq. 5.35).

    The order is (vertical frequency, horizontal frequency, channel), channel fastest: the first
    C entries are the channels' means times sqrt(H*W), as a global average pooling would give.

    Args:
        channels: C.
        height: H.
        width: W.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.channels, self.height, self.width = channels, height, width
        self.register_buffer("rows", dct_matrix(height).float(), persistent=False)
        self.register_buffer("columns", dct_matrix(width).float(), persistent=False)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rows, columns = self._matrices(x)
        coefficients = rows @ x @ columns.T
        return coefficients.permute(0, 2, 3, 1).flatten(1), x.new_zeros(x.shape[0])

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.to_pixels(y), y.new_zeros(y.shape[0])

    def to_pixels(self, z: Tensor) -> Tensor:
        """Inverse transform of latent vectors (B, D) to feature maps (B, C, H, W)."""
        rows, columns = self._matrices(z)
        shape = (z.shape[0], self.height, self.width, self.channels)
        return rows.T @ z.view(shape).permute(0, 3, 1, 2) @ columns

    def _matrices(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.dtype == self.rows.dtype == torch.float32:
            return self.rows, self.columns
        # Rounded float32 entries are orthogonal to 1e-7 only, also after `.double()`: build
        # wider ones where asked.
        return (
            dct_matrix(self.height).to(x.device, x.dtype),
            dct_matrix(self.width).to(x.device, x.dtype),
        )


def dct_matrix(size: int) -> Tensor:
    """Orthonormal DCT-II matrix (size, size), float64; row k is the k-th frequency."""
    frequency = torch.arange(size, dtype=torch.float64)[:, None]
    position = torch.arange(size, dtype=torch.float64)[None, :]
    matrix = torch.cos(math.pi * (position + 0.5) * frequency / size) * math.sqrt(2.0 / size)
    matrix[0] /= math.sqrt(2.0)
    return matrix
