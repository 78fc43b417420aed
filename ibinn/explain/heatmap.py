"""Posterior heatmaps: where in the last feature map the evidence for a class lies.

Shapes: B batch, K classes, H x W x C the last feature map, D = H*W*C. Everything is float64.
They locate *latent* evidence: a cell's receptive field is larger than the cell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ibinn.classifier import Evidence
from ibinn.errors import NotExplainableError
from ibinn.flow.pooling import dct_matrix
from ibinn.latent import LOG_2PI, Subspaces


def posterior_heatmaps(
    evidence: Evidence,
    *,
    means: Tensor,
    subspaces: Subspaces,
    heatmap_shape: tuple[int, int, int] | None,
    temperature: float = 1.0,
) -> Tensor:
    """Heatmaps Q(k, l, y) that sum to log q(y|x) exactly (Eq. 5.35-5.40; C.61-C.63 corrected).

    With w^(y) the orthonormal inverse DCT of z - μ_y and
    log q(w_kl|y) = -½ Σ_m w²_klm - (C/2) log 2π:

        Q(k, l, y) = log q(w_kl|y) + w_y/(HW) - S_kl
        S_kl = Σ_y q(y|x) log q(w_kl|y) + [log q(z) - Σ_y q(y|x) log q(z|y)] / (HW)

    S is shared by all classes. With a temperature, every log-likelihood and w_y is divided by
    T, q(y|x) is the tempered posterior and log q(z) its normaliser.

    Args:
        evidence: Of B images.
        means: μ (K, D).
        subspaces: Of the mixture.
        heatmap_shape: (H, W, C), or None where the network has no heatmap.
        temperature: T of the posterior that is explained.

    Returns:
        Q of shape (B, K, H, W), nats.

    Raises:
        NotExplainableError: Something other than the pooling follows the last feature map.
    """
    if heatmap_shape is None:
        raise NotExplainableError(
            "this network mixes all positions after its last feature map, so no exact heatmap "
            "exists; expected an architecture that ends in DCT pooling, such as 'small'"
        )
    height, width, _ = heatmap_shape
    cells = height * width
    cell_log_likelihoods = _cell_log_likelihoods(evidence, means, heatmap_shape) / temperature
    log_weights = subspaces.log_weights / temperature
    log_joint = log_weights + cell_log_likelihoods.sum((2, 3))
    log_evidence = torch.logsumexp(log_joint, dim=1)
    posterior = (log_joint - log_evidence[:, None]).exp()
    mean_cells = (posterior[:, :, None, None] * cell_log_likelihoods).sum(1)
    mean_total = (posterior * cell_log_likelihoods.sum((2, 3))).sum(1)
    shared = mean_cells + ((log_evidence - mean_total) / cells)[:, None, None]
    return cell_log_likelihoods + (log_weights / cells)[None, :, None, None] - shared[:, None]


def log_odds_heatmap(heatmaps: Tensor, first: int, second: int) -> Tensor:
    """Where the evidence for one class over another lies: Q(first) - Q(second), (B, H, W).

    It sums to log q(first|x) - log q(second|x); the shared part S cancels.
    """
    return heatmaps[:, first] - heatmaps[:, second]


def completeness_error(heatmaps: Tensor, log_posterior: Tensor) -> Tensor:
    """max_y |Σ_kl Q(k, l, y) - log q(y|x)| in nats, (B,).

    Args:
        heatmaps: (B, K, H, W).
        log_posterior: The answer's own log q(y|x) (B, K), from the latent products.
    """
    return (heatmaps.sum((2, 3)) - log_posterior).abs().amax(1)


def _cell_log_likelihoods(
    evidence: Evidence, means: Tensor, heatmap_shape: tuple[int, int, int]
) -> Tensor:
    """log q(w_kl|y) (B, K, H, W), from ‖w‖² - 2 w·m_y + ‖m_y‖² per cell.

    The transform is linear: w^(y) = w(z) - w(μ_y), so that no (B, K, D) array is formed.
    """
    channels = heatmap_shape[2]
    pixels = _to_cells(evidence.z.double(), heatmap_shape)
    mean_pixels = _to_cells(means.double(), heatmap_shape)
    products = torch.einsum("bklc,yklc->bykl", pixels, mean_pixels)
    squares = pixels.square().sum(3)[:, None] - 2.0 * products + mean_pixels.square().sum(3)
    return -0.5 * squares - 0.5 * channels * LOG_2PI


def _to_cells(z: Tensor, heatmap_shape: tuple[int, int, int]) -> Tensor:
    height, width, channels = heatmap_shape
    rows = dct_matrix(height).to(z.device)
    columns = dct_matrix(width).to(z.device)
    return torch.einsum("ki,bklc,lj->bijc", rows, z.view(-1, height, width, channels), columns)
