"""Layers that trade resolution for channels, four to one.

Shapes: (B, C, H, W) -> (B, 4C, H/2, W/2), H and W even.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibinn.flow.base import FlowLayer
from ibinn.flow.coupling import SubnetworkFactory, TanhClamp, scale_and_shift


class HaarDownsampling(FlowLayer):
    """Orthonormal Haar wavelet transform times a factor; log|det J| = D * log(factor).

    Of each 2x2 patch (a b; c d): average ½(a+b+c+d), horizontal ½(a-b+c-d), vertical
    ½(a+b-c-d), diagonal ½(a-b-c+d). Output channels are ordered by wavelet: the C averages
    first, then the C horizontal, vertical and diagonal details.

    Args:
        factor: Scale of all coefficients; 1 keeps the transform orthonormal.
    """

    def __init__(self, *, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a, b, c, d = _patch_pixels(x)
        half = 0.5 * self.factor
        y = torch.cat((a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d), dim=1) * half
        return y, self._log_det(x)

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        average, horizontal, vertical, diagonal = (y * (0.5 / self.factor)).chunk(4, dim=1)
        x = _from_patch_pixels(
            average + horizontal + vertical + diagonal,
            average - horizontal + vertical - diagonal,
            average + horizontal - vertical - diagonal,
            average - horizontal - vertical + diagonal,
        )
        return x, -self._log_det(y)

    def _log_det(self, x: Tensor) -> Tensor:
        dims = x.shape[1:].numel()
        return x.new_full((x.shape[0],), dims * math.log(self.factor))


class SpaceToDepth(FlowLayer):
    """Each channel's four pixels of a 2x2 patch become four adjacent channels, row-major."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return F.pixel_unshuffle(x, 2), x.new_zeros(x.shape[0])

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return F.pixel_shuffle(y, 2), y.new_zeros(y.shape[0])


class DownsamplingCoupling(FlowLayer):
    """Affine coupling between resolutions (section C.1.1, i-RevNet style).

    With ↓ the space-to-depth step: y2 = ↓x2 * exp(clamp(s)) + t, (s, t) = strided(x1); then
    y1 = ↓x1 * exp(clamp(s')) + t', (s', t') = plain(y2). log|det J| = Σ clamp(s) + Σ clamp(s').

    Args:
        channels: C of the input; the output has 4C.
        strided: Makes the subnetwork that sees x1 at full resolution and halves it.
        plain: Makes the subnetwork that sees y2 at half resolution.
        clamp: Limits the log-scales; `TanhClamp(0.7, 0.2)` if None.
        first: Channels of x1; C - C//2 if None.
    """

    def __init__(
        self,
        channels: int,
        *,
        strided: SubnetworkFactory,
        plain: SubnetworkFactory,
        clamp: nn.Module | None = None,
        first: int | None = None,
    ) -> None:
        super().__init__()
        first = channels - channels // 2 if first is None else first
        second = channels - first
        self.split = (first, second)
        self.strided = strided(first, 2 * 4 * second)
        self.plain = plain(4 * second, 2 * 4 * first)
        self.clamp = clamp if clamp is not None else TanhClamp(0.7, 0.2)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x1, x2 = x.split(self.split, dim=1)
        log_scale2, shift2 = scale_and_shift(self.strided, self.clamp, x1)
        y2 = F.pixel_unshuffle(x2, 2) * log_scale2.exp() + shift2
        log_scale1, shift1 = scale_and_shift(self.plain, self.clamp, y2)
        y1 = F.pixel_unshuffle(x1, 2) * log_scale1.exp() + shift1
        log_det = log_scale1.flatten(1).sum(1) + log_scale2.flatten(1).sum(1)
        return torch.cat((y1, y2), dim=1), log_det

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y1, y2 = y.split((4 * self.split[0], 4 * self.split[1]), dim=1)
        log_scale1, shift1 = scale_and_shift(self.plain, self.clamp, y2)
        x1 = F.pixel_shuffle((y1 - shift1) * (-log_scale1).exp(), 2)
        log_scale2, shift2 = scale_and_shift(self.strided, self.clamp, x1)
        x2 = F.pixel_shuffle((y2 - shift2) * (-log_scale2).exp(), 2)
        log_det = log_scale1.flatten(1).sum(1) + log_scale2.flatten(1).sum(1)
        return torch.cat((x1, x2), dim=1), -log_det


def _patch_pixels(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        x[:, :, 0::2, 0::2],
        x[:, :, 0::2, 1::2],
        x[:, :, 1::2, 0::2],
        x[:, :, 1::2, 1::2],
    )


def _from_patch_pixels(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    rows = torch.stack((torch.stack((a, b), dim=-1), torch.stack((c, d), dim=-1)), dim=-3)
    batch, channels, height, _, width, _ = rows.shape
    return rows.reshape(batch, channels, 2 * height, 2 * width)
