"""Networks whose trained parts are taken back one by one: does a map notice?

A map that stays the same when the network forgets what it learned shows the image, not the
network (Adebayo et al. 2018). Shapes: (M, C, S, S) images.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ibinn.classifier import GenerativeClassifier

MEANS = "class means"
"""Name of the first thing that is randomised: what stands for the last layer."""

BATCH = 128

Subnetworks = (nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm)


def cascade(
    model: GenerativeClassifier, images: Tensor, *, seed: int = 0
) -> Iterator[tuple[str, GenerativeClassifier]]:
    """(name, copy of the model) with more and more randomised, from the answer to the input.

    First the class means get random directions of their lengths; then, stage by stage from the
    last to the first, every weight tensor of the subnetworks has its entries shuffled, and all
    batch-norm statistics are estimated again. Shuffling keeps the size of every weight, so that
    the network stays as invertible as it was; drawing them as at the start would make the
    couplings identities, since their last layers start at zero.

    Args:
        model: In evaluation mode; not changed.
        images: Preprocessed images for the batch-norm statistics.
        seed: Of every draw.
    """
    generator = torch.Generator().manual_seed(seed)
    current = copy.deepcopy(model).eval()
    with torch.no_grad():
        _randomise_means(current, generator)
    yield MEANS, copy.deepcopy(current)
    for name, stage in reversed(
        list(zip(current.network.stage_names, current.network.layers, strict=True))
    ):
        layers = [layer for layer in stage.modules() if isinstance(layer, Subnetworks)]
        if not layers:
            continue
        _shuffle(layers, generator)
        estimate_batch_norm(current, images)
        yield name, copy.deepcopy(current)


@torch.no_grad()
def estimate_batch_norm(model: GenerativeClassifier, images: Tensor) -> None:
    """Replace running batch-norm statistics by averages over images, in place."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    for part in images.split(BATCH):
        model.network(part)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


@torch.no_grad()
def _shuffle(layers: Sequence[nn.Module], generator: torch.Generator) -> None:
    for layer in layers:
        for parameter in layer.parameters(recurse=False):
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))


def _randomise_means(model: GenerativeClassifier, generator: torch.Generator) -> None:
    """Random directions of the same lengths; low-rank means keep their form."""
    mixture = model.mixture
    for parameter in (getattr(mixture, name, None) for name in ("means", "mean_basis")):
        if parameter is None:
            continue
        drawn = torch.randn(parameter.shape, generator=generator).to(parameter)
        lengths = parameter.norm(dim=1, keepdim=True)
        parameter.copy_(drawn * lengths / drawn.norm(dim=1, keepdim=True))
