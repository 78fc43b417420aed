"""The contract of an invertible layer, and how layers compose.

Shapes: B batch, C channels, H and W sides, D = C*H*W dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class FlowLayer(nn.Module, ABC):
    """An invertible, differentiable map with a tractable Jacobian determinant.

    Contract: ``forward(x) -> (y, log_det)`` with log_det = log|det ∂y/∂x| of shape (B,), and
    ``inverse(y) -> (x, log_det)`` with the log-determinant of the inverse map, so that the two
    add up to zero. Nothing is remembered between calls. A layer may take a ``condition``
    (B, C', H, W), which is an argument, not something that it transforms; layers that have no
    use for it ignore it.
    """

    @abstractmethod
    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x to (y, log|det ∂y/∂x|), the latter of shape (B,) in nats."""

    @abstractmethod
    def inverse(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map y to (x, log|det ∂x/∂y|), the latter of shape (B,) in nats."""


class Sequential(FlowLayer):
    """Composition of layers: y = f_n(... f_1(x)), with log-determinants added (Eq. 5.2).

    Args:
        layers: The layers, first applied first.
    """

    def __init__(self, layers: Iterable[FlowLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(x.shape[0])
        for layer in self.layers:
            x, layer_log_det = layer(x, condition)
            log_det = log_det + layer_log_det
        return x, log_det

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = y.new_zeros(y.shape[0])
        for layer in reversed(self.layers):
            assert isinstance(layer, FlowLayer)
            y, layer_log_det = layer.inverse(y, condition)
            log_det = log_det + layer_log_det
        return y, log_det


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What one pass leaves besides the latent code.

    Attributes:
        z: Latent codes (B, D).
        stage_log_dets: log|det J| of each stage (B, S).
        activations: log of the root mean square over the positions of each observed channel
            (B, E); E is `InvertibleNetwork.observed_channels`.
    """

    z: Tensor
    stage_log_dets: Tensor
    activations: Tensor


ACTIVATION_FLOOR = 1e-3
"""Added to a root mean square before its logarithm: a channel can be constantly zero."""


class InvertibleNetwork(Sequential):
    """A flow from images to latent codes, cut into stages whose log-determinants are told apart.

    Args:
        stages: (name, layers) in order.
        heatmap_shape: (H, W, C) of the last feature map where nothing but an orthonormal DCT
            pooling follows it, so that exact heatmaps exist; None otherwise.
        input_shape: (C, H, W) of the images.
        observed: (stage, layer within it, channels of its output) of the feature maps whose
            energy per channel `observe` returns, in order.
    """

    def __init__(
        self,
        stages: Iterable[tuple[str, FlowLayer]],
        *,
        input_shape: tuple[int, int, int],
        heatmap_shape: tuple[int, int, int] | None,
        observed: Iterable[tuple[int, int, int]] = (),
    ) -> None:
        named = list(stages)
        super().__init__(layer for _, layer in named)
        self.stage_names = tuple(name for name, _ in named)
        self.input_shape = input_shape
        self.heatmap_shape = heatmap_shape
        chosen = tuple(observed)
        self.observed_channels = sum(channels for _, _, channels in chosen)
        self._observed = frozenset((stage, layer) for stage, layer, _ in chosen)

    @property
    def dims(self) -> int:
        """Number of dimensions D = C*H*W, the same for images and latent codes."""
        channels, height, width = self.input_shape
        return channels * height * width

    def observed_layers(self, stage: int) -> frozenset[int]:
        """Layers of a stage whose feature maps `observe` tells the energies of."""
        return frozenset(layer for at, layer in self._observed if at == stage)

    def forward_by_stage(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map x (B, C, H, W) to (z (B, D), log-determinants of the stages (B, S))."""
        observed = self.observe(x)
        return observed.z, observed.stage_log_dets

    def observe(self, x: Tensor) -> Observed:
        """Map x (B, C, H, W) to its latent code, with what else the pass shows of it."""
        log_dets: list[Tensor] = []
        activations: list[Tensor] = []
        for number, stage in enumerate(self.layers):
            watched = self.observed_layers(number)
            if not watched:
                x, log_det = stage(x)
            else:
                assert isinstance(stage, Sequential)
                log_det = x.new_zeros(x.shape[0])
                for position, layer in enumerate(stage.layers):
                    x, layer_log_det = layer(x)
                    log_det = log_det + layer_log_det
                    if position in watched:
                        activations.append(x.square().mean((2, 3)))
            log_dets.append(log_det)
        energies = torch.cat(activations, 1) if activations else x.new_zeros(x.shape[0], 0)
        return Observed(
            z=x,
            stage_log_dets=torch.stack(log_dets, dim=1),
            activations=(energies.sqrt() + ACTIVATION_FLOOR).log(),
        )
