"""IB-INN-50, the ImageNet network of Mackowiak et al. 2021 (section C.1.3 of the thesis).

As large as a ResNet-50: an entry that looks at pixels, four stages of couplings with bottleneck
subnetworks, and a cosine transform as the pooling. 55,412,304 parameters at its published size.
The published network permutes the first latent dimensions at random after the pooling; a
permutation of latent dimensions is one of the means' entries as well, so that here the means
carry it (`training.released_layout`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch

from ibinn.errors import ConfigError
from ibinn.flow.base import FlowLayer, InvertibleNetwork, Sequential
from ibinn.flow.coupling import AffineCoupling, SubnetworkFactory, TanhClamp
from ibinn.flow.downsampling import DownsamplingCoupling, HaarDownsampling
from ibinn.flow.mixing import ChannelPermutation, SoftplusActNorm
from ibinn.flow.observed import observed_ends
from ibinn.flow.pooling import DctPooling, Normalization
from ibinn.flow.subnetworks import bottleneck, convolutional, entry_plain, pointwise

HAAR_FACTOR = 0.5
"""Scale of the Haar coefficients (the released code's rebalance)."""

SHIFT_GAIN = 0.1
"""Factor on the shifts of couplings at one resolution; between resolutions it is 1."""

POINTWISE_WIDTH = 48
"""Width of the 1x1 subnetworks of the coupling before the first stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IbInn50Config:
    """The ImageNet network; smaller images leave out Haar or strides.

    Attributes:
        side: Side of the square input in pixels.
        channels: Channels of the input.
        width: Bottleneck width of the first stage; each further stage has twice that.
        blocks: Couplings per stage.
        strides: 2 where a stage begins with a down-sampling coupling, else 1.
        haar: Whether a Haar step follows the entry; without it, the stages see twice the
            resolution, as small images need.
        clamp: Largest |log-scale| of a coupling.
        pooling: ``orthonormal``, or ``published`` as in the released networks.
        initial_scale: Act-norm's scale at the start.
        seed: Seed of the fixed permutations.
    """

    side: int = 224
    channels: int = 3
    width: int = 64
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    strides: tuple[int, ...] = (1, 2, 2, 2)
    haar: bool = True
    clamp: float = 0.7
    pooling: Normalization = "orthonormal"
    initial_scale: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        name = "architecture ib-inn-50"
        if len(self.blocks) != len(self.strides) or not self.blocks or min(self.blocks) < 1:
            raise ConfigError(
                f"{name}: blocks {self.blocks} and strides {self.strides} must have the same "
                "number of stages, at least one, each with a block"
            )
        if not set(self.strides) <= {1, 2}:
            raise ConfigError(f"{name}: strides are {self.strides}; expected each 1 or 2")
        if self.side < self.reduction or self.side % self.reduction:
            raise ConfigError(
                f"{name}: side is {self.side} px; with haar {self.haar} and strides "
                f"{self.strides} it must be a multiple of {self.reduction}; resize to "
                f"{max(1, round(self.side / self.reduction)) * self.reduction}"
            )
        if self.pooling not in get_args(Normalization):
            raise ConfigError(
                f"{name}: pooling is {self.pooling!r}; expected one of "
                f"{', '.join(get_args(Normalization))}"
            )

    @property
    def reduction(self) -> int:
        """Side of the input over that of the last feature map."""
        halvings: int = 1 + self.haar + self.strides.count(2)
        return 1 << halvings

    def build(self) -> InvertibleNetwork:
        """The network, untrained."""
        generator = torch.Generator().manual_seed(self.seed)
        mixer = _Mixer(self.initial_scale, generator)
        channels, side = self.channels, self.side
        stages: list[tuple[str, list[FlowLayer]]] = []
        ends: list[tuple[int, int, int]] = []

        def end_block() -> None:
            ends.append((len(stages) - 1, len(stages[-1][1]) - 1, channels))

        entry: list[FlowLayer] = [
            self._between(
                channels, convolutional(self.width, stride=2, eps=1e-5), entry_plain(self.width)
            )
        ]
        channels, side = 4 * channels, side // 2
        entry += mixer.layers(channels)
        stages.append((f"{side}x{side}", entry))
        end_block()
        if self.haar:
            channels, side = 4 * channels, side // 2
            stages.append((f"{side}x{side}", [HaarDownsampling(factor=HAAR_FACTOR)]))
        stages[-1][1].extend(
            (self._within(channels, pointwise(POINTWISE_WIDTH)), *mixer.layers(channels))
        )
        end_block()
        for number, (blocks, stride) in enumerate(zip(self.blocks, self.strides, strict=True)):
            width = self.width * 2**number
            for block in range(blocks):
                if block == 0 and stride == 2:
                    down = self._between(channels, bottleneck(width, stride=2), bottleneck(width))
                    channels, side = 4 * channels, side // 2
                    stages.append((f"{side}x{side}", [down]))
                else:
                    stages[-1][1].append(self._within(channels, bottleneck(width)))
                stages[-1][1].extend(mixer.layers(channels))
                end_block()
        pooling = DctPooling(channels, side, side, normalization=self.pooling)
        return InvertibleNetwork(
            [*((name, Sequential(layers)) for name, layers in stages), ("pooling", pooling)],
            input_shape=(self.channels, self.side, self.side),
            heatmap_shape=(side, side, channels),
            observed=observed_ends(ends),
        )

    def _within(self, channels: int, subnetwork: SubnetworkFactory) -> AffineCoupling:
        clamp = TanhClamp(self.clamp, 0.1)
        return AffineCoupling(channels, subnetwork, clamp=clamp, shift_gain=SHIFT_GAIN)

    def _between(
        self, channels: int, strided: SubnetworkFactory, plain: SubnetworkFactory
    ) -> DownsamplingCoupling:
        clamp = TanhClamp(self.clamp, 0.2)
        return DownsamplingCoupling(channels, strided=strided, plain=plain, clamp=clamp)


@dataclass(frozen=True, slots=True)
class _Mixer:
    initial_scale: float
    generator: torch.Generator

    def layers(self, channels: int) -> tuple[FlowLayer, FlowLayer]:
        """What follows each coupling."""
        return (
            SoftplusActNorm(channels, initial_scale=self.initial_scale),
            ChannelPermutation(channels, generator=self.generator),
        )
