"""The plan of a network as an OpenVINO model of a fixed batch size, without a file between.

Shapes: B batch, C channels, H and W sides; maps are (B, C, H, W), whose layout in memory OpenVINO
chooses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibinn.inference.openvino_module import ops, ov
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
    Step,
)
from ibinn.paged import PagedMemory

JOINED = 128
"""Most channels for which one convolution gives log-scale and shift: alone, so few would use the
processor's registers badly; for more, it would only take memory."""

_PIXELS, _IMAGE = np.array([2, 3]), np.array([1, 2, 3])


def graph_of(
    stages: Iterable[Stage],
    *,
    batch: int,
    input_shape: tuple[int, int, int],
    memory: PagedMemory | None = None,
) -> ov.Model:
    """A model (B, C, H, W) -> z (B, D), stage_log_dets (B, S), energies (B, E).

    The weights of its convolutions are the plan's own memory, or copies in `memory`.
    """
    image = ops.parameter([batch, *input_shape], np.float32)
    builder = _Graph(image.output(0), batch, memory)
    log_dets = [builder.stage(stage) for stage in stages]
    energies = builder.energies or [_constant(np.zeros((batch, 0), np.float32))]
    outputs = (
        ops.reshape(builder.maps, np.array([batch, -1]), special_zero=False),
        ops.concat(log_dets, 1),
        ops.concat(energies, 1),
    )
    return ov.Model([ops.result(node) for node in outputs], [image])


class _Graph:
    """Adds operations to the map that it has come to."""

    def __init__(self, maps: ov.Output, batch: int, memory: PagedMemory | None) -> None:
        self.maps = maps
        self.batch = batch
        self.memory = memory
        self.halves: tuple[ov.Output, ov.Output] | None = None
        self.energies: list[ov.Output] = []
        self.log_det: ov.Output | None = None

    def stage(self, stage: Stage) -> ov.Output:
        """Append a stage; gives its log-determinants (B, 1)."""
        self.log_det = _constant(np.full((self.batch, 1), stage.log_det, np.float32))
        for step in stage.steps:
            self._step(step)
        return self.log_det

    def _step(self, step: Step) -> None:
        if isinstance(step, Reorder):
            self._reorder(step)
            return
        if isinstance(step, Observe):
            squares = ops.multiply(self.maps, self.maps)
            self.energies.append(ops.reduce_mean(squares, _PIXELS).output(0))
            return
        halves, self.halves = self.halves, None
        if isinstance(step, Affine):
            self.maps = _affine(step, self.maps)
        elif isinstance(step, Mix):
            self.maps = self._convolution(step.convolution, self.maps)
        elif isinstance(step, Pool):
            rows = ops.reshape(self.maps, np.array([0, 0, -1]), special_zero=True)
            pooled = ops.matmul(_constant(_array(step.matrix)), rows, False, True)
            shape = np.array([self.batch, -1, 1, 1])
            self.maps = ops.reshape(pooled, shape, special_zero=False).output(0)
        else:
            self._coupling(step, halves)

    def _reorder(self, step: Reorder) -> None:
        # Half by half: OpenVINO 2026.4 takes one gather of all channels for a reversal of colours
        # and folds it into convolutions the wrong way round.
        index = step.index.cpu().numpy().astype(np.int32)
        first, second = (
            ops.gather(self.maps, _constant(part), _constant(np.int32(1))).output(0)
            for part in np.array_split(index, 2)
        )
        self.halves = first, second
        self.maps = ops.concat([first, second], 1).output(0)

    def _coupling(self, step: Coupling, halves: tuple[ov.Output, ov.Output] | None) -> None:
        if halves is None or tuple(half.shape[1] for half in halves) != step.split:
            split = ops.variadic_split(self.maps, np.int64(1), np.array(step.split))
            halves = split.output(0), split.output(1)
        x1, x2 = halves
        seen = x1
        if step.down:
            x1, x2 = (ops.space_to_depth(x, "blocks_first", 2).output(0) for x in (x1, x2))
        y2 = self._half(step.first, seen, x2)
        if step.second is None:
            y1 = x1 if step.kept is None else _affine(step.kept, x1)
        else:
            y1 = self._half(step.second, y2, x1)
            y2 = y2 if step.kept is None else _affine(step.kept, y2)
        self.maps = ops.concat([y1, y2], 1).output(0)

    def _half(self, half: Half, x: ov.Output, changed: ov.Output) -> ov.Output:
        for layer in half.trunk:
            x = _affine(layer, x) if isinstance(layer, Affine) else self._convolution(layer, x)
        raw, shift = self._outputs(half, x)
        u = ops.tanh(raw) if half.bound == "tanh" else ops.atan(raw)
        log_scale = ops.multiply(u, np.float32(half.amplitude))
        total = ops.reshape(ops.reduce_sum(log_scale, _IMAGE), np.array([self.batch, 1]), False)
        self.log_det = ops.add(self.log_det, total).output(0)
        if half.log_gain is not None:
            log_scale = ops.add(log_scale, _per_channel(half.log_gain))
        scaled = ops.multiply(changed, ops.exp(log_scale))
        return ops.add(scaled, shift).output(0)

    def _outputs(self, half: Half, x: ov.Output) -> tuple[ov.Output, ov.Output]:
        """What the clamp takes, and the shift."""
        count = len(half.shift.weight)
        if count > JOINED:
            raw = dataclasses.replace(half.log_scale, activation="none")
            return self._convolution(raw, x), self._convolution(half.shift, x)
        both = self._convolution(_joined(half.log_scale, half.shift), x)
        split = ops.variadic_split(both, np.int64(1), np.array([count, count]))
        return split.output(0), split.output(1)

    def _convolution(self, layer: Convolution, x: ov.Output) -> ov.Output:
        stride, padding = [layer.stride] * 2, [layer.padding] * 2
        weight = _array(layer.weight)
        if self.memory is not None:
            weight = self.memory.store(weight)
        y = ops.convolution(x, _constant(weight), stride, padding, padding, [1, 1])
        if layer.bias is not None:
            y = ops.add(y, _per_channel(layer.bias))
        if layer.activation == "relu":
            y = ops.relu(y)
        elif layer.activation == "tanh":
            y = ops.tanh(y)
        return y.output(0)


def _affine(step: Affine, x: ov.Output) -> ov.Output:
    if step.scale is not None and step.offset is not None:
        x = ops.add(ops.multiply(x, _per_channel(step.scale)), _per_channel(step.offset)).output(0)
    return ops.relu(x).output(0) if step.relu else x


def _joined(first: Convolution, second: Convolution) -> Convolution:
    """Two convolutions of one map, their outputs one after the other, before any activation."""
    biases = [
        torch.zeros_like(layer.weight[:, 0, 0, 0]) if layer.bias is None else layer.bias
        for layer in (first, second)
    ]
    return dataclasses.replace(
        first,
        weight=torch.cat((first.weight, second.weight)),
        bias=torch.cat(biases),
        activation="none",
    )


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().cpu().contiguous().numpy()
    return array


def _per_channel(values: Tensor) -> ov.Output:
    return _constant(_array(values).reshape(1, -1, 1, 1))


def _constant(array: NDArray[np.generic] | np.generic) -> ov.Output:
    # OpenVINO keeps the array alive as long as the constant.
    return ops.constant(np.asarray(array), shared_memory=True).output(0)
