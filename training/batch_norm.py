"""Running batch-norm statistics for weights that never ran with the collected ones."""

from __future__ import annotations

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from torch import nn

from ibinn.classifier import GenerativeClassifier
from ibinn.images import Preprocessing
from training.config import FitConfig
from training.image_set import ImageSet
from training.loader import eval_batches
from training.synchronised import SynchronisedBatchNorm

_EVAL_BATCH = 250


@torch.no_grad()
def reestimate_batch_norm(
    model: GenerativeClassifier,
    images: ImageSet,
    preprocessing: Preprocessing,
    config: FitConfig,
    *,
    fabric: Fabric,
) -> None:
    """Replace running batch-norm statistics by averages over training images at their centres.

    Averaged weights never ran with the statistics that were collected along the way. Each process
    takes its part of the batches.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        return
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
        if isinstance(norm, SynchronisedBatchNorm):
            norm.alone = True
    for batch in eval_batches(_own_batches(images, config, fabric), preprocessing, _EVAL_BATCH):
        if len(batch.labels) > 1:
            model(preprocessing.to_tensor(batch.images.to(fabric.device)))
    for norm in norms:
        norm.momentum = 0.1
        if isinstance(norm, SynchronisedBatchNorm):
            norm.alone = False
        if fabric.world_size > 1:
            _average_statistics(norm, fabric)
    model.eval()


def _own_batches(images: ImageSet, config: FitConfig, fabric: Fabric) -> ImageSet:
    """The images of this process's batches, batch after batch."""
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(config.seed))
    subset = sorted(chosen[: config.reestimate_images].tolist())
    # Sorted by class, a batch would hold one class and its statistics would be that class's.
    order = torch.randperm(len(subset), generator=torch.Generator().manual_seed(config.seed + 1))
    shuffled = [subset[position] for position in order.tolist()]
    starts = range(fabric.global_rank * _EVAL_BATCH, len(shuffled), fabric.world_size * _EVAL_BATCH)
    return images.subset(
        [position for start in starts for position in shuffled[start : start + _EVAL_BATCH]]
    )


def _average_statistics(norm: nn.BatchNorm2d, fabric: Fabric) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    batches = norm.num_batches_tracked
    sums = torch.cat(
        (norm.running_mean * batches, norm.running_var * batches, batches[None].float())
    )
    dist.all_reduce(sums)
    mean, var = (sums[:-1] / sums[-1]).chunk(2)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(var)
    batches.copy_(sums[-1])
