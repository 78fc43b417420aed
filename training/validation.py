"""How good a model is on validation images while it trains."""

from __future__ import annotations

import torch
from lightning.fabric import Fabric

from ibinn.classifier import GenerativeClassifier
from ibinn.density import bits_per_dim
from ibinn.images import Preprocessing
from training.image_set import ImageSet
from training.loader import eval_batches


@torch.no_grad()
def validate(
    model: GenerativeClassifier,
    images: ImageSet,
    preprocessing: Preprocessing,
    *,
    fabric: Fabric,
) -> tuple[float, float]:
    """Accuracy and bits/dim (centre dequantisation) with the model's running statistics.

    Each process looks at its part of the images.
    """
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=fabric.device)
    part = images.subset(range(fabric.global_rank, len(images), fabric.world_size))
    for batch in eval_batches(part, preprocessing, batch_size=250):
        z, log_det = model(preprocessing.to_tensor(batch.images.to(fabric.device)))
        labels = batch.labels.to(fabric.device)
        sums[0] += (model.mixture.logits(z).argmax(1) == labels).sum()
        log_q = model.mixture.log_prob(z) + log_det + preprocessing.log_det
        sums[1] += bits_per_dim(log_q.double(), preprocessing.dims).sum()
    if fabric.world_size > 1:
        torch.distributed.all_reduce(sums)
    correct, bits = sums.tolist()
    return correct / len(images), bits / len(images)
