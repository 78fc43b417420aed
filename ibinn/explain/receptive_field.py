"""What one cell of a heatmap responds to (figure 5.15; Eq. 5.30).

Shapes: B images, S side in pixels, H x W x C the last feature map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ibinn.errors import NotExplainableError
from ibinn.flow.base import InvertibleNetwork
from ibinn.flow.pooling import dct_matrix

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReceptiveField:
    """Effective receptive field of the central column of the last feature map.

    Attributes:
        sensitivity: Mean over images of Σ_colour Σ_l |∂u_l/∂x_ij|, scaled to a sum of 1 (S, S).
        row: Centre of the column's own cell in pixels, from the top edge of the image.
        column: The same from the left edge.
        cell_px: Side of a cell in pixels of the network's input.
        share_in_cell: Share of the sensitivity within the column's own cell.
        radius_50_px: Radius around (row, column) that holds half of it, in pixels.
        radius_90_px: Radius that holds 90 %.
        images: Number of images averaged.
    """

    sensitivity: FloatArray
    row: float
    column: float
    cell_px: float
    share_in_cell: float
    radius_50_px: float
    radius_90_px: float
    images: int


def receptive_field(
    network: InvertibleNetwork, x: Tensor, *, batch: int = 8, most_channels: int | None = None
) -> ReceptiveField:
    """Mean over images of Σ_colour Σ_l |∂u_l/∂x_ij| for the central column u (Eq. 5.30).

    One backward pass for each of the C channels: a sum of absolute values has no cheaper exact
    form. With an even number of cells there are four central ones; it is the lower right one.

    Args:
        network: In evaluation mode, so that images do not influence each other.
        x: Preprocessed images (B, 3, S, S).
        batch: Images at a time.
        most_channels: Sum over at most so many of the C channels, evenly spaced (an estimate);
            None: over all of them.

    Raises:
        NotExplainableError: The network has no last feature map with places.
    """
    if network.heatmap_shape is None:
        raise NotExplainableError(
            "this network mixes all positions after its last feature map, so no cell has a place; "
            "expected an architecture that ends in DCT pooling, such as 'small'"
        )
    height, width, _ = network.heatmap_shape
    total = torch.zeros(x.shape[2:], dtype=torch.float64)
    for part in x.split(batch):
        total += _sensitivity(network, part, most_channels).cpu()
    return field_of((total / total.sum()).numpy(), cells=(height, width), images=len(x))


def field_of(sensitivity: FloatArray, *, cells: tuple[int, int], images: int) -> ReceptiveField:
    """Radii and shares of a sensitivity map (S, S) that sums to 1, for H x W cells."""
    height, width = cells
    side = sensitivity.shape[0]
    cell = side / height
    row, column = (height // 2 + 0.5) * cell, (width // 2 + 0.5) * side / width
    rows = np.arange(side)[:, None] + 0.5 - row
    columns = np.arange(sensitivity.shape[1])[None, :] + 0.5 - column
    own = (np.abs(rows) < cell / 2) & (np.abs(columns) < side / width / 2)
    distance = np.hypot(rows, columns)
    order = np.argsort(distance, axis=None, kind="stable")
    held = np.cumsum(sensitivity.ravel()[order])
    radii = [float(distance.ravel()[order][np.searchsorted(held, share)]) for share in (0.5, 0.9)]
    return ReceptiveField(
        sensitivity=sensitivity,
        row=row,
        column=column,
        cell_px=cell,
        share_in_cell=float(sensitivity[own].sum()),
        radius_50_px=radii[0],
        radius_90_px=radii[1],
        images=images,
    )


def _sensitivity(network: InvertibleNetwork, x: Tensor, most_channels: int | None) -> Tensor:
    """Σ_images Σ_colour Σ_l |∂u_l/∂x_ij| (S, S), float64."""
    assert network.heatmap_shape is not None
    height, width, channels = network.heatmap_shape
    # The pooling is orthonormal: its inverse at one place is a weighted sum of its coefficients.
    rows = dct_matrix(height)[:, height // 2].to(x)
    columns = dct_matrix(width)[:, width // 2].to(x)
    inputs = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        z, _ = network(inputs)
        maps = z.view(-1, height, width, channels)
        column = torch.einsum("k,bklc,l->bc", rows, maps, columns).sum(0)
        total = torch.zeros(x.shape[2:], dtype=torch.float64, device=x.device)
        count = min(channels, most_channels or channels)
        chosen = torch.linspace(0, channels - 1, count).round().int().tolist()
        for channel in chosen:
            (gradient,) = torch.autograd.grad(
                column[channel], inputs, retain_graph=channel != chosen[-1]
            )
            total += gradient.abs().sum((0, 1)).double()
    return total
