"""Posterior heatmaps: where in the last feature map the evidence for a class lies.

Shapes: B batch, K classes, H x W x C the last feature map, D = H*W*C. Everything is float64.
They locate *latent* evidence: a cell's receptive field is larger than the cell.
"""

from __future__ import annotations

from torch import Tensor

from ibinn.classifier import Evidence
from ibinn.explain.cell_means import CellMeans
from ibinn.latent import LOG_2PI, Subspaces, log_sum_exp

__all__ = ["CellMeans", "completeness_error", "log_odds_heatmap", "posterior_heatmaps"]


def posterior_heatmaps(
    evidence: Evidence,
    *,
    cells: CellMeans,
    subspaces: Subspaces,
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
        cells: Of the model.
        subspaces: Of the mixture.
        temperature: T of the posterior that is explained.

    Returns:
        Q of shape (B, K, H, W), nats.
    """
    height, width, _ = cells.shape
    count = height * width
    cell_log_likelihoods = _cell_log_likelihoods(evidence.z, cells) / temperature
    totals = cell_log_likelihoods.sum(1)
    log_weights = subspaces.log_weights / temperature
    log_joint = log_weights + totals
    log_evidence = log_sum_exp(log_joint)[:, None]
    posterior = (log_joint - log_evidence).exp()
    mean_cells = (cell_log_likelihoods @ posterior[:, :, None])[:, :, 0]
    mean_total = (posterior * totals).sum(1, keepdim=True)
    shared = mean_cells + (log_evidence - mean_total) / count
    maps = cell_log_likelihoods + log_weights / count - shared[:, :, None]
    return maps.transpose(1, 2).reshape(len(evidence), -1, height, width)


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


def _cell_log_likelihoods(z: Tensor, cells: CellMeans) -> Tensor:
    """log q(w_kl|y) (B, H*W, K), from ‖w‖² - 2 w·m_y + ‖m_y‖² per cell.

    The transform is linear: w^(y) = w(z) - w(μ_y), so that no (B, K, D) array is formed.
    """
    own = cells.cells(z)
    squares = own.square().sum(2)[:, :, None] - 2.0 * cells.products(own) + cells.squares
    return -0.5 * squares - 0.5 * cells.shape[2] * LOG_2PI
