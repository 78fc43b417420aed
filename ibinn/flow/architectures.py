"""Architectures as configs: each config is a frozen value that builds its network.

`SmallConfig` is ours and ends in DCT pooling, so that exact heatmaps exist. `CifarConfig` is the
network of the thesis's CIFAR tables (section C.1.2); its last two layers mix all positions, so
that it has none. `IbInn50Config` (`ibinn.flow.ib_inn_50`) is the ImageNet network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ibinn.errors import ConfigError
from ibinn.flow.base import FlowLayer, InvertibleNetwork, Sequential
from ibinn.flow.coupling import AffineCoupling, DoubleCoupling, TanhClamp
from ibinn.flow.downsampling import DownsamplingCoupling, HaarDownsampling
from ibinn.flow.ib_inn_50 import IbInn50Config
from ibinn.flow.mixing import ActNorm, ChannelPermutation, ChannelRotation
from ibinn.flow.observed import observed_ends
from ibinn.flow.pooling import DctPooling
from ibinn.flow.subnetworks import convolutional, fully_connected


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallConfig:
    """Haar, couplings at half, quarter and eighth resolution with Haar between, DCT pooling.

    Attributes:
        side: Side of the square input in pixels, divisible by 2 to the number of stages.
        channels: Channels of the input.
        widths: Subnetwork width per stage.
        blocks: Couplings per stage.
        clamp: Largest |log-scale| of a coupling.
        clamp_gain: Factor on the raw subnetwork output inside the clamp's tanh.
        initial_scale: Act-norm's scale at the start.
        seed: Seed of the fixed rotations.
    """

    side: int = 32
    channels: int = 3
    widths: tuple[int, ...] = (48, 96, 128)
    blocks: tuple[int, ...] = (4, 6, 3)
    clamp: float = 0.7
    clamp_gain: float = 0.1
    initial_scale: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.blocks) or not self.widths:
            raise ConfigError(
                f"architecture small: widths {self.widths} and blocks {self.blocks} must have "
                "the same number of stages, at least one"
            )
        factor = 2 ** len(self.widths)
        if self.side < factor or self.side % factor:
            raise ConfigError(
                f"architecture small: side is {self.side} px; with {len(self.widths)} stages it "
                f"must be a multiple of {factor}; resize to "
                f"{max(factor, round(self.side / factor) * factor)}"
            )

    def build(self) -> InvertibleNetwork:
        """The network, untrained."""
        generator = torch.Generator().manual_seed(self.seed)
        channels, side = self.channels, self.side
        stages: list[tuple[str, FlowLayer]] = []
        for width, blocks in zip(self.widths, self.blocks, strict=True):
            channels, side = 4 * channels, side // 2
            layers: list[FlowLayer] = [HaarDownsampling()]
            for _ in range(blocks):
                layers += [
                    AffineCoupling(
                        channels,
                        convolutional(width),
                        clamp=TanhClamp(self.clamp, self.clamp_gain),
                    ),
                    ActNorm(channels, initial_scale=self.initial_scale),
                    ChannelRotation(channels, generator=generator),
                ]
            stages.append((f"{side}x{side}", Sequential(layers)))
        stages.append(("pooling", DctPooling(channels, side, side)))
        return InvertibleNetwork(
            stages,
            input_shape=(self.channels, self.side, self.side),
            heatmap_shape=(side, side, channels),
            observed=observed_ends(
                [
                    (stage, 3 * (block + 1), self.channels * 4 ** (stage + 1))
                    for stage, blocks in enumerate(self.blocks)
                    for block in range(blocks)
                ]
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CifarConfig:
    """The thesis's network for 32x32 images (section C.1.2; 11.16 M parameters without means).

    Attributes:
        side: Side of the square input in pixels, divisible by 4.
        channels: Channels of the input.
        blocks: Couplings at full, half and quarter resolution.
        widths: Subnetwork widths there.
        hidden: Width of the fully connected coupling at the end.
        initial_scale: Act-norm's scale at the start.
        seed: Seed of the fixed rotations and of the permutation.
    """

    side: int = 32
    channels: int = 3
    blocks: tuple[int, int, int] = (8, 24, 24)
    widths: tuple[int, int, int] = (16, 32, 64)
    hidden: int = 1024
    initial_scale: float = 0.75
    seed: int = 0

    def __post_init__(self) -> None:
        if self.side % 4 or self.side < 4:
            raise ConfigError(
                f"architecture cifar: side is {self.side} px; it must be a multiple of 4"
            )

    def build(self) -> InvertibleNetwork:
        """The network, untrained."""
        generator = torch.Generator().manual_seed(self.seed)
        channels, side = self.channels, self.side
        stages: list[tuple[str, FlowLayer]] = []
        for stage, (blocks, width) in enumerate(zip(self.blocks, self.widths, strict=True)):
            layers: list[FlowLayer] = []
            if stage > 0:
                layers.append(
                    DownsamplingCoupling(
                        channels,
                        strided=convolutional(width, stride=2),
                        plain=convolutional(width),
                        clamp=TanhClamp(0.7, 0.1),
                        # Of 3 channels the thesis's network takes one first, unlike its
                        # couplings at one resolution, which take two.
                        first=channels // 2,
                    )
                )
                channels, side = 4 * channels, side // 2
            dropout = 0.25 if stage == 2 else 0.0
            for block in range(blocks):
                subnetwork = convolutional(
                    width, leading_relu=stage > 0 or block > 0, dropout=dropout
                )
                layers += [
                    AffineCoupling(channels, subnetwork),
                    ActNorm(channels, initial_scale=self.initial_scale),
                    ChannelRotation(channels, generator=generator),
                ]
            stages.append((f"{side}x{side}", Sequential(layers)))
        dims = channels * side * side
        head: list[FlowLayer] = [
            DctPooling(channels, side, side),
            ChannelPermutation(dims, generator=generator),
            DoubleCoupling(dims, fully_connected(self.hidden, dropout=0.5)),
        ]
        stages.append(("head", Sequential(head)))
        return InvertibleNetwork(
            stages,
            input_shape=(self.channels, self.side, self.side),
            heatmap_shape=None,
            observed=observed_ends(
                [
                    (stage, 3 * block + (3 if stage else 2), self.channels * 4**stage)
                    for stage, blocks in enumerate(self.blocks)
                    for block in range(blocks)
                ]
            ),
        )


ArchitectureConfig = SmallConfig | CifarConfig | IbInn50Config

ARCHITECTURES: Mapping[str, type[ArchitectureConfig]] = {
    "small": SmallConfig,
    "cifar": CifarConfig,
    "ib-inn-50": IbInn50Config,
}
"""Every architecture by name."""


def to_dict(config: ArchitectureConfig) -> dict[str, Any]:
    """A config as plain data with its ``name``, for a manifest."""
    name = next(name for name, kind in ARCHITECTURES.items() if type(config) is kind)
    values = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(config).items()
    }
    return {"name": name, **values}


def from_dict(data: Mapping[str, Any]) -> ArchitectureConfig:
    """The config that `to_dict` wrote.

    Raises:
        ConfigError: The name or a key is unknown.
    """
    values = dict(data)
    name = values.pop("name", None)
    if name not in ARCHITECTURES:
        raise ConfigError(
            f"architecture is {name!r}; there are: {', '.join(ARCHITECTURES)}; choose one of them"
        )
    kind = ARCHITECTURES[name]
    build: Callable[..., ArchitectureConfig] = kind
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - known):
        raise ConfigError(
            f"architecture {name}: unknown key {unknown[0]!r}; there are: "
            f"{', '.join(sorted(known))}; remove or rename it"
        )
    listed = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
    try:
        return build(**listed)
    except TypeError as error:
        raise ConfigError(f"architecture {name}: {error}; check the types of its values") from error
