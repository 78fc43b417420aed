"""A residual network as convolutions with everything folded, whatever computes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ibinn.inference.plan import Activation, Convolution


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """max(layers(x) + shortcut(x), 0).

    Attributes:
        layers: Three convolutions, a ReLU in all but the last.
        shortcut: Where the shape changes, else None.
    """

    layers: tuple[Convolution, ...]
    shortcut: Convolution | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """ResNet-50 with its batch norms in its convolutions.

    Attributes:
        stem: 7×7, stride 2, with a ReLU; a maximum over 3×3 follows.
        blocks: In order.
        head_weight: Of the linear layer (classes, channels), after the mean over the pixels.
        head_bias: (classes,).
    """

    stem: Convolution
    blocks: tuple[Block, ...]
    head_weight: Tensor
    head_bias: Tensor


def folded(model: nn.Module) -> Residual:
    """timm's ``resnet50`` in this form; other networks are not known."""
    parts: dict[str, Any] = dict(model.named_children())
    blocks = [
        _block(block) for number in range(1, 5) for block in parts[f"layer{number}"].children()
    ]
    return Residual(
        stem=_convolution(parts["conv1"], parts["bn1"], "relu"),
        blocks=tuple(blocks),
        head_weight=parts["fc"].weight.detach(),
        head_bias=parts["fc"].bias.detach(),
    )


def _block(block: nn.Module) -> Block:
    parts: dict[str, Any] = dict(block.named_children())
    down = parts.get("downsample")
    return Block(
        layers=(
            _convolution(parts["conv1"], parts["bn1"], "relu"),
            _convolution(parts["conv2"], parts["bn2"], "relu"),
            _convolution(parts["conv3"], parts["bn3"], "none"),
        ),
        shortcut=None if down is None else _convolution(down[0], down[1], "none"),
    )


def _convolution(layer: nn.Conv2d, norm: nn.BatchNorm2d, activation: Activation) -> Convolution:
    fused = fuse_conv_bn_eval(layer, norm)
    assert fused.bias is not None
    assert isinstance(fused.padding[0], int)
    return Convolution(
        weight=fused.weight.detach().contiguous(),
        bias=fused.bias.detach(),
        stride=fused.stride[0],
        padding=fused.padding[0],
        activation=activation,
    )
