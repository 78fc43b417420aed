"""Training objectives for invertible generative classifiers.

Shapes: B batch, D dimensions, K classes. Losses are means over the batch, in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ibinn.errors import ConfigError
from ibinn.latent import GaussianMixture


@dataclass(frozen=True, slots=True, kw_only=True)
class LossTerms:
    """One batch's objective and its parts.

    Attributes:
        loss: What is minimised, a scalar.
        nll_per_dim: L_X / D, nats per dimension without the constants.
        log_posterior: L_Y, mean of Σ_y t_y log q(y|x), at most 0.
        correct: Number of images whose most probable class is the target's.
    """

    loss: Tensor
    nll_per_dim: Tensor
    log_posterior: Tensor
    correct: Tensor


def soft_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Targets t (B, K): 1 - α on the label plus α/K everywhere."""
    one_hot = torch.nn.functional.one_hot(labels, classes).float()
    return one_hot * (1.0 - smoothing) + smoothing / classes


def information_bottleneck(
    mixture: GaussianMixture, z: Tensor, log_det: Tensor, targets: Tensor, *, gamma: float
) -> LossTerms:
    """The IB loss 2/(1+γ) (L_X/D - γ L_Y) (Eq. 5.10-5.17; C.42-C.47, signs corrected).

    L_X = mean of -logsumexp_y(w_y - ½‖z - μ_y‖²) - log|det J|, and L_Y = mean of
    Σ_y t_y log q(y|x). γ = 0 is a plain flow, γ = ∞ means L = -2 L_Y. Where the class weights
    are learned, only L_X's gradient reaches them: L_Y could be cheated by them.

    Args:
        mixture: The latent mixture.
        z: Latent codes (B, D).
        log_det: log|det J| (B,).
        targets: t (B, K), rows sum to one.
        gamma: γ in [0, ∞].

    Raises:
        ConfigError: γ is negative or not a number.
    """
    if math.isnan(gamma) or gamma < 0:
        raise ConfigError(f"gamma is {gamma}; expected a number in [0, inf]")
    scores = mixture.mean_products(z) - 0.5 * mixture.mean_norms()
    log_weights = mixture.log_weights
    log_posterior = torch.log_softmax(scores + log_weights.detach(), dim=1)
    l_y = (targets * log_posterior).sum(1).mean()
    nll = 0.5 * z.square().sum(1) - torch.logsumexp(scores + log_weights, dim=1) - log_det
    l_x = nll.mean() / mixture.dims
    if math.isinf(gamma):
        loss = -2.0 * l_y
    else:
        loss = 2.0 / (1.0 + gamma) * (l_x - gamma * l_y)
    return _terms(loss, l_x, l_y, log_posterior, targets)


def class_nll(mixture: GaussianMixture, z: Tensor, log_det: Tensor, targets: Tensor) -> LossTerms:
    """Class-conditional likelihood: mean of Σ_y t_y (½‖z - μ_y‖² - w_y) - log|det J|, over D.

    The maximum-likelihood baseline (Eq. 5.18). With hard targets it is -log q(x, y) / D up to
    constants.
    """
    scores = mixture.mean_products(z) - 0.5 * mixture.mean_norms() + mixture.log_weights
    log_posterior = torch.log_softmax(scores, dim=1)
    nll = 0.5 * z.square().sum(1) - torch.logsumexp(scores, dim=1) - log_det
    joint = 0.5 * z.square().sum(1) - (targets * scores).sum(1) - log_det
    l_y = (targets * log_posterior).sum(1).mean()
    return _terms(
        joint.mean() / mixture.dims, nll.mean() / mixture.dims, l_y, log_posterior, targets
    )


def _terms(loss: Tensor, l_x: Tensor, l_y: Tensor, log_q: Tensor, targets: Tensor) -> LossTerms:
    return LossTerms(
        loss=loss,
        nll_per_dim=l_x.detach(),
        log_posterior=l_y.detach(),
        correct=(log_q.argmax(1) == targets.argmax(1)).sum().detach(),
    )
