"""What the model holds a class to look like: samples, and the way from one code to another.

Images of these functions are made by the model; none is of a data set (figures 5.9 and 5.10).
Shapes: B batch, K classes, D dimensions, S side in pixels, N steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ibinn.classifier import GenerativeClassifier
from ibinn.errors import ConfigError
from ibinn.images import Pixels, Preprocessing


def class_sheet(
    model: GenerativeClassifier,
    preprocessing: Preprocessing,
    label: int,
    *,
    temperatures: Sequence[float],
    count: int,
    seed: int = 0,
) -> Pixels:
    """Images of one class at several temperatures, the same noise in each column (figure 5.9).

    z = μ_y + T ε with ε ~ N(0, I); at T = 0 all columns show the class's mean, at T = 1 they are
    draws from q(x|y).

    Args:
        model: In evaluation mode.
        preprocessing: Of the model.
        label: The class.
        temperatures: One per row, at least 0.
        count: Number of columns.
        seed: Of the noise.

    Returns:
        uint8 (temperatures, count, S, S, 3).
    """
    if min(temperatures) < 0:
        raise ConfigError(f"temperatures are {tuple(temperatures)}; expected numbers of at least 0")
    mixture = model.mixture
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        mean = mixture.class_means(torch.tensor(label, device=mixture.means.device))
        noise = torch.randn(count, mixture.dims, generator=generator).to(mean)
        codes = torch.cat([mean + temperature * noise for temperature in temperatures])
    images = decode(model, preprocessing, codes)
    return images.reshape(len(temperatures), count, *images.shape[1:])


def interpolate(first: Tensor, second: Tensor, steps: int) -> Tensor:
    """Points on the straight line between latent codes (figure 5.10).

    Args:
        first: (D,).
        second: (D,).
        steps: N, at least 2; both ends are among them.

    Returns:
        (N, D).
    """
    if steps < 2:
        raise ConfigError(f"steps is {steps}; expected at least 2, the two ends")
    share = torch.linspace(0.0, 1.0, steps, device=first.device, dtype=first.dtype)[:, None]
    return (1.0 - share) * first + share * second


def decode(model: GenerativeClassifier, preprocessing: Preprocessing, codes: Tensor) -> Pixels:
    """The images g⁻¹(z) of latent codes (B, D), uint8 (B, S, S, 3).

    A code far from every class can leave the range in which the network inverts: what is not
    finite is shown black.
    """
    with torch.no_grad():
        x, _ = model.network.inverse(codes)
    return preprocessing.to_pixels(torch.nan_to_num(x, nan=-1e3, posinf=1e3, neginf=-1e3))


def codes_of(model: GenerativeClassifier, preprocessing: Preprocessing, pixels: Pixels) -> Tensor:
    """Latent codes g(x) (B, D) of finished pixels, uint8 (B, S, S, 3)."""
    device = model.mixture.means.device
    with torch.no_grad():
        x = preprocessing.to_tensor(torch.from_numpy(np.ascontiguousarray(pixels)).to(device))
        codes: Tensor = model.network(x)[0]
    return codes
