"""Subnetworks as few layers: batch norms folded into convolutions, dropout left out.

Factors and offsets are folded in float64 and rounded once. Weights are multiplied in float32, as
their products with the data are, so that no wider copy of them exists.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from ibinn.errors import ConfigError
from ibinn.flow.coupling import ArctanClamp, TanhClamp
from ibinn.flow.subnetworks import LowPrecision
from ibinn.inference.plan import Affine, Convolution, Half


def fold_half(
    subnetwork: nn.Module,
    clamp: nn.Module,
    *,
    shift_gain: float = 1.0,
    inputs: Tensor | None = None,
    outputs: Tensor | None = None,
) -> Half:
    """A subnetwork and its clamp as the two convolutions and what comes before them.

    Args:
        subnetwork: A sequence of convolutions or linear layers, batch norms, ReLUs and dropouts
            that ends in a convolution or linear layer.
        clamp: `TanhClamp` or `ArctanClamp`.
        shift_gain: Factor on the shift.
        inputs: Order in which the channels of its input come; None for its own.
        outputs: Order in which the channels of the log-scale, and of the shift, are wanted.

    Raises:
        ConfigError: A layer is none of those.
    """
    layers = _fold_layers(subnetwork)
    if inputs is not None:
        layers = _with_inputs(layers, inputs)
    last = layers[-1] if layers else None
    if not isinstance(last, Convolution) or last.activation != "none":
        raise ConfigError(
            "a coupling's subnetwork does not end in a convolution or linear layer; the folded "
            "forms cannot take it: use the engine plain"
        )
    if isinstance(clamp, TanhClamp):
        amplitude, gain = clamp.clamp, clamp.gain
    elif isinstance(clamp, ArctanClamp):
        amplitude, gain = clamp.clamp * 0.636, 1 / clamp.clamp
    else:
        raise _unknown(clamp, "a coupling's clamp")
    count = len(last.weight) // 2
    order = torch.arange(count) if outputs is None else outputs.cpu()
    tanh = isinstance(clamp, TanhClamp)
    return Half(
        trunk=layers[:-1],
        log_scale=dataclasses.replace(
            _rows(last, order, gain), activation="tanh" if tanh else "none"
        ),
        shift=_rows(last, count + order, shift_gain),
        bound="tanh" if tanh else "atan",
        amplitude=amplitude,
    )


def with_act_norm(half: Half, scale: Tensor, offset: Tensor) -> Half:
    """The half followed by scale * y + offset per channel; scale is above 0."""
    shift, gain = half.shift, scale.double()
    bias = torch.zeros_like(gain) if shift.bias is None else shift.bias.double()
    return dataclasses.replace(
        half,
        shift=dataclasses.replace(
            shift,
            weight=shift.weight * gain.float()[:, None, None, None],
            bias=(gain * bias + offset.double()).float(),
        ),
        log_gain=gain.log().float(),
    )


def _fold_layers(subnetwork: nn.Module) -> tuple[Affine | Convolution, ...]:
    folded: list[Affine | Convolution] = []
    for layer in _flat(subnetwork):
        before = folded[-1] if folded else None
        if isinstance(layer, nn.Conv2d | nn.Linear):
            folded.append(_convolution(layer))
        elif isinstance(layer, nn.BatchNorm2d):
            scale, offset = _batch_norm(layer)
            if isinstance(before, Convolution) and before.activation == "none":
                folded[-1] = _scaled(before, scale, offset)
            else:
                folded.append(Affine(scale=scale.float(), offset=offset.float()))
        elif isinstance(layer, nn.ReLU):
            if isinstance(before, Convolution) and before.activation == "none":
                folded[-1] = dataclasses.replace(before, activation="relu")
            elif isinstance(before, Affine) and not before.relu:
                folded[-1] = dataclasses.replace(before, relu=True)
            elif before is None:
                folded.append(Affine(scale=None, offset=None, relu=True))
        elif not isinstance(layer, nn.Dropout | nn.Dropout2d):
            raise _unknown(layer, "a layer of a coupling's subnetwork")
    return tuple(folded)


def _flat(module: nn.Module) -> list[nn.Module]:
    if isinstance(module, LowPrecision):
        return _flat(module.module)
    if isinstance(module, nn.Sequential):
        return [layer for child in module for layer in _flat(child)]
    return [module]


def _convolution(layer: nn.Conv2d | nn.Linear) -> Convolution:
    bias = None if layer.bias is None else layer.bias.detach()
    if isinstance(layer, nn.Linear):
        return Convolution(weight=layer.weight.detach()[:, :, None, None], bias=bias)
    if layer.groups != 1 or layer.padding_mode != "zeros" or layer.dilation != (1, 1):
        raise _unknown(layer, "a convolution")
    assert isinstance(layer.padding[0], int)
    return Convolution(
        weight=layer.weight.detach(), bias=bias, stride=layer.stride[0], padding=layer.padding[0]
    )


def _batch_norm(layer: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    mean, variance = layer.running_mean, layer.running_var
    assert mean is not None
    assert variance is not None
    scale = layer.weight.detach().double() / (variance.double() + layer.eps).sqrt()
    return scale, layer.bias.detach().double() - mean.double() * scale


def _scaled(layer: Convolution, scale: Tensor, offset: Tensor) -> Convolution:
    bias = torch.zeros_like(scale) if layer.bias is None else layer.bias.double()
    return dataclasses.replace(
        layer,
        weight=layer.weight * scale.float()[:, None, None, None],
        bias=(scale * bias + offset).float(),
    )


def _rows(layer: Convolution, order: Tensor, gain: float) -> Convolution:
    index = order.to(layer.weight.device)
    return dataclasses.replace(
        layer,
        weight=layer.weight[index].mul_(gain),
        bias=None if layer.bias is None else layer.bias[index].mul_(gain),
    )


def _with_inputs(
    layers: tuple[Affine | Convolution, ...], order: Tensor
) -> tuple[Affine | Convolution, ...]:
    reordered = list(layers)
    for position, layer in enumerate(layers):
        if isinstance(layer, Convolution):
            index = order.to(layer.weight.device)
            reordered[position] = dataclasses.replace(layer, weight=layer.weight[:, index])
            break
        if layer.scale is not None and layer.offset is not None:
            index = order.to(layer.scale.device)
            reordered[position] = dataclasses.replace(
                layer, scale=layer.scale[index], offset=layer.offset[index]
            )
    return tuple(reordered)


def _unknown(module: nn.Module, what: str) -> ConfigError:
    return ConfigError(
        f"{what} is {module}, which the folded forms do not know; use the engine plain"
    )
