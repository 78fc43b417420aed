"""Subnetworks of the couplings: ordinary networks that need not be invertible.

Each factory returns a function (input channels, output channels) -> module. The last layer
starts at zero, so that an untrained coupling is the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ibinn.flow.coupling import AffineCoupling, DoubleCoupling, SubnetworkFactory
from ibinn.flow.downsampling import DownsamplingCoupling


def _zeroed(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def convolutional(
    width: int,
    *,
    stride: int = 1,
    leading_relu: bool = False,
    dropout: float = 0.0,
    eps: float = 1e-4,
) -> SubnetworkFactory:
    """[ReLU,] 3x3, BN, ReLU, 3x3, BN, ReLU, 1x1 (section C.1.1).

    Args:
        width: Channels inside.
        stride: Stride of the second convolution.
        leading_relu: Whether a ReLU comes first.
        dropout: Probability with which a channel is dropped before the last layer.
        eps: Added to the variances by the batch norms.
    """

    def make(channels_in: int, channels_out: int) -> nn.Module:
        layers: list[nn.Module] = [nn.ReLU()] if leading_relu else []
        layers += [
            nn.Conv2d(channels_in, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width, eps=eps),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width, eps=eps),
            nn.ReLU(inplace=True),
        ]
        if dropout:
            layers.append(nn.Dropout2d(dropout))
        layers.append(_zeroed(nn.Conv2d(width, channels_out, 1)))
        return nn.Sequential(*layers)

    return make


def bottleneck(width: int, *, stride: int = 1) -> SubnetworkFactory:
    """BN, ReLU, 1x1 to w, BN, ReLU, 3x3, BN, ReLU, 1x1 to 4w, BN, ReLU, 1x1 with bias.

    The pre-activated bottleneck of the ImageNet networks (section C.1.3).

    Args:
        width: w, channels of the 3x3 convolution.
        stride: Its stride.
    """

    def make(channels_in: int, channels_out: int) -> nn.Module:
        return nn.Sequential(
            nn.BatchNorm2d(channels_in),
            nn.ReLU(),
            nn.Conv2d(channels_in, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 4 * width, 1, bias=False),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(inplace=True),
            _zeroed(nn.Conv2d(4 * width, channels_out, 1)),
        )

    return make


def entry_plain(width: int) -> SubnetworkFactory:
    """3x3, BN, ReLU, 1x1 without bias: the other half of the entry.

    Args:
        width: Channels inside.
    """

    def make(channels_in: int, channels_out: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(channels_in, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            _zeroed(nn.Conv2d(width, channels_out, 1, bias=False)),
        )

    return make


def pointwise(width: int) -> SubnetworkFactory:
    """1x1, ReLU, 1x1, both with bias.

    Args:
        width: Channels inside.
    """

    def make(channels_in: int, channels_out: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(channels_in, width, 1),
            nn.ReLU(inplace=True),
            _zeroed(nn.Conv2d(width, channels_out, 1)),
        )

    return make


def fully_connected(width: int, *, dropout: float = 0.0) -> SubnetworkFactory:
    """Linear, ReLU, dropout, linear, for vectors.

    Args:
        width: Units inside.
        dropout: Probability with which a unit is dropped.
    """

    def make(features_in: int, features_out: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(features_in, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            _zeroed(nn.Linear(width, features_out)),
        )

    return make


class LowPrecision(nn.Module):
    """A subnetwork that computes under autocast, its caller's arithmetic untouched.

    Args:
        module: The subnetwork.
        dtype: What its convolutions and products compute in.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module
        self.dtype = dtype
        # Weights keep the names that they have without this wrapper.
        self._register_state_dict_hook(_drop_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_add_prefix)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, self.dtype):
            output: Tensor = self.module(x)
        return output


def use_low_precision(network: nn.Module, dtype: torch.dtype) -> None:
    """Let every coupling's subnetworks compute in `dtype` from now on, in place.

    Scales, shifts, exponentials and log-determinants stay in the precision of the input.
    """
    for layer in list(network.modules()):
        if isinstance(layer, AffineCoupling):
            layer.subnetwork = LowPrecision(layer.subnetwork, dtype)
        elif isinstance(layer, DoubleCoupling):
            layer.first = LowPrecision(layer.first, dtype)
            layer.second = LowPrecision(layer.second, dtype)
        elif isinstance(layer, DownsamplingCoupling):
            layer.strided = LowPrecision(layer.strided, dtype)
            layer.plain = LowPrecision(layer.plain, dtype)


def _drop_prefix(
    _module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: object
) -> None:
    wrapped = prefix + "module."
    for key in [key for key in state if key.startswith(wrapped)]:
        state[prefix + key.removeprefix(wrapped)] = state.pop(key)


def _add_prefix(_module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + "module." + key.removeprefix(prefix)] = state.pop(key)
