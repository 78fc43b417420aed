"""The last layer: a cosine transform over all pixels, then a vector.

Shapes: (B, C, H, W) -> (B, D) with D = H*W*C.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ibinn.flow.base import FlowLayer

Normalization = Literal["orthonormal", "published"]


class DctPooling(FlowLayer):
    """Two-dimensional DCT-II of each channel, flattened (Eq. 5.35).

    The order is (vertical frequency, horizontal frequency, channel), channel fastest: the first
    C entries are the channels' means times a constant, as a global average pooling would give.

    Orthonormal, log|det J| = 0. As the released ImageNet networks have it, the transform is
    2 Σ x cos(...) along both axes, divided by (H + 1)(W + 1) to the power ½ and by 4: coefficients
    (k, l) of the orthonormal transform times a factor that is twice as large for k = l = 0 as for
    k, l > 0, with log|det J| = C Σ_kl log factor_kl (the released code reports H*W*C*log ½).

    Args:
        channels: C.
        height: H.
        width: W.
        normalization: ``orthonormal``, or ``published`` for imported networks.
    """

    rows: Tensor
    columns: Tensor
    factors: Tensor

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        *,
        normalization: Normalization = "orthonormal",
    ) -> None:
        super().__init__()
        self.channels, self.height, self.width = channels, height, width
        self.normalization: Normalization = normalization
        self.register_buffer("rows", dct_matrix(height).float(), persistent=False)
        self.register_buffer("columns", dct_matrix(width).float(), persistent=False)
        factors = frequency_factors(height, width, normalization)
        self.register_buffer("factors", factors.float()[..., None], persistent=False)
        self._log_det = channels * float(factors.log().sum())

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rows, columns = self._matrices(x)
        coefficients = (rows @ x @ columns.T).permute(0, 2, 3, 1)
        if self.normalization != "orthonormal":
            coefficients = coefficients * self._factors(x)
        return coefficients.flatten(1), x.new_full((x.shape[0],), self._log_det)

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.to_pixels(y), y.new_full((y.shape[0],), -self._log_det)

    def to_pixels(self, z: Tensor) -> Tensor:
        """Inverse transform of latent vectors (B, D) to feature maps (B, C, H, W)."""
        rows, columns = self._matrices(z)
        coefficients = z.view(z.shape[0], self.height, self.width, self.channels)
        if self.normalization != "orthonormal":
            coefficients = coefficients / self._factors(z)
        return rows.T @ coefficients.permute(0, 3, 1, 2) @ columns

    def _matrices(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.dtype == self.rows.dtype == torch.float32:
            return self.rows, self.columns
        # Rounded float32 entries are orthogonal to 1e-7 only, also after `.double()`: build
        # wider ones where asked.
        return (
            dct_matrix(self.height).to(x.device, x.dtype),
            dct_matrix(self.width).to(x.device, x.dtype),
        )

    def _factors(self, x: Tensor) -> Tensor:
        if x.dtype == self.factors.dtype == torch.float32:
            return self.factors
        factors = frequency_factors(self.height, self.width, self.normalization)
        return factors[..., None].to(x.device, x.dtype)


def dct_matrix(size: int) -> Tensor:
    """Orthonormal DCT-II matrix (size, size), float64; row k is the k-th frequency."""
    frequency = torch.arange(size, dtype=torch.float64)[:, None]
    position = torch.arange(size, dtype=torch.float64)[None, :]
    matrix = torch.cos(math.pi * (position + 0.5) * frequency / size) * math.sqrt(2.0 / size)
    matrix[0] /= math.sqrt(2.0)
    return matrix


def frequency_factors(height: int, width: int, normalization: Normalization) -> Tensor:
    """Factors (H, W) on the orthonormal coefficients, float64.

    2 Σ x cos(...) is √(2N) times an orthonormal coefficient, and 2√N times the first.
    """
    factors = torch.ones(height, width, dtype=torch.float64)
    if normalization == "published":
        for size, dim in ((height, 0), (width, 1)):
            axis = torch.full((size,), math.sqrt(2.0 * size), dtype=torch.float64)
            axis[0] = 2.0 * math.sqrt(size)
            factors = factors * (axis[:, None] if dim == 0 else axis)
        factors = factors / (4.0 * math.sqrt((height + 1.0) * (width + 1.0)))
    return factors
