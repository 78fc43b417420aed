"""Affine couplings: half of the channels scales and shifts the other half.

Shapes: B batch, C channels, H and W sides. x1 is the first half of size C - C//2, x2 the second
of size C//2. Subnetworks give 2*len(x2) channels, split into s and then t.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ibinn.flow.base import FlowLayer

SubnetworkFactory = Callable[[int, int], nn.Module]
"""Makes a subnetwork from its numbers of input and output channels."""


class TanhClamp(nn.Module):
    """Soft limit of the log-scale: clamp * tanh(gain * s) (section C.1.1).

    Args:
        clamp: Largest |log-scale|.
        gain: Factor on the raw subnetwork output.
    """

    def __init__(self, clamp: float = 0.7, gain: float = 0.1) -> None:
        super().__init__()
        self.clamp, self.gain = clamp, gain

    def forward(self, s: Tensor) -> Tensor:
        return self.clamp * torch.tanh(self.gain * s)


class ArctanClamp(nn.Module):
    """Soft limit of the log-scale: clamp * 0.636 * atan(s / clamp) (about ±clamp).

    Args:
        clamp: Largest |log-scale|, up to 0.636 * π/2 = 0.999.
    """

    def __init__(self, clamp: float = 2.0) -> None:
        super().__init__()
        self.clamp = clamp

    def forward(self, s: Tensor) -> Tensor:
        return self.clamp * 0.636 * torch.atan(s / self.clamp)


class AffineCoupling(FlowLayer):
    """y1 = x1, y2 = x2 * exp(clamp(s)) + shift_gain * t with (s, t) = subnetwork(x1) (Eq. 5.3).

    log|det J| = Σ clamp(s). Works on feature maps (B, C, H, W) and on vectors (B, C). The scale,
    the shift and the sum are in float32 or wider whatever the subnetwork computes in.

    Args:
        channels: C.
        subnetwork: Makes the subnetwork from its numbers of input and output channels.
        clamp: Limits the log-scale; `TanhClamp()` if None.
        shift_gain: Factor on the subnetwork's shift.
        condition_channels: Channels of the optional condition, which the subnetwork sees too.
    """

    def __init__(
        self,
        channels: int,
        subnetwork: SubnetworkFactory,
        *,
        clamp: nn.Module | None = None,
        shift_gain: float = 1.0,
        condition_channels: int = 0,
    ) -> None:
        super().__init__()
        self.split = (channels - channels // 2, channels // 2)
        self.subnetwork = subnetwork(self.split[0] + condition_channels, 2 * self.split[1])
        self.clamp = clamp if clamp is not None else TanhClamp()
        self.shift_gain = shift_gain
        self.condition_channels = condition_channels

    def _scale_and_shift(self, x1: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        return scale_and_shift(
            self.subnetwork,
            self.clamp,
            x1,
            condition if self.condition_channels else None,
            shift_gain=self.shift_gain,
        )

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x1, x2 = x.split(self.split, dim=1)
        log_scale, shift = self._scale_and_shift(x1, condition)
        y2 = x2 * log_scale.exp() + shift
        return torch.cat((x1, y2), dim=1), log_scale.flatten(1).sum(1)

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y1, y2 = y.split(self.split, dim=1)
        log_scale, shift = self._scale_and_shift(y1, condition)
        x2 = (y2 - shift) * (-log_scale).exp()
        return torch.cat((y1, x2), dim=1), -log_scale.flatten(1).sum(1)


class DoubleCoupling(FlowLayer):
    """GLOW coupling of both halves: first y2 from x1, then y1 from y2 (section C.1.2).

    Args:
        channels: C.
        subnetwork: Makes each of the two subnetworks.
        clamp: Makes each limit of the log-scale; `ArctanClamp` if None.
    """

    def __init__(
        self,
        channels: int,
        subnetwork: SubnetworkFactory,
        *,
        clamp: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.split = (channels - channels // 2, channels // 2)
        self.first = subnetwork(self.split[0], 2 * self.split[1])
        self.second = subnetwork(self.split[1], 2 * self.split[0])
        self.clamp = (clamp or ArctanClamp)()

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x1, x2 = x.split(self.split, dim=1)
        log_scale2, shift2 = scale_and_shift(self.first, self.clamp, x1)
        y2 = x2 * log_scale2.exp() + shift2
        log_scale1, shift1 = scale_and_shift(self.second, self.clamp, y2)
        y1 = x1 * log_scale1.exp() + shift1
        log_det = log_scale1.flatten(1).sum(1) + log_scale2.flatten(1).sum(1)
        return torch.cat((y1, y2), dim=1), log_det

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y1, y2 = y.split(self.split, dim=1)
        log_scale1, shift1 = scale_and_shift(self.second, self.clamp, y2)
        x1 = (y1 - shift1) * (-log_scale1).exp()
        log_scale2, shift2 = scale_and_shift(self.first, self.clamp, x1)
        x2 = (y2 - shift2) * (-log_scale2).exp()
        log_det = log_scale1.flatten(1).sum(1) + log_scale2.flatten(1).sum(1)
        return torch.cat((x1, x2), dim=1), -log_det


def scale_and_shift(
    subnetwork: nn.Module,
    clamp: nn.Module,
    x: Tensor,
    condition: Tensor | None = None,
    *,
    shift_gain: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Log-scale and shift that a subnetwork gives, each with half of its output channels."""
    inputs = x if condition is None else torch.cat((x, condition), dim=1)
    # bfloat16 may live inside the subnetwork only: log-determinants need the full mantissa.
    s, t = subnetwork(inputs).to(x.dtype).chunk(2, dim=1)
    shift = t if shift_gain == 1.0 else shift_gain * t
    return clamp(s), shift
