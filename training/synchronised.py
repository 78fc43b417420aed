"""Batch norm whose batch is that of all processes.

torch's own synchronised batch norm does not run on CPUs, where training on several processes is
tested against training on one.

Shapes: x (B, C, H, W), B images of each process, the same number everywhere.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """Batch norm whose batch is that of all processes: y = (x - mean) / √(var + eps) * γ + β.

    Statistics, products and gradients are in float32, whatever precision x has. In evaluation
    mode, and where `alone` is set, it is the ordinary batch norm.
    """

    alone = False

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> SynchronisedBatchNorm:
        """A synchronised one with the parameters and statistics of an ordinary one."""
        made = cls(norm.num_features, norm.eps, norm.momentum, affine=False)
        made.affine, made.weight, made.bias = norm.affine, norm.weight, norm.bias
        made.running_mean, made.running_var = norm.running_mean, norm.running_var
        made.num_batches_tracked = norm.num_batches_tracked
        return made.train(norm.training)

    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.alone or dist.get_world_size() == 1:
            return super().forward(x)
        y, mean, var = _Normalise.apply(x, self.weight, self.bias, self.eps)
        self._count(mean, var, x.numel() // x.shape[1] * dist.get_world_size())
        normalised: Tensor = y
        return normalised

    @torch.no_grad()
    def _count(self, mean: Tensor, var: Tensor, numbers: int) -> None:
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var * (numbers / max(numbers - 1, 1)), self.momentum)


class _Normalise(torch.autograd.Function):
    """(x, γ, β) -> (y, mean (C,), variance (C,)) over the images of all processes.

    With m numbers per channel in all and x̂ = (x - mean)/σ, the gradient is
    γ/σ * (g - Σg/m - x̂ Σ(g x̂)/m), its sums over all processes. γ's and β's own gradients are
    left to this process's images, as those of all parameters are: they are averaged later.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        var, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
        own = torch.stack((mean, var))
        everyone = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(everyone, own)
        means, variances = torch.stack(everyone).unbind(1)
        # Squares of differences, not differences of squares: those lose the digits.
        mean = means.mean(0)
        var = (variances + (means - mean).square()).mean(0)
        scale = (var + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.mark_non_differentiable(mean, var)
        y = torch.addcmul(_shaped(bias - mean * scale * weight), x.float(), _shaped(scale * weight))
        return y.to(x.dtype), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, scale = ctx.saved_tensors
        wide = grad.float()
        centred = (x.float() - _shaped(mean)) * _shaped(scale)
        own = torch.stack((wide.sum((0, 2, 3)), (wide * centred).sum((0, 2, 3))))
        sums = own.clone()
        dist.all_reduce(sums)
        sums /= x.numel() // x.shape[1] * dist.get_world_size()
        inner = wide - _shaped(sums[0]) - centred * _shaped(sums[1])
        grad_x = (inner * _shaped(weight * scale)).to(x.dtype)
        return grad_x, own[1], own[0], None


def _shaped(values: Tensor) -> Tensor:
    return values[None, :, None, None]


def synchronise_batch_norm(model: nn.Module) -> None:
    """Make every batch norm of a model a synchronised one, in place; names stay."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, SynchronisedBatchNorm.of(child))
