"""The plan of a network as a torch module: few passes over the data, channels fastest.

Shapes: B batch, H and W sides, C channels, S stages, E observed channels.
"""

from __future__ import annotations

import math
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
        part_bytes: Batches go through each stage in parts whose largest map is about this large,
            or one image; None for whole batches.
    """

    def __init__(
        self,
        stages: Iterable[Stage],
        *,
        side: int,
        convolution: MakeConvolution,
        part_bytes: int | None = None,
    ) -> None:
        super().__init__()
        self.part_bytes = part_bytes
        self.stages = nn.ModuleList()
        for stage in stages:
            folded = _FoldedStage(stage, side, convolution)
            self.stages.append(folded)
            side = folded.side

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = x.permute(0, 2, 3, 1).contiguous()
        log_dets: list[Tensor] = []
        energies = [x.new_zeros(x.shape[0], 0)]
        for stage in self.stages:
            assert isinstance(stage, _FoldedStage)
            parts = [stage(part) for part in self._parts(maps, stage)]
            maps, log_det, energy = (_joined(tensors) for tensors in zip(*parts, strict=True))
            log_dets.append(log_det)
            energies.append(energy)
        return maps.flatten(1), torch.stack(log_dets, 1), torch.cat(energies, 1)

    def _parts(self, maps: Tensor, stage: _FoldedStage) -> tuple[Tensor, ...]:
        """The batch in parts whose largest map inside the stage stays near the processor."""
        if self.part_bytes is None:
            return (maps,)
        most = max(1, self.part_bytes // stage.image_bytes)
        return maps.tensor_split(math.ceil(maps.shape[0] / most))

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
        self.image_bytes = largest_map(stage, side)
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

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_det = x.new_full((x.shape[0],), self.log_det)
        energies = [x.new_zeros(x.shape[0], 0)]
        for step in self.steps:
            if isinstance(step, _Coupling):
                x, change = step(x)
                log_det = log_det + change
            elif isinstance(step, _Observe):
                energies.append(x.square().mean((1, 2)))
            else:
                x = step(x)
        return x, log_det, torch.cat(energies, 1)


def largest_map(stage: Stage, side: int) -> int:
    """Bytes of the largest map of one image in a stage that begins at this side."""
    largest = 1
    for step in stage.steps:
        if isinstance(step, Mix):
            side //= step.convolution.stride
        elif isinstance(step, Coupling):
            for number, half in enumerate((step.first, step.second)):
                inside = side // 2 if step.down and number == 1 else side
                for layer in () if half is None else half.trunk:
                    if isinstance(layer, Convolution):
                        inside //= layer.stride
                        largest = max(largest, 4 * inside * inside * len(layer.weight))
            side //= 1 + step.down
    return largest


def _joined(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


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
        # Powers of 2 are several times as fast as powers of e.
        gain = None if half.log_gain is None else half.log_gain / math.log(2)
        self.register_buffer("log_gain", gain, persistent=False)
        self.amplitude, self.bound = half.amplitude, half.bound
        self.binary_amplitude = half.amplitude / math.log(2)

    def forward(self, x: Tensor, changed: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(x)
        u = self.log_scale(features)
        if self.bound == "atan":
            u = u.atan()
        log_det = self.amplitude * u.sum((1, 2, 3))
        if self.log_gain is None:
            scale = (u * self.binary_amplitude).exp2_()
        else:
            scale = torch.add(self.log_gain, u, alpha=self.binary_amplitude).exp2_()
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
        seen = x1
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
