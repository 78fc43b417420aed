"""What each of two processes computes for the tests; it imports little, to start quickly."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.placed import PlacedDropout
from training.synchronised import SynchronisedBatchNorm

SHAPE = (6, 3, 4, 5)
PARTS = 2


def inputs() -> tuple[Tensor, Tensor]:
    """Images far from zero, and the gradient at the output."""
    generator = torch.Generator().manual_seed(0)
    x = (
        30.0
        + torch.randn(SHAPE, generator=generator) * torch.tensor([1.0, 5.0, 0.1])[:, None, None]
    )
    return x, torch.randn(SHAPE, generator=generator)


def make_norm() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(3, eps=1e-4)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, -2.0]))
        norm.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    return norm.train()


def through(norm: nn.Module, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    y = norm(x)
    y.backward(grad.to(y.dtype))
    assert x.grad is not None
    gradients = {name: value.grad for name, value in norm.named_parameters()}
    return {"y": y.detach(), "x": x.grad, **gradients, **dict(norm.named_buffers())}


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=PARTS
    )
    x, grad = (part.chunk(PARTS)[rank] for part in inputs())
    norm = SynchronisedBatchNorm.of(make_norm())
    found = through(norm, x, grad)
    low = SynchronisedBatchNorm.of(make_norm())
    found["low y"] = through(low, x.bfloat16(), grad)["y"]
    found["alone"] = norm.eval()(x).detach()
    torch.manual_seed(4)
    dropout = PlacedDropout(0.5, channels=True, rank=rank, world_size=PARTS)
    found["dropped"] = dropout(x)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()
