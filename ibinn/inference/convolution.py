"""Convolutions with a bias and an activation in one pass, their weights laid out once.

Shapes: maps are (B, H, W, C), channels fastest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibinn.inference.plan import Convolution


class FoldedConvolution(nn.Module):
    """activation(conv(x)) + addend for a map x, with torch's public operations.

    Args:
        layer: Weights and settings.
    """

    def __init__(self, layer: Convolution) -> None:
        super().__init__()
        self.register_buffer(
            "weight", layer.weight.contiguous(memory_format=torch.channels_last), persistent=False
        )
        self.register_buffer("bias", layer.bias, persistent=False)
        self.stride, self.padding = layer.stride, layer.padding
        self.activation = layer.activation

    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor, addend: Tensor | None = None) -> Tensor:
        y = F.conv2d(
            x.permute(0, 3, 1, 2), self.weight, self.bias, stride=self.stride, padding=self.padding
        ).permute(0, 2, 3, 1)
        if self.activation == "relu":
            y = y.relu_()
        elif self.activation == "tanh":
            y = y.tanh_()
        return y if addend is None else y.add_(addend)


class PackedConvolution(nn.Module):
    """The same with weights in the layout that oneDNN chooses for this processor.

    Torch's own call lays the weights out anew each time, which for a single image takes as long
    as the arithmetic. These operations are those that torch's compiler emits for processors.

    Args:
        layer: Weights and settings.
        size: (B, H, W) of typical inputs; others work too.
    """

    def __init__(self, layer: Convolution, size: tuple[int, int, int]) -> None:
        super().__init__()
        batch, height, width = size
        self.padding, self.stride = [layer.padding] * 2, [layer.stride] * 2
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(
            layer.weight,
            self.padding,
            self.stride,
            [1, 1],
            1,
            [batch, layer.weight.shape[1], height, width],
        )
        self.bias = layer.bias
        self.activation = layer.activation

    def forward(self, x: Tensor, addend: Tensor | None = None) -> Tensor:
        maps = x.permute(0, 3, 1, 2)
        settings = (self.weight, self.bias, self.padding, self.stride, [1, 1], 1)
        if addend is None:
            y = torch.ops.mkldnn._convolution_pointwise(maps, *settings, self.activation, [], "")
        else:
            y = torch.ops.mkldnn._convolution_pointwise.binary(
                maps, addend.permute(0, 3, 1, 2), *settings, "add", None, None, [], None
            )
        out: Tensor = y.permute(0, 2, 3, 1)
        return out
