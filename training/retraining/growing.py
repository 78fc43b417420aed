"""A classifier with components for classes that it did not know; everything else stays.

Shapes: n images of the new class, D dimensions, K old classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ibinn.classifier import GenerativeClassifier
from ibinn.images import Preprocessing
from training.image_set import ImageSet
from training.loader import eval_batches


@torch.no_grad()
def start_from(
    fresh: GenerativeClassifier, base: GenerativeClassifier, codes: Sequence[Tensor]
) -> GenerativeClassifier:
    """`fresh` with the base's network and components, and one more component per new class.

    A new mean starts at `shrunken_mean` of the class's latent codes, where the base puts these
    images now. That is further out than the other means; drawn in to their distance, the boundary
    between them would come closer and the new class would take their images. With low-rank means
    it is the nearest one in the basis that is there. A learned class weight starts at the mean of
    the others.

    Args:
        fresh: Untrained, of the base's architecture, with K + len(codes) classes.
        base: With K classes.
        codes: Latent codes (n, D) of each new class, by the base.
    """
    state = {name: value.clone() for name, value in base.state_dict().items()}
    mixture = base.mixture
    if codes:
        equal = torch.full((1, mixture.classes), 1.0 / mixture.classes, dtype=torch.float64)
        centre = mixture.latent_means().combined(equal.to(mixture.means.device))[0].float()
        means = torch.stack([shrunken_mean(z, centre) for z in codes])
        width = mixture.means.shape[1]
        state["mixture.means"] = torch.cat((mixture.means, means[:, :width]))
        if mixture.config.rank is not None:
            basis = mixture.mean_basis
            weights = torch.linalg.lstsq(basis.T, means[:, width:].T).solution.T
            state["mixture.mean_weights"] = torch.cat((mixture.mean_weights, weights))
        state["mixture.phi"] = torch.cat(
            (mixture.phi, mixture.phi.mean().expand(len(codes)).clone())
        )
    fresh.load_state_dict(state)
    return fresh


def shrunken_mean(z: Tensor, centre: Tensor) -> Tensor:
    """Positive-part James-Stein estimate of a class's mean (D,).

    μ = c + max(0, 1 - (D - 2) / (n ‖z̄ - c‖²)) (z̄ - c), for codes of unit variance: of few images
    the plain mean z̄ is √(D/n) away from the truth, further than classes are from each other.

    Args:
        z: Latent codes (n, D).
        centre: c (D,), mean of the means that are there.

    >>> z = torch.tensor([[3.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    >>> shrunken_mean(z, torch.zeros(3))
    tensor([3.8750, 0.0000, 0.0000])
    """
    count, dims = z.shape
    away = z.mean(0) - centre
    squared = float(away.square().sum())
    factor = max(0.0, 1.0 - (dims - 2) / (count * squared)) if squared else 0.0
    return centre + factor * away


@torch.no_grad()
def latent_codes(
    model: GenerativeClassifier,
    preprocessing: Preprocessing,
    images: ImageSet,
    *,
    device: torch.device,
) -> Tensor:
    """Latent codes (n, D) of images, on the CPU."""
    model.eval().to(device)
    codes = [
        model(preprocessing.to_tensor(batch.images.to(device)))[0].cpu()
        for batch in eval_batches(images, preprocessing, batch_size=100)
    ]
    model.cpu()
    return torch.cat(codes) if codes else torch.empty(0, model.mixture.dims)
