"""The layout of the released ImageNet checkpoints, tensor by tensor beside ours.

Layers are numbered: the entry is 1, Haar 2, then the couplings, each with its act-norm and its
permutation, and the pooling; layers without tensors take numbers too. The released networks
permute the class dimensions after the pooling, by a permutation that is not in the file. It is
one of the means' entries here, so that latent codes keep the order of the frequencies.

C channels of a layer, D dimensions, K classes, R rank of the means, N side of the last feature map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ibinn.classifier import GenerativeClassifier
from ibinn.errors import CheckpointError, ConfigError
from ibinn.flow.base import FlowLayer, InvertibleNetwork, Sequential
from ibinn.flow.coupling import AffineCoupling
from ibinn.flow.downsampling import DownsamplingCoupling, HaarDownsampling
from ibinn.flow.mixing import ChannelPermutation, SoftplusActNorm
from ibinn.flow.pooling import DctPooling
from ibinn.latent import GaussianMixture

FIXED_TOLERANCE = 1e-5
"""Largest deviation of a cosine matrix of a file from the true one; they were made in float32."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A tensor of the layout, and where it lives in a model.

    Attributes:
        key: Its key in the file.
        shape: Its shape there.
        read: A copy of it as the model has it, in the file's shape.
        write: Puts a value into the model; None: it is fixed, and can only be compared.
        dtype: Of its elements.
        tolerance: Largest deviation of a fixed tensor.
    """

    key: str
    shape: Shape
    read: Callable[[], Tensor]
    write: Callable[[Tensor], None] | None = None
    dtype: torch.dtype = torch.float32
    tolerance: float = 0.0


def slots(model: GenerativeClassifier, *, pooling_number: int | None = None) -> list[Slot]:
    """Every tensor of the layout for a model, in the file's order.

    Args:
        model: Network and mixture of architecture ib-inn-50, with low-rank means.
        pooling_number: Number of the pooling; None: as in the released files, the second after
            the last coupling.

    Raises:
        ConfigError: The class dimensions are not among the first C of the latent code.
    """
    found: list[Slot] = []
    number = 0
    layers = list(_flat(model.network))
    for position, layer in enumerate(layers):
        if isinstance(layer, HaarDownsampling):
            number += 1
            found.append(_haar_slot(number, channels=_channels_before(layers, position)))
        elif isinstance(layer, DownsamplingCoupling | AffineCoupling):
            number += 1
            norm, mixing = layers[position + 1 : position + 3]
            assert isinstance(norm, SoftplusActNorm)
            assert isinstance(mixing, ChannelPermutation)
            found += _mixing_slots(f"module_list.{number}.", norm, mixing)
            found += _coupling_slots(f"module_list.{number}.", layer)
        elif isinstance(layer, DctPooling):
            at = number + 2 if pooling_number is None else pooling_number
            found += _pooling_slots(f"module_list.{at}.", layer.height)
            found += _mean_slots(model.mixture, layer)
    return found


def class_permutation(class_dims: int) -> Tensor:
    """Entry i of the released networks' class code is entry permutation[i] of ours."""
    # The released code draws it with numpy's legacy generator, whose stream never changes.
    drawn = np.random.RandomState(0).permutation(class_dims)
    return torch.from_numpy(drawn.astype(np.int64))


def rest_order(channels: int, side: int, class_dims: int) -> Tensor:
    """Entry j of the released networks' other dimensions is entry order[j] of our other ones.

    Theirs are ordered by (horizontal, vertical frequency, channel), ours by (vertical, horizontal
    frequency, channel).

    Raises:
        ConfigError: The class dimensions are not among the C constant ones, whose place is the
            same in both orders.
    """
    if not 1 <= class_dims <= channels:
        raise ConfigError(
            f"class_dims is {class_dims}; the released layout has them among the {channels} "
            f"averages of the last feature map; expected 1 to {channels}"
        )
    places = torch.arange(channels * side * side).view(side, side, channels)
    return places.transpose(0, 1).reshape(-1)[class_dims:] - class_dims


def _flat(network: InvertibleNetwork) -> Iterator[FlowLayer]:
    for stage in network.layers:
        inner = stage.layers if isinstance(stage, Sequential) else [stage]
        for layer in inner:
            assert isinstance(layer, FlowLayer)
            yield layer


def _channels_before(layers: list[FlowLayer], position: int) -> int:
    before = layers[position - 1]
    assert isinstance(before, ChannelPermutation)
    return before.permutation.numel()


def _stored(key: str, tensor: Tensor, shape: Shape | None = None) -> Slot:
    """A tensor that is the model's own, up to its shape."""
    shape = tuple(tensor.shape) if shape is None else shape
    return Slot(
        key=key,
        shape=shape,
        read=lambda: (
            tensor.detach().cpu().reshape(shape).clone(memory_format=torch.contiguous_format)
        ),
        write=lambda value: _copy(tensor, value.reshape(tensor.shape)),
        dtype=tensor.dtype,
    )


@torch.no_grad()
def _copy(tensor: Tensor, value: Tensor) -> None:
    tensor.copy_(value)


def _fixed(key: str, value: Tensor, *, tolerance: float = 0.0) -> Slot:
    return Slot(key=key, shape=tuple(value.shape), read=value.clone, tolerance=tolerance)


def _module_slots(prefix: str, module: nn.Module) -> list[Slot]:
    return [_stored(prefix + name, tensor) for name, tensor in module.state_dict().items()]


def _mixing_slots(prefix: str, norm: SoftplusActNorm, mixing: ChannelPermutation) -> list[Slot]:
    channels = mixing.permutation.numel()

    def matrix() -> Tensor:
        return torch.eye(channels)[mixing.permutation.cpu()][:, :, None, None]

    def put(value: Tensor) -> None:
        permutation = _permutation_of(value[:, :, 0, 0], prefix + "w")
        _copy(mixing.permutation, permutation)
        _copy(mixing.inverse_permutation, permutation.argsort())

    per_channel = (1, channels, 1, 1)
    square = (channels, channels, 1, 1)
    return [
        _stored(prefix + "act_norm", norm.raw_scale, per_channel),
        _stored(prefix + "act_offset", norm.offset, per_channel),
        Slot(key=prefix + "w", shape=square, read=matrix, write=put),
        Slot(
            key=prefix + "w_inv",
            shape=square,
            read=lambda: matrix().transpose(0, 1).contiguous(),
        ),
    ]


def _permutation_of(matrix: Tensor, key: str) -> Tensor:
    """The p with matrix[i, p[i]] = 1."""
    channels = len(matrix)
    permutation = matrix.argmax(1)
    ones = matrix.gather(1, permutation[:, None])
    if (
        int(matrix.count_nonzero()) != channels
        or not bool((ones == 1.0).all())
        or len(permutation.unique()) != channels
    ):
        raise CheckpointError(
            f"tensor {key!r} is not a permutation matrix; expected one 1 per row and column and "
            "else 0: networks with hard permutations are supported, soft ones are not"
        )
    return permutation


def _coupling_slots(prefix: str, layer: DownsamplingCoupling | AffineCoupling) -> list[Slot]:
    if isinstance(layer, AffineCoupling):
        return _module_slots(prefix + "s.", layer.subnetwork)
    return [
        *_module_slots(prefix + "s_hi.", layer.strided),
        *_module_slots(prefix + "s_lo.", layer.plain),
        *(
            _fixed(f"{prefix}reshape_kernels.{half}", _reshape_kernel(channels))
            for half, channels in enumerate(layer.split)
        ),
    ]


def _reshape_kernel(channels: int) -> Tensor:
    """Space to depth as a grouped convolution: output 4c + i is pixel i of channel c's patch."""
    return torch.eye(4).view(4, 1, 2, 2).repeat(channels, 1, 1, 1)


def _haar_slot(number: int, *, channels: int) -> Slot:
    patch = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))
    weights = torch.tensor(patch, dtype=torch.float32).view(4, 1, 2, 2)
    return _fixed(f"module_list.{number}.haar_weights", weights.repeat(channels, 1, 1, 1))


def _pooling_slots(prefix: str, side: int) -> list[Slot]:
    """The cosine transform 2 Σ x cos(...) and its inverse, each (N, N)."""
    frequency = torch.arange(side, dtype=torch.float64)[:, None]
    position = torch.arange(side, dtype=torch.float64)[None, :]
    cosines = torch.cos(math.pi * (position + 0.5) * frequency / side)
    inverse = cosines.T / side
    inverse[:, 0] /= 2.0
    return [
        _fixed(prefix + "weight", (2.0 * cosines).float(), tolerance=FIXED_TOLERANCE),
        _fixed(prefix + "inv_weight", inverse.float(), tolerance=FIXED_TOLERANCE),
    ]


def _mean_slots(mixture: GaussianMixture, pooling: DctPooling) -> list[Slot]:
    classes, class_dims = mixture.means.shape
    order = rest_order(pooling.channels, pooling.height, class_dims)
    return [
        _permuted("mu", mixture.means, class_permutation(class_dims), (1, classes, class_dims)),
        _stored("mu_t", mixture.mean_weights),
        _permuted("mu_m", mixture.mean_basis, order, tuple(mixture.mean_basis.shape)),
    ]


def _permuted(key: str, tensor: Tensor, order: Tensor, shape: Shape) -> Slot:
    """Column j of the file is column order[j] of the model."""

    def put(value: Tensor) -> None:
        _copy(tensor, value.reshape(tensor.shape)[:, order.argsort()])

    return Slot(
        key=key,
        shape=shape,
        read=lambda: tensor.detach().cpu()[:, order].reshape(shape),
        write=put,
    )
