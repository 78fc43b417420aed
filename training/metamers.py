"""Images with the class part of one image and the style part of another (Jacobsen et al. 2019).

z = z_s(B) + (1 - t) z_c(B) + t z_c(A), inverted to an image: an invertible classifier decides from
z_c alone, so at t = 1 it must answer as it does for A, whatever the image looks like. What is left
of that after rounding to 8 bits and the JPEG step is what is judged.

Shapes: B pairs, D dimensions, K classes, S side; pixels are uint8 (B, S, S, 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ibinn.errors import ConfigError
from ibinn.latent import Subspaces
from ibinn.trusted import TrustedClassifier
from training.ood_sets import Pixels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Swapped:
    """Inverted images.

    Attributes:
        pixels: uint8 (B, S, S, 3), before the JPEG step.
        clipped: Share of the values that lay outside of [0, 255] before they were clipped.
    """

    pixels: Pixels
    clipped: float


def swap(
    classifier: TrustedClassifier, class_images: Pixels, style_images: Pixels, *, share: float
) -> Swapped:
    """Images whose class part is moved from the style image's to the class image's.

    Args:
        classifier: Whose latent space it is.
        class_images: A, finished pixels, uint8 (B, S, S, 3).
        style_images: B, finished pixels; at share 0 they are given back.
        share: t in [0, 1].

    Raises:
        ConfigError: A share outside of [0, 1].
    """
    if not 0.0 <= share <= 1.0:
        raise ConfigError(f"share of the class part is {share:g}; expected 0 to 1")
    with torch.no_grad():
        z_class, z_style = (_codes(classifier, pixels) for pixels in (class_images, style_images))
        subspaces = Subspaces.of(classifier.model.mixture)
        moved = class_part(z_class - z_style, subspaces)
        x, _ = classifier.network.inverse((z_style + share * moved).float())
    return _to_pixels(classifier, x)


def class_part(z: Tensor, subspaces: Subspaces) -> Tensor:
    """z_c = Mᵀ G⁺ M z, the projection onto the span of the means (Eq. 5.31).

    Args:
        z: (B, D), float64.
        subspaces: Of the mixture whose means M (K, D) holds; no matrix of that size is made.
    """
    return subspaces.means.combined(subspaces.mean_products(z) @ subspaces.gram_pinv)


def _codes(classifier: TrustedClassifier, pixels: Pixels) -> Tensor:
    on_device = torch.from_numpy(pixels).to(classifier.device)
    return classifier.network(classifier.preprocessing.to_tensor(on_device))[0].double()


def _to_pixels(classifier: TrustedClassifier, x: Tensor) -> Swapped:
    config = classifier.preprocessing.config
    std = torch.tensor(config.std).view(1, -1, 1, 1).to(x)
    mean = torch.tensor(config.mean).view(1, -1, 1, 1).to(x)
    # Where the inverse overflows there is no colour to show: black, and counted as clipped.
    levels = torch.nan_to_num(((x * std + mean) * float(config.levels) - 0.5).round(), nan=-1.0)
    outside = (levels < 0) | (levels > 255)
    pixels = levels.clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8)
    return Swapped(pixels=pixels.cpu().numpy(), clipped=float(outside.double().mean()))
