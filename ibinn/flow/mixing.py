"""Layers that act on channels alone: act-norm, fixed rotations, fixed permutations.

Shapes: x (B, C, H, W) or (B, C).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibinn.flow.base import FlowLayer


def _pixels(x: Tensor) -> int:
    return x.shape[2:].numel()


class ActNorm(FlowLayer):
    """y = exp(log_scale) * x + offset per channel; log|det J| = H*W * Σ_c log_scale_c.

    Args:
        channels: C.
        initial_scale: Scale at the start. Below 1 it contracts, and over many blocks an
            untrained network with it loses numerical invertibility.
    """

    def __init__(self, channels: int, *, initial_scale: float = 1.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((channels,), math.log(initial_scale)))
        self.offset = nn.Parameter(torch.zeros(channels))

    def _shaped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return self.log_scale.view(shape), self.offset.view(shape)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, offset = self._shaped(x)
        log_det = (_pixels(x) * self.log_scale.sum()).expand(x.shape[0])
        return x * log_scale.exp() + offset, log_det

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, offset = self._shaped(y)
        log_det = (-_pixels(y) * self.log_scale.sum()).expand(y.shape[0])
        return (y - offset) * (-log_scale).exp(), log_det


class SoftplusActNorm(FlowLayer):
    """y = scale * x + offset per channel with scale = 0.1 * softplus(raw, β = 0.5).

    softplus(r, β) = log(1 + exp(βr)) / β, so that every raw value gives a positive scale. This is
    how the released ImageNet networks store it; log|det J| = H*W * Σ_c log scale_c.

    Args:
        channels: C.
        initial_scale: Scale at the start; see `ActNorm`.
    """

    GAIN, BETA = 0.1, 0.5

    def __init__(self, channels: int, *, initial_scale: float = 1.0) -> None:
        super().__init__()
        raw = math.log(math.expm1(initial_scale * self.BETA / self.GAIN)) / self.BETA
        self.raw_scale = nn.Parameter(torch.full((channels,), raw))
        self.offset = nn.Parameter(torch.zeros(channels))

    @property
    def scale(self) -> Tensor:
        """Factor on each channel (C,), above 0."""
        return self.GAIN * F.softplus(self.raw_scale, beta=self.BETA)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scale, shape = self.scale, (1, -1) + (1,) * (x.dim() - 2)
        log_det = (_pixels(x) * scale.log().sum()).expand(x.shape[0])
        return x * scale.view(shape) + self.offset.view(shape), log_det

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scale, shape = self.scale, (1, -1) + (1,) * (y.dim() - 2)
        log_det = (-_pixels(y) * scale.log().sum()).expand(y.shape[0])
        return (y - self.offset.view(shape)) / scale.view(shape), log_det


class ChannelRotation(FlowLayer):
    """y = R x per pixel with a fixed R, orthogonal with determinant +1; log|det J| = 0.

    R is drawn uniformly (Haar measure) and stored in float32.

    Args:
        channels: C.
        generator: Source of the draw.
    """

    rotation: Tensor

    def __init__(self, channels: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("rotation", random_rotation(channels, generator).float())

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _mix(x, self.rotation), x.new_zeros(x.shape[0])

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _mix(y, self.rotation.T), y.new_zeros(y.shape[0])


class ChannelPermutation(FlowLayer):
    """y[:, i] = x[:, permutation[i]], fixed; log|det J| = 0.

    Args:
        channels: C.
        generator: Source of the draw.
    """

    permutation: Tensor
    inverse_permutation: Tensor

    def __init__(self, channels: int, *, generator: torch.Generator) -> None:
        super().__init__()
        permutation = torch.randperm(channels, generator=generator)
        self.register_buffer("permutation", permutation)
        self.register_buffer("inverse_permutation", permutation.argsort())

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.index_select(1, self.permutation), x.new_zeros(x.shape[0])

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y.index_select(1, self.inverse_permutation), y.new_zeros(y.shape[0])


def random_rotation(size: int, generator: torch.Generator) -> Tensor:
    """Draw from the uniform distribution on SO(size), float64 (size, size)."""
    gaussian = torch.randn(size, size, generator=generator, dtype=torch.float64)
    factor, r = torch.linalg.qr(gaussian)
    # Signs of R's diagonal make the QR factor uniform on O(n); one column flip makes it SO(n).
    q: Tensor = factor * r.diagonal().sign()
    if torch.linalg.det(q) < 0:
        q[:, 0] = -q[:, 0]
    return q


def _mix(x: Tensor, matrix: Tensor) -> Tensor:
    matrix = matrix.to(x.dtype)
    if x.dim() == 2:
        return x @ matrix.T
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x, matrix[:, :, None, None])
