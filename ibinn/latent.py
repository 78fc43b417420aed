"""The latent Gaussian mixture with one unit-variance component per class.

Shapes: B batch, D dimensions, K classes, R rank of low-rank means. q(z|y) = N(μ_y, I) and
q(z) = Σ_y p(y) q(z|y) with log p(y) = w_y = log_softmax(φ)_y (Eq. 5.8). Every density keeps its
constants, in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ibinn.errors import ConfigError
from ibinn.latent_means import LatentMeans

LOG_2PI = math.log(2.0 * math.pi)

RANK_TOLERANCE = 1e-10
"""Eigenvalues of the Gram matrix below this share of the largest count as zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureConfig:
    """Shape of the means and of the class weights.

    Attributes:
        rank: Rank R of the means outside of the first `class_dims` dimensions; None: full means.
        class_dims: Leading dimensions with full means where the rest is low-rank.
        learned_weights: Whether φ is learned; else classes are equally likely.
        initial_distance: Distance between two means at the start.
        means: ``learned``, or ``sphere``: drawn once from the uniform law on the sphere of radius
            √D and never moved, for the baseline of Eq. 5.18.
    """

    rank: int | None = None
    class_dims: int = 0
    learned_weights: bool = False
    initial_distance: float = 5.0
    means: Literal["learned", "sphere"] = "learned"

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise ConfigError(f"mixture: rank is {self.rank}; expected at least 1 or none")
        if self.means not in ("learned", "sphere"):
            raise ConfigError(f"mixture: means is {self.means!r}; expected learned or sphere")
        if self.means == "sphere" and self.rank is not None:
            raise ConfigError(
                f"mixture: means on a sphere with rank {self.rank}; only full means are drawn "
                "there; set rank to none"
            )


class GaussianMixture(nn.Module):
    """Class-conditional unit Gaussians in latent space.

    With low-rank means, μ = [μ_fc, T·M] with μ_fc (K, class_dims), T (K, R) and M (R, rest);
    z·μ is taken as z_fc·μ_fc + (z_rest·Mᵀ)·Tᵀ, so that T·M is never formed.

    Args:
        classes: K.
        dims: D.
        config: Shape of the means.
        generator: Source of the initial means.
    """

    means: Tensor
    phi: Tensor

    def __init__(
        self,
        classes: int,
        dims: int,
        config: MixtureConfig | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        config = config or MixtureConfig()
        self.config, self.classes, self.dims = config, classes, dims
        full_dims = dims if config.rank is None else config.class_dims
        # Independent directions of length distance/√2 lie `distance` apart in expectation.
        scale = config.initial_distance / math.sqrt(2.0 * max(full_dims, 1))
        if config.means == "sphere":
            drawn = torch.randn(classes, full_dims, generator=generator)
            radii = drawn.norm(dim=1, keepdim=True)
            self.register_buffer("means", drawn * math.sqrt(dims) / radii)
        else:
            self.means = _normal(classes, full_dims, std=scale, generator=generator)
        if config.rank is not None:
            rest = dims - full_dims
            # Where there are full means as well, these begin as good as zero.
            apart = config.initial_distance / math.sqrt(2.0 * config.rank)
            std = 1e-2 if full_dims else apart
            self.mean_weights = _normal(classes, config.rank, std=std, generator=generator)
            self.mean_basis = _normal(
                config.rank, rest, std=1.0 / math.sqrt(max(rest, 1)), generator=generator
            )
        if config.learned_weights:
            self.phi = nn.Parameter(torch.zeros(classes))
        else:
            self.register_buffer("phi", torch.zeros(classes))

    @property
    def log_weights(self) -> Tensor:
        """w_y = log p(y), shape (K,)."""
        return torch.log_softmax(self.phi, dim=0)

    def mean_products(self, z: Tensor) -> Tensor:
        """z·μ_y for every class, (B, D) -> (B, K)."""
        if self.config.rank is None:
            return z @ self.means.T
        fc = self.means.shape[1]
        return z[:, :fc] @ self.means.T + (z[:, fc:] @ self.mean_basis.T) @ self.mean_weights.T

    def gram(self) -> Tensor:
        """Inner products μ_y·μ_y', shape (K, K)."""
        gram = self.means @ self.means.T
        if self.config.rank is not None:
            basis_gram = self.mean_basis @ self.mean_basis.T
            gram = gram + self.mean_weights @ basis_gram @ self.mean_weights.T
        return gram

    def mean_norms(self) -> Tensor:
        """‖μ_y‖², shape (K,)."""
        norms = self.means.square().sum(1)
        if self.config.rank is None:
            return norms
        basis_gram = self.mean_basis @ self.mean_basis.T
        return norms + ((self.mean_weights @ basis_gram) * self.mean_weights).sum(1)

    def class_means(self, labels: Tensor) -> Tensor:
        """μ_y of some classes, (B,) -> (B, D)."""
        if self.config.rank is None:
            return self.means[labels]
        rest = self.mean_weights[labels] @ self.mean_basis
        return torch.cat((self.means[labels], rest), dim=-1)

    def latent_means(self) -> LatentMeans:
        """The means as they are now, for float64 products; without a gradient."""
        if self.config.rank is None:
            return LatentMeans.of(self.means)
        return LatentMeans.of(self.means, self.mean_weights, self.mean_basis)

    def dense_means(self) -> Tensor:
        """All means as a matrix (K, D); for tests and one-off plots only."""
        if self.config.rank is None:
            return self.means
        return torch.cat((self.means, self.mean_weights @ self.mean_basis), dim=1)

    def logits(self, z: Tensor) -> Tensor:
        """w_y + z·μ_y - ½‖μ_y‖², (B, K); its log_softmax is log q(y|x) (Eq. 5.7).

        ‖z‖² and the Jacobian cancel in the posterior and are left out: in float32 they would
        cost more digits than the answer has.
        """
        return self.log_weights + self.mean_products(z) - 0.5 * self.mean_norms()

    def class_log_likelihoods(self, z: Tensor) -> Tensor:
        """log q(z|y) = -½‖z - μ_y‖² - (D/2) log 2π, (B, K)."""
        squared = z.square().sum(1, keepdim=True)
        distance = squared - 2.0 * self.mean_products(z) + self.mean_norms()
        return -0.5 * distance - 0.5 * self.dims * LOG_2PI

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z) = logsumexp_y(w_y + log q(z|y)), (B,) (Eq. 5.8)."""
        return torch.logsumexp(self.log_weights + self.class_log_likelihoods(z), dim=1)

    def sample(
        self, labels: Tensor, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw z ~ μ_y + temperature * N(0, I) for labels (B,), shape (B, D)."""
        noise = torch.randn(
            labels.shape[0], self.dims, generator=generator, device=labels.device
        ).to(self.means.dtype)
        return self.class_means(labels) + temperature * noise

    def subspaces(self) -> Subspaces:
        """The class and style subspaces for the means as they are now."""
        return Subspaces.of(self)


def _normal(
    rows: int, columns: int, *, std: float, generator: torch.Generator | None
) -> nn.Parameter:
    # Initialised in place: a module whose weights will be loaded is built without drawing them.
    return nn.Parameter(nn.init.normal_(torch.empty(rows, columns), std=std, generator=generator))


@dataclass(frozen=True, slots=True, kw_only=True)
class Subspaces:
    """Class subspace (the linear span of the means) and its complement (Eq. 5.31-5.34).

    With a = M z and G = M Mᵀ: ‖z_c‖² = aᵀ G⁺ a and ‖z_s‖² = ‖z‖² - ‖z_c‖², in float64.

    Attributes:
        gram: G (K, K), float64.
        gram_pinv: G⁺ (K, K), float64.
        whitening: (G⁺)^½ (K, K), float64: u = a (G⁺)^½ are coordinates of z_c with ‖u‖ = ‖z_c‖.
        rank: r, the dimension of the span.
        log_weights: w (K,), float64.
        mean_norms: ‖μ_y‖² (K,), float64.
        means: Of the mixture.
        dims: D.
    """

    gram: Tensor
    gram_pinv: Tensor
    whitening: Tensor
    rank: int
    log_weights: Tensor
    mean_norms: Tensor
    means: LatentMeans
    dims: int

    @staticmethod
    def of(mixture: GaussianMixture) -> Subspaces:
        """Subspaces of a mixture."""
        with torch.no_grad():
            means = mixture.latent_means()
            gram = means.gram()
            # One decomposition for the pseudo-inverse, its root and the rank: K may be 1000.
            values, vectors = torch.linalg.eigh(gram)
            kept = values.abs() > RANK_TOLERANCE * values.abs().max()
            inverse = torch.where(kept, values.reciprocal(), 0.0)
            return Subspaces(
                gram=gram,
                gram_pinv=(vectors * inverse) @ vectors.T,
                whitening=(vectors * inverse.clamp_min(0.0).sqrt()) @ vectors.T,
                rank=int(kept.sum()),
                log_weights=mixture.log_weights.double(),
                mean_norms=gram.diagonal().clone(),
                means=means,
                dims=mixture.dims,
            )

    def mean_products(self, z: Tensor) -> Tensor:
        """z·μ_y for every class, float64 (B, D) -> (B, K)."""
        return self.means.products(z)

    def split(self, squared_norm: Tensor, mean_products: Tensor) -> SubspaceDensities:
        """Densities in both subspaces.

        Args:
            squared_norm: ‖z‖² (B,), float64.
            mean_products: a = z·μ_y (B, K), float64.
        """
        class_norm = ((mean_products @ self.gram_pinv) * mean_products).sum(1)
        class_distances = class_norm[:, None] - 2.0 * mean_products + self.mean_norms
        style_norm = squared_norm - class_norm
        log_class = log_sum_exp(self.log_weights - 0.5 * class_distances)
        return SubspaceDensities(
            log_q_class=log_class - 0.5 * self.rank * LOG_2PI,
            log_q_style=-0.5 * style_norm - 0.5 * (self.dims - self.rank) * LOG_2PI,
            class_distances=class_distances,
            style_norm=style_norm,
        )


def log_sum_exp(scores: Tensor) -> Tensor:
    """log Σ_y exp(s_y) of scores (B, K), shape (B,): the largest less its log-softmax.

    For a few images this takes a fraction of the time of `torch.logsumexp`.
    """
    return scores.amax(1) - torch.log_softmax(scores, dim=1).amax(1)


def wide_means(mixture: GaussianMixture) -> Tensor:
    """All means as a float64 matrix (K, D), low-rank ones multiplied out in float64.

    For tests and drawings: at ImageNet's size it takes 1.2 GB.
    """
    means = mixture.means.double()
    if mixture.config.rank is None:
        return means
    return torch.cat((means, mixture.mean_weights.double() @ mixture.mean_basis.double()), dim=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubspaceDensities:
    """log q(z_c) + log q(z_s) = log q(z), all float64.

    Attributes:
        log_q_class: log q(z_c) (B,), nats.
        log_q_style: log q(z_s) (B,), nats.
        class_distances: ‖z_c - μ_y‖² (B, K).
        style_norm: ‖z_s‖² (B,).
    """

    log_q_class: Tensor
    log_q_style: Tensor
    class_distances: Tensor
    style_norm: Tensor
