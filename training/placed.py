"""Random numbers that depend on an image's place in the step, not on who computes it.

A step's images stand in one order over all micro-batches and processes. The noise of an image is
a function of (seed, step, place), and dropout's draws one of (seed, step, micro-batch, place in
it), so that a step has the same random numbers on any number of processes.

Shapes: B images of one micro-batch in one process, C channels, S x S pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

_PLACES = 1_000_003
"""Prime, so that the seeds of the places of one step do not meet those of the next."""


def step_seed(seed: int, step: int) -> int:
    """Seed of everything random at a step."""
    return (seed * 1_000_003 + step) * 4_099


def noise(
    first: int, count: int, shape: tuple[int, ...], *, seed: int, device: torch.device
) -> Tensor:
    """Uniform numbers in [0, 1) for the images at places first ... first + count - 1.

    Args:
        first: Place of the first image in the step.
        count: B.
        shape: Of each image's numbers.
        seed: Of the step.
        device: Where they are wanted.

    Returns:
        float32 (B, *shape).
    """
    generator = torch.Generator(device=device)
    if device.type == "cpu":
        # Numbers come one after the other: those of earlier places are drawn and left.
        generator.manual_seed(seed)
        return torch.rand((first + count, *shape), generator=generator)[first:]
    drawn = torch.empty((count, *shape), device=device)
    for row in range(count):
        generator.manual_seed((seed * _PLACES + first + row) % 2**63)
        drawn[row].uniform_(generator=generator)
    return drawn


class PlacedDropout(_DropoutNd):
    """Dropout that draws for the images of all processes and takes its own.

    All processes' generators must be in the same state. On a CPU, one process alone drops what
    torch's own dropout drops.

    Args:
        p: Probability of dropping.
        channels: Whether whole channels are dropped, or single numbers.
        rank: Number of this process.
        world_size: Processes, each with as many images.
    """

    def __init__(self, p: float, *, channels: bool, rank: int, world_size: int) -> None:
        super().__init__(p)
        self.channels = channels
        self.rank, self.world_size = rank, world_size

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        batch = x.shape[0]
        one = (x.shape[1], *(1,) * (x.dim() - 2)) if self.channels else x.shape[1:]
        kept = x.new_empty((batch * self.world_size, *one)).bernoulli_(1.0 - self.p)
        own = kept[self.rank * batch : (self.rank + 1) * batch]
        return x * own.div_(1.0 - self.p)


def place_dropout(model: nn.Module, *, rank: int, world_size: int) -> None:
    """Let all dropout of a model depend on the image's place, in place."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _DropoutNd) and not isinstance(child, PlacedDropout):
                channels = not isinstance(child, nn.Dropout)
                placed = PlacedDropout(child.p, channels=channels, rank=rank, world_size=world_size)
                setattr(parent, name, placed)
