"""From a trained network to its plan: act-norms and orders of channels folded into neighbours.

What stays is the same function in exact arithmetic; see `ibinn.inference.plan` for the shapes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ibinn.errors import ConfigError
from ibinn.flow.base import InvertibleNetwork, Sequential
from ibinn.flow.coupling import AffineCoupling, DoubleCoupling
from ibinn.flow.downsampling import DownsamplingCoupling, HaarDownsampling, SpaceToDepth
from ibinn.flow.mixing import ActNorm, ChannelPermutation, ChannelRotation, SoftplusActNorm
from ibinn.flow.pooling import DctPooling, dct_matrix, frequency_factors
from ibinn.inference.folding import fold_half, with_act_norm
from ibinn.inference.plan import (
    Affine,
    Convolution,
    Coupling,
    Mix,
    Observe,
    Pool,
    Reorder,
    Stage,
    Step,
)


def stages_of(network: InvertibleNetwork) -> Iterator[Stage]:
    """The network in evaluation mode, stage by stage, so that one stage's weights exist at a time.

    Raises:
        ConfigError: A layer is of a kind that the folded forms do not know.
    """
    builder = _Builder(network.input_shape)
    for number, layer in enumerate(network.layers):
        with torch.no_grad():
            stage = builder.stage(layer, network.observed_layers(number))
        yield stage


class _Builder:
    """Follows the shape of the map, and the order in which its channels lie, through the layers.

    Stored channel i is channel `order[i]` of the network; None is the network's own order.
    """

    def __init__(self, input_shape: tuple[int, int, int]) -> None:
        self.channels, self.height, self.width = input_shape
        self.order: Tensor | None = None
        self.steps: list[Step] = []
        self.log_det = 0.0

    def stage(self, stage: object, watched: frozenset[int]) -> Stage:
        self.steps, self.log_det = [], 0.0
        layers = list(stage.layers) if isinstance(stage, Sequential) else [stage]
        for position, layer in enumerate(layers):
            mixed_next = position not in watched and isinstance(
                layers[position + 1] if position + 1 < len(layers) else None,
                ChannelRotation | HaarDownsampling,
            )
            self._layer(layer, mixed_next=mixed_next)
            if position in watched:
                self._restore_order()
                self.steps.append(Observe())
        self._restore_order()
        return Stage(steps=tuple(self.steps), log_det=self.log_det)

    def _layer(self, layer: object, *, mixed_next: bool) -> None:
        if isinstance(layer, ActNorm | SoftplusActNorm):
            self._act_norm(layer, mixed_next=mixed_next)
        elif isinstance(layer, ChannelRotation):
            self._mix(layer.rotation.double()[:, :, None, None], stride=1)
        elif isinstance(layer, ChannelPermutation):
            self.steps.append(Reorder(index=self._stored(layer.permutation)))
            self.order = None
        elif isinstance(layer, AffineCoupling):
            self._coupling(layer)
        elif isinstance(layer, DoubleCoupling):
            self._double_coupling(layer)
        elif isinstance(layer, DownsamplingCoupling):
            self._downsampling_coupling(layer)
        elif isinstance(layer, HaarDownsampling):
            self.log_det += self.channels * self.height * self.width * math.log(layer.factor)
            self._mix(haar_weight(self.channels, layer.factor), stride=2)
        elif isinstance(layer, SpaceToDepth):
            eye = torch.eye(4 * self.channels, dtype=torch.float64)
            self._mix(eye.view(4 * self.channels, self.channels, 2, 2), stride=2)
        elif isinstance(layer, DctPooling):
            self._pool(layer)
        else:
            raise ConfigError(
                f"a layer of the network is {type(layer).__name__}, which the folded forms do "
                "not know; use the engine plain"
            )

    def _coupling(self, layer: AffineCoupling) -> None:
        if layer.condition_channels:
            raise ConfigError(
                "a coupling of the network has a condition, which the folded forms do not know; "
                "use the engine plain"
            )
        self._restore_order()
        first = fold_half(layer.subnetwork, layer.clamp, shift_gain=layer.shift_gain)
        self.steps.append(Coupling(split=layer.split, first=first))

    def _double_coupling(self, layer: DoubleCoupling) -> None:
        self._restore_order()
        self.steps.append(
            Coupling(
                split=layer.split,
                first=fold_half(layer.first, layer.clamp),
                second=fold_half(layer.second, layer.clamp),
            )
        )

    def _downsampling_coupling(self, layer: DownsamplingCoupling) -> None:
        self._restore_order()
        orders = [pixel_order(channels) for channels in layer.split]
        self.steps.append(
            Coupling(
                split=layer.split,
                down=True,
                first=fold_half(layer.strided, layer.clamp, outputs=orders[1]),
                second=fold_half(layer.plain, layer.clamp, inputs=orders[1], outputs=orders[0]),
            )
        )
        self._halve()
        self.order = torch.cat((orders[0], 4 * layer.split[0] + orders[1]))

    def _act_norm(self, layer: ActNorm | SoftplusActNorm, *, mixed_next: bool) -> None:
        scale = layer.log_scale.double().exp() if isinstance(layer, ActNorm) else layer.scale
        offset: Tensor = layer.offset
        self.log_det += self.height * self.width * float(scale.double().log().sum())
        if self.order is not None:
            order = self.order.to(scale.device)
            scale, offset = scale[order], offset[order]
        before = self.steps[-1] if self.steps else None
        if mixed_next or not isinstance(before, Coupling) or before.kept is not None:
            # A convolution that follows takes the whole affine step in.
            self.steps.append(Affine(scale=scale.detach().float(), offset=offset.detach()))
            return
        factor = 4 if before.down else 1
        border = factor * before.split[0]
        one, two = (scale[:border], offset[:border]), (scale[border:], offset[border:])
        if before.second is None:
            kept = one
            changed = dataclasses.replace(before, first=with_act_norm(before.first, *two))
        else:
            kept = two
            changed = dataclasses.replace(before, second=with_act_norm(before.second, *one))
        self.steps[-1] = dataclasses.replace(
            changed, kept=Affine(scale=kept[0].detach().float(), offset=kept[1].detach())
        )

    def _mix(self, weight: Tensor, *, stride: int) -> None:
        """Append a convolution (float64 weight), with an affine step before it inside."""
        bias = None
        if self.order is not None:
            weight = weight[:, self.order.to(weight.device)]
            self.order = None
        before = self.steps[-1] if self.steps else None
        if isinstance(before, Affine) and before.scale is not None and before.offset is not None:
            self.steps.pop()
            offset = before.offset.double().to(weight.device)
            bias = torch.einsum("oikl,i->o", weight, offset).float()
            weight = weight * before.scale.double().to(weight.device)[None, :, None, None]
        self.steps.append(
            Mix(convolution=Convolution(weight=weight.float(), bias=bias, stride=stride))
        )
        if stride == 2:
            self._halve()

    def _pool(self, layer: DctPooling) -> None:
        self._restore_order()
        factors = frequency_factors(layer.height, layer.width, layer.normalization)
        matrix = torch.kron(dct_matrix(layer.height), dct_matrix(layer.width))
        self.steps.append(Pool(matrix=(factors.flatten()[:, None] * matrix).float()))
        self.log_det += layer.channels * float(factors.log().sum())
        self.channels, self.height, self.width = (
            self.channels * self.height * self.width,
            1,
            1,
        )

    def _halve(self) -> None:
        self.channels, self.height, self.width = (
            4 * self.channels,
            self.height // 2,
            self.width // 2,
        )

    def _restore_order(self) -> None:
        if self.order is not None:
            self.steps.append(Reorder(index=self._stored(torch.arange(self.channels))))
            self.order = None

    def _stored(self, channels: Tensor) -> Tensor:
        """Where the network's channels lie."""
        if self.order is None:
            return channels
        return self.order.argsort().to(channels.device)[channels]


def pixel_order(channels: int) -> Tensor:
    """Channels of a space-to-depth step, (row, column, channel) from (channel, row, column)."""
    return torch.arange(4 * channels).view(channels, 2, 2).permute(1, 2, 0).flatten()


def haar_weight(channels: int, factor: float) -> Tensor:
    """`HaarDownsampling` as a convolution of stride 2: weights (4C, C, 2, 2), float64."""
    signs = torch.tensor(
        [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64
    )
    eye = torch.eye(channels, dtype=torch.float64)
    weight = 0.5 * factor * signs.view(4, 1, 1, 2, 2) * eye.view(1, channels, channels, 1, 1)
    return weight.reshape(4 * channels, channels, 2, 2)
