"""Convolutions with a bias and an activation in one pass, their weights laid out once.

Shapes: maps are (B, H, W, C), channels fastest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibinn.inference.plan import Convolution


class PublicConvolution(nn.Module):
    """activation(conv(x)) or conv(x) + addend for a map x, with torch's public operations.

    Args:
        layer: Weights and settings.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: Convolution) -> None:
        super().__init__()
        self.register_buffer(
            "weight", layer.weight.contiguous(memory_format=torch.channels_last), persistent=False
        )
        self.register_buffer("bias", layer.bias, persistent=False)
        self.stride, self.padding = layer.stride, layer.padding
        self.activation = layer.activation

    def forward(self, x: Tensor, addend: Tensor | None = None) -> Tensor:
        y = F.conv2d(
            x.permute(0, 3, 1, 2), self.weight, self.bias, stride=self.stride, padding=self.padding
        ).permute(0, 2, 3, 1)
        if self.activation == "relu":
            y = y.relu()
        elif self.activation == "tanh":
            y = y.tanh()
        return y if addend is None else y + addend


class PackedConvolution(nn.Module):
    """The same with the weights as oneDNN wants them on this processor.

    Torch's own calls lay the weights out anew each time, which for a single image takes as long
    as the arithmetic. These operations are the ones that torch's compiler uses. Convolutions of
    single pixels are matrix products, whose layout suits any number of pixels.

    Args:
        layer: Weights and settings.
        side: Side of its inputs in pixels.
    """

    def __init__(self, layer: Convolution, side: int) -> None:
        super().__init__()
        ops = torch.ops.mkldnn
        self.bias, self.activation = layer.bias, layer.activation
        self.matrix = layer.weight.shape[2:] == (1, 1) and layer.stride == 1
        self.settings = ([layer.padding] * 2, [layer.stride] * 2, [1, 1], 1)
        weight = layer.weight.contiguous()
        if self.matrix:
            self.weight = ops._reorder_linear_weight(weight[:, :, 0, 0], side * side)
        else:
            size = [1, weight.shape[1], side, side]
            self.weight = ops._reorder_convolution_weight(weight, *self.settings, size)

    def forward(self, x: Tensor, addend: Tensor | None = None) -> Tensor:
        y: Tensor
        if self.matrix:
            y = self._product(x.reshape(-1, x.shape[3]), addend)
            return y.view(*x.shape[:3], -1)
        maps = x.contiguous().permute(0, 3, 1, 2)
        y = torch.ops.mkldnn._convolution_pointwise(
            maps, self.weight, self.bias, *self.settings, self.activation, [], ""
        )
        y = y.permute(0, 2, 3, 1)
        return y if addend is None else y.add_(addend)

    def _product(self, rows: Tensor, addend: Tensor | None) -> Tensor:
        ops = torch.ops.mkldnn
        y: Tensor
        if addend is None:
            y = ops._linear_pointwise(rows, self.weight, self.bias, self.activation, [], "")
        else:
            other = addend.reshape(len(rows), -1)
            y = ops._linear_pointwise.binary(rows, other, self.weight, self.bias, "add")
        return y
