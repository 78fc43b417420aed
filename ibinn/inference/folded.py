"""The plan of a network as a torch module: few passes over the data, channels fastest.

Shapes: B batch, H and W sides, C channels, S stages, E observed channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ibinn.flow.base import ACTIVATION_FLOOR, Observed
from ibinn.inference.plan import (
    Affine,
    Convolution,
    Coupling,
    Half,
    Mix,
    Observe,
    Pool,
    Reorder,
    Stage,
)

MakeConvolution = Callable[[Convolution, int], nn.Module]
"""Makes the module (x, addend or None) -> y of a convolution for maps of a side."""


class FoldedNetwork(nn.Module):
    """(B, C, H, W) -> (z (B, D), stage_log_dets (B, S), energies (B, E)).

    Args:
        stages: The plan.
        side: Side of the images in pixels.
        convolution: Makes the convolutions.
    """

    def __init__(
        self, stages: Iterable[Stage], *, side: int, convolution: MakeConvolution
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for stage in stages:
            folded = _FoldedStage(stage, side, convolution)
            self.stages.append(folded)
            side = folded.side

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = x.permute(0, 2, 3, 1).contiguous()
        log_dets: list[Tensor] = []
        energies: list[Tensor] = []
        for stage in self.stages:
            maps, log_det = stage(maps, energies)
            log_dets.append(log_det)
        energy = torch.cat(energies, 1) if energies else x.new_zeros(x.shape[0], 0)
        return maps.flatten(1), torch.stack(log_dets, 1), energy

    def observe(self, x: Tensor) -> Observed:
        """What `InvertibleNetwork.observe` gives."""
        z, log_dets, energies = self(x)
        return Observed(
            z=z,
            stage_log_dets=log_dets,
            activations=(energies.sqrt() + ACTIVATION_FLOOR).log(),
        )


class _FoldedStage(nn.Module):
    def __init__(self, stage: Stage, side: int, convolution: MakeConvolution) -> None:
        super().__init__()
        self.log_det = stage.log_det
        self.steps = nn.ModuleList()
        for step in stage.steps:
            if isinstance(step, Affine):
                self.steps.append(_Affine(step))
            elif isinstance(step, Mix):
                self.steps.append(convolution(step.convolution, side))
                side //= step.convolution.stride
            elif isinstance(step, Coupling):
                self.steps.append(_Coupling(step, side, convolution))
                side //= 1 + step.down
            elif isinstance(step, Reorder):
                self.steps.append(_Reorder(step))
            elif isinstance(step, Pool):
                self.steps.append(_Pool(step))
                side = 1
            else:
                assert isinstance(step, Observe)
                self.steps.append(_Observe())
        self.side = side

    def forward(self, x: Tensor, energies: list[Tensor]) -> tuple[Tensor, Tensor]:
        log_det = x.new_full((x.shape[0],), self.log_det)
        for step in self.steps:
            if isinstance(step, _Coupling):
                x, change = step(x)
                log_det = log_det + change
            elif isinstance(step, _Observe):
                energies.append(x.square().mean((1, 2)))
            else:
                x = step(x)
        return x, log_det


class _Observe(nn.Module):
    """A mark."""


class _Affine(nn.Module):
    scale: Tensor | None
    offset: Tensor | None

    def __init__(self, step: Affine) -> None:
        super().__init__()
        self.register_buffer("scale", step.scale, persistent=False)
        self.register_buffer("offset", step.offset, persistent=False)
        self.relu = step.relu

    def forward(self, x: Tensor) -> Tensor:
        if self.scale is None or self.offset is None:
            return x.relu()
        y = torch.addcmul(self.offset, x, self.scale)
        return y.relu_() if self.relu else y


class _Reorder(nn.Module):
    index: Tensor

    def __init__(self, step: Reorder) -> None:
        super().__init__()
        self.register_buffer("index", step.index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # As a matrix: an index into the last of two dimensions has a fast path.
        return x.reshape(-1, x.shape[-1]).index_select(1, self.index).view(x.shape)


class _Pool(nn.Module):
    matrix: Tensor

    def __init__(self, step: Pool) -> None:
        super().__init__()
        self.register_buffer("matrix", step.matrix, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.matrix @ x.flatten(1, 2)).flatten(1)[:, None, None]


class _Half(nn.Module):
    """(x of the other half, what it transforms) -> (y, log-determinant (B,))."""

    log_gain: Tensor | None

    def __init__(self, half: Half, side: int, convolution: MakeConvolution) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for layer in half.trunk:
            if isinstance(layer, Affine):
                layers.append(_Affine(layer))
            else:
                layers.append(convolution(layer, side))
                side //= layer.stride
        self.trunk = nn.Sequential(*layers)
        self.log_scale = convolution(half.log_scale, side)
        self.shift = convolution(half.shift, side)
        self.register_buffer("log_gain", half.log_gain, persistent=False)
        self.amplitude, self.bound = half.amplitude, half.bound

    def forward(self, x: Tensor, changed: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(x)
        u = self.log_scale(features)
        if self.bound == "atan":
            u = u.atan_()
        log_det = self.amplitude * u.sum((1, 2, 3))
        if self.log_gain is None:
            scale = u.mul_(self.amplitude).exp_()
        else:
            scale = torch.add(self.log_gain, u, alpha=self.amplitude).exp_()
        return self.shift(features, scale.mul_(changed)), log_det


class _Coupling(nn.Module):
    def __init__(self, step: Coupling, side: int, convolution: MakeConvolution) -> None:
        super().__init__()
        self.split, self.down = step.split, step.down
        self.first = _Half(step.first, side, convolution)
        below = side // 2 if step.down else side
        self.second = None if step.second is None else _Half(step.second, below, convolution)
        self.kept = None if step.kept is None else _Affine(step.kept)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x1, x2 = x.split(self.split, dim=3)
        seen = x1.contiguous()
        if self.down:
            x1, x2 = _space_to_depth(x1), _space_to_depth(x2)
        y2, log_det = self.first(seen, x2)
        if self.second is None:
            y1 = x1 if self.kept is None else self.kept(x1)
        else:
            y1, change = self.second(y2, x1)
            log_det = log_det + change
            y2 = y2 if self.kept is None else self.kept(y2)
        return torch.cat((y1, y2), 3), log_det


def _space_to_depth(x: Tensor) -> Tensor:
    batch, height, width, channels = x.shape
    patches = x.reshape(batch, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
    return patches.reshape(batch, height // 2, width // 2, 4 * channels)
