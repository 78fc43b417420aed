"""The invertible generative classifier and what one forward pass of it says.

Shapes: B batch, D dimensions, K classes, S stages. Scores are float64, in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ibinn.density import bits_per_dim
from ibinn.flow.base import InvertibleNetwork, Observed
from ibinn.latent import LOG_2PI, GaussianMixture, SubspaceDensities, Subspaces, log_sum_exp

PASS_DIMS = 1 << 21
"""Dimensions of all images of one pass, at most: memory for feature maps grows with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that one pass over a batch of images yields; every answer derives from it.

    Attributes:
        z: Latent codes g(x) (B, D), float32.
        stage_log_dets: log|det J| of each stage of the network (B, S).
        activations: log root mean square of observed channels (B, E), float32.
        log_det: log|det ∂z/∂v| for pixel values v in [0, 1), preprocessing included (B,).
        squared_norm: ‖z‖² (B,).
        mean_products: z·μ_y (B, K).
        logits: w_y + z·μ_y - ½‖μ_y‖² (B, K); its log_softmax is log q(y|x) (Eq. 5.7).
        class_log_likelihoods: log q(x|y) (B, K).
        log_q_z: log q(z) (B,) (Eq. 5.8).
        log_q_x: log q(x) (B,), density of pixel values in [0, 1).
        bits_per_dim: At centre dequantisation (B,).
        subspaces: Densities in the class and the style subspace.
        encoded_bytes: Size of a lossless encoding of each image (B,).
    """

    z: Tensor
    stage_log_dets: Tensor
    activations: Tensor
    log_det: Tensor
    squared_norm: Tensor
    mean_products: Tensor
    logits: Tensor
    class_log_likelihoods: Tensor
    log_q_z: Tensor
    log_q_x: Tensor
    bits_per_dim: Tensor
    subspaces: SubspaceDensities
    encoded_bytes: Tensor

    def __len__(self) -> int:
        return self.z.shape[0]

    def log_posterior(self, *, temperature: float = 1.0) -> Tensor:
        """log_softmax(logits / T), (B, K): likelihoods and class weights alike divided by T."""
        return torch.log_softmax(self.logits / temperature, dim=1)


class GenerativeClassifier(nn.Module):
    """An invertible network g and the Gaussian mixture of its latent space.

    Args:
        network: g, from images (B, C, H, W) to latent codes (B, D).
        mixture: The class-conditional mixture over latent codes.
    """

    def __init__(self, network: InvertibleNetwork, mixture: GaussianMixture) -> None:
        super().__init__()
        self.network = network
        self.mixture = mixture

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """g(x) and log|det J|, (B, D) and (B,)."""
        z, log_det = self.network(x)
        return z, log_det

    @torch.no_grad()
    def evidence(
        self,
        x: Tensor,
        *,
        subspaces: Subspaces,
        preprocessing_log_det: float,
        encoded_bytes: Tensor,
    ) -> Evidence:
        """Evidence for preprocessed images at the centre of their cells.

        The module must be in evaluation mode: an image's evidence does not depend on the batch.

        Args:
            x: Preprocessed images (B, C, H, W).
            subspaces: `GaussianMixture.subspaces` of this classifier, computed once.
            preprocessing_log_det: log|det| of the normalisation, nats.
            encoded_bytes: Size of a lossless encoding of each image (B,).
        """
        return gather_evidence(
            self.network.observe(x),
            subspaces=subspaces,
            preprocessing_log_det=preprocessing_log_det,
            encoded_bytes=encoded_bytes,
        )

    @torch.no_grad()
    def sample(
        self, labels: Tensor, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Images of classes: z ~ μ_y + T N(0, I), then the inverse network, (B, C, H, W)."""
        z = self.mixture.sample(labels, temperature=temperature, generator=generator)
        return self.network.inverse(z)[0]


def images_at_once(dims: int, *, most: int) -> int:
    """Images of `dims` dimensions to take in one pass, 1 to `most`: more only cost memory.

    >>> images_at_once(3 * 32 * 32, most=64), images_at_once(3 * 224 * 224, most=64)
    (64, 13)
    """
    return max(1, min(most, PASS_DIMS // dims))


def gather_evidence(
    observed: Observed,
    *,
    subspaces: Subspaces,
    preprocessing_log_det: float,
    encoded_bytes: Tensor,
) -> Evidence:
    """Evidence from what one pass of the network leaves."""
    z, stage_log_dets = observed.z, observed.stage_log_dets.double()
    wide = z.double()
    squared_norm = wide.square().sum(1)
    mean_products = subspaces.mean_products(wide)
    scores = mean_products - 0.5 * subspaces.mean_norms
    logits = subspaces.log_weights + scores
    constant = -0.5 * squared_norm - 0.5 * subspaces.dims * LOG_2PI
    log_det = stage_log_dets.sum(1) + preprocessing_log_det
    log_q_z = constant + log_sum_exp(logits)
    log_q_x = log_q_z + log_det
    return Evidence(
        z=z,
        stage_log_dets=stage_log_dets,
        activations=observed.activations,
        log_det=log_det,
        squared_norm=squared_norm,
        mean_products=mean_products,
        logits=logits,
        class_log_likelihoods=(constant + log_det)[:, None] + scores,
        log_q_z=log_q_z,
        log_q_x=log_q_x,
        bits_per_dim=bits_per_dim(log_q_x, subspaces.dims),
        subspaces=subspaces.split(squared_norm, mean_products),
        encoded_bytes=encoded_bytes.double(),
    )
