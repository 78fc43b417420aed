"""Out-of-distribution statistics: pure functions from one pass's evidence to one value an image.

Shapes: B batch, D dimensions, K classes, H x W x C the last feature map, r the rank of the class
subspace. Everything is float64; likelihoods are in nats.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ibinn.classifier import Evidence
from ibinn.flow.pooling import dct_matrix
from ibinn.latent import GaussianMixture, Subspaces
from ibinn.latent_means import LatentMeans
from ibinn.ood.activation import fit_whitening


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticContext:
    """What statistics need to know of the model, computed once.

    Attributes:
        means: μ, of which `means[classes]` are rows (B, D), float32.
        whitening: Of `Subspaces`: u = a (G⁺)^½ are coordinates of z_c with ‖u‖ = ‖z_c‖.
        mean_norms: ‖μ_y‖² (K,).
        heatmap_shape: (H, W, C) of the last feature map, or None.
        fitted: Parameters fitted on calibration part A, or None while they are being fitted.
        class_geometry: What distances to all classes need of `fitted`, or None: computed with
            every batch.
        residual: What several statistics of one batch share, from `for_batch`, or None: each
            then computes it.
    """

    means: LatentMeans
    whitening: Tensor
    mean_norms: Tensor
    heatmap_shape: tuple[int, int, int] | None
    fitted: FittedStatistics | None = None
    class_geometry: ClassGeometry | None = None
    residual: Residual | None = None

    def for_batch(self, evidence: Evidence) -> StatisticContext:
        """The context for statistics of this batch alone, with what they share computed once."""
        return replace(self, residual=Residual.of(evidence, self))

    @staticmethod
    def of(
        mixture: GaussianMixture,
        subspaces: Subspaces,
        heatmap_shape: tuple[int, int, int] | None,
        fitted: FittedStatistics | None = None,
    ) -> StatisticContext:
        """The context of a model."""
        on_device = None if fitted is None else fitted.to(subspaces.gram_pinv.device)
        return StatisticContext(
            means=subspaces.means,
            whitening=subspaces.whitening,
            mean_norms=subspaces.mean_norms,
            heatmap_shape=heatmap_shape,
            fitted=on_device,
            class_geometry=None if on_device is None else ClassGeometry.of(on_device),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Residual:
    """z - μ_ŷ for the most probable class ŷ: N(0, I) if the model is right.

    Attributes:
        values: (B, D), float32.
        squares: Their squares (B, D).
    """

    values: Tensor
    squares: Tensor

    @staticmethod
    def of(evidence: Evidence, context: StatisticContext) -> Residual:
        """The context's own where it has one."""
        if context.residual is not None:
            return context.residual
        values = evidence.z - context.means[evidence.logits.argmax(1)]
        return Residual(values=values, squares=values.square())


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedStatistics:
    """Gaussians in the class subspace (Ren et al. 2021) and over the activations' energies.

    Attributes:
        class_means: Mean of u per class (K, K).
        class_precision: Inverse of the covariance shared by all classes (K, K).
        background_mean: Mean of u over all images (K,).
        background_precision: Inverse of the covariance over all images (K, K).
        activation_centre: c of `ibinn.ood.activation` (E,).
        activation_whitening: W of it (E, E).
    """

    class_means: Tensor
    class_precision: Tensor
    background_mean: Tensor
    background_precision: Tensor
    activation_centre: Tensor
    activation_whitening: Tensor

    def to(self, device: torch.device) -> FittedStatistics:
        """The same on another device."""
        return FittedStatistics(
            class_means=self.class_means.to(device),
            class_precision=self.class_precision.to(device),
            background_mean=self.background_mean.to(device),
            background_precision=self.background_precision.to(device),
            activation_centre=self.activation_centre.to(device),
            activation_whitening=self.activation_whitening.to(device),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassGeometry:
    """Distances to all classes without a (B, K, K) array: with c = u - m and d_y = m_y - m,

        (u - m_y)ᵀ S⁻¹ (u - m_y) = cᵀ S⁻¹ c - 2 c·(S⁻¹ d_y) + d_yᵀ S⁻¹ d_y.

    Attributes:
        directions: S⁻¹ d_y of every class as columns (K, K).
        norms: d_yᵀ S⁻¹ d_y (K,).
    """

    directions: Tensor
    norms: Tensor

    @staticmethod
    def of(fitted: FittedStatistics) -> ClassGeometry:
        """Of the Gaussians fitted on part A."""
        offsets = fitted.class_means - fitted.background_mean
        directions = fitted.class_precision @ offsets.T
        return ClassGeometry(directions=directions, norms=(offsets.T * directions).sum(0))


def class_coordinates(evidence: Evidence, context: StatisticContext) -> Tensor:
    """Coordinates u of z_c, (B, K), with the geometry of the class subspace."""
    return evidence.mean_products @ context.whitening


def fit_statistics(
    coordinates: Tensor, activations: Tensor, labels: Tensor, classes: int
) -> FittedStatistics:
    """Fit the Gaussians on calibration part A.

    Args:
        coordinates: u (N, K).
        activations: `Evidence.activations` (N, E).
        labels: True classes (N,).
        classes: K.
    """
    background_mean = coordinates.mean(0)
    counts = torch.bincount(labels, minlength=classes)
    sums = torch.zeros(classes, coordinates.shape[1], dtype=coordinates.dtype)
    class_means = sums.index_add(0, labels, coordinates) / counts.clamp_min(1)[:, None]
    # A class without calibration images has no mean of its own.
    class_means[counts == 0] = background_mean
    centre, whitening = fit_whitening(activations.double().numpy())
    freedom = len(coordinates) - int((counts > 0).sum())
    background_precision = _precision(coordinates - background_mean, len(coordinates) - 1)
    return FittedStatistics(
        activation_centre=torch.from_numpy(centre),
        activation_whitening=torch.from_numpy(whitening),
        class_means=class_means,
        # Where no class has two images, nothing is known of the spread within classes.
        class_precision=_precision(coordinates - class_means[labels], freedom)
        if freedom
        else background_precision,
        background_mean=background_mean,
        background_precision=background_precision,
    )


def _precision(centred: Tensor, freedom: int) -> Tensor:
    """Inverse covariance of centred coordinates (N, K) with this many degrees of freedom.

    With fewer than K of them, as with a thousand classes and some hundred images, the sample's
    covariance has directions without spread, in which any new image would be infinitely far out:
    it is then shrunk towards a multiple of the identity (Ledoit and Wolf 2004).
    """
    if freedom < centred.shape[1]:
        from sklearn.covariance import LedoitWolf

        shrunk = LedoitWolf(assume_centered=True).fit(centred.numpy())
        covariance = torch.from_numpy(shrunk.covariance_) * (len(centred) / max(freedom, 1))
    else:
        covariance = centred.T @ centred / max(len(centred) - 1, 1)
    ridge = 1e-3 * covariance.diagonal().mean().clamp_min(1e-12)
    inverse: Tensor = torch.linalg.inv(
        covariance + ridge * torch.eye(len(covariance)).to(covariance)
    )
    return inverse


def log_q_x(evidence: Evidence, context: StatisticContext) -> Tensor:
    """log q(x)."""
    return evidence.log_q_x


def log_q_z(evidence: Evidence, context: StatisticContext) -> Tensor:
    """log q(z) (Eq. 5.8)."""
    return evidence.log_q_z


def log_q_style(evidence: Evidence, context: StatisticContext) -> Tensor:
    """log q(z_s), density in the complement of the class subspace (Eq. 5.33)."""
    return evidence.subspaces.log_q_style


def log_q_class(evidence: Evidence, context: StatisticContext) -> Tensor:
    """log q(z_c), density in the class subspace (Eq. 5.34)."""
    return evidence.subspaces.log_q_class


def class_distance(evidence: Evidence, context: StatisticContext) -> Tensor:
    """min_y ‖z_c - μ_y‖²."""
    return evidence.subspaces.class_distances.amin(1)


def relative_mahalanobis(evidence: Evidence, context: StatisticContext) -> Tensor:
    """min_y (u - m_y)ᵀ S⁻¹ (u - m_y) - (u - m)ᵀ S₀⁻¹ (u - m) in the class subspace."""
    fitted = context.fitted
    if fitted is None:
        raise ValueError("relative_mahalanobis needs statistics fitted on calibration part A")
    geometry = context.class_geometry or ClassGeometry.of(fitted)
    centred = class_coordinates(evidence, context) - fitted.background_mean
    own = ((centred @ fitted.class_precision) * centred).sum(1)
    nearest = own + (geometry.norms - 2.0 * (centred @ geometry.directions)).amin(1)
    background = ((centred @ fitted.background_precision) * centred).sum(1)
    return nearest - background


def activation_energy(evidence: Evidence, context: StatisticContext) -> Tensor:
    """log of ‖(a - c) W‖², the distance of the activations' energies from the usual ones."""
    fitted = context.fitted
    if fitted is None:
        raise ValueError("activation_energy needs statistics fitted on calibration part A")
    centred = evidence.activations.double() - fitted.activation_centre
    return (centred @ fitted.activation_whitening).square().sum(1).clamp_min(1e-300).log()


def posterior_entropy(evidence: Evidence, context: StatisticContext) -> Tensor:
    """H(y|x) = -Σ_y q(y|x) log q(y|x), at T = 1."""
    log_posterior = evidence.log_posterior()
    return -(log_posterior.exp() * log_posterior).sum(1)


def encoded_bits_per_dim(evidence: Evidence, context: StatisticContext) -> Tensor:
    """Bits per dimension of a lossless encoding: the input's complexity (Serra et al. 2020)."""
    return 8.0 * evidence.encoded_bytes / evidence.z.shape[1]


def complexity_gap(evidence: Evidence, context: StatisticContext) -> Tensor:
    """bits/dim minus those of the lossless encoding: the ratio of Serra et al. 2020."""
    return evidence.bits_per_dim - encoded_bits_per_dim(evidence, context)


def residual_kurtosis(evidence: Evidence, context: StatisticContext) -> Tensor:
    """log of the fourth over the squared second moment of z - μ_ŷ; log 3 for a Gaussian."""
    squares = Residual.of(evidence, context).squares
    fourth = squares.square().mean(1).double()
    return fourth.log() - 2.0 * squares.mean(1).double().log()


def gaussian_fit(evidence: Evidence, context: StatisticContext) -> Tensor:
    """log of the Cramér-von Mises distance of the entries of z - μ_ŷ to N(0, 1)."""
    ordered = _ascending(Residual.of(evidence, context).values)
    dims = ordered.shape[1]
    uniform: Tensor = torch.special.ndtr(ordered)
    distance = (uniform - _quantiles(dims, ordered.device)).square().mean(1)
    return (distance + 1.0 / (12.0 * dims**2)).double().log()


def spatial_autocorrelation(evidence: Evidence, context: StatisticContext) -> Tensor:
    """Lag-1 autocorrelation of the feature map of z - μ_ŷ over both axes; 0 for white noise."""
    maps = feature_map(Residual.of(evidence, context).values, context)
    horizontal = (maps[:, :, 1:] * maps[:, :, :-1]).mean((1, 2, 3))
    vertical = (maps[:, 1:] * maps[:, :-1]).mean((1, 2, 3))
    return ((horizontal + vertical) / (2.0 * maps.square().mean((1, 2, 3)))).double()


def band_energy(evidence: Evidence, context: StatisticContext, *, band: int) -> Tensor:
    """log of the mean square of z - μ_ŷ over DCT frequencies with max(k, l) = band."""
    height, width, channels = _heatmap_shape(context)
    squares = Residual.of(evidence, context).squares.view(-1, height * width, channels)
    chosen = squares.index_select(1, _band(height, width, band, squares.device))
    return chosen.mean((1, 2)).double().clamp_min(1e-300).log()


def stage_log_det(evidence: Evidence, context: StatisticContext, *, stage: int) -> Tensor:
    """log|det J| of one stage of the network."""
    return evidence.stage_log_dets[:, stage]


def feature_map(z: Tensor, context: StatisticContext) -> Tensor:
    """Orthonormal inverse DCT of latent vectors (B, D), shape (B, H, W, C) (Eq. 5.36)."""
    height, width, channels = _heatmap_shape(context)
    rows, columns = _dct(height, z.device, z.dtype), _dct(width, z.device, z.dtype)
    # Two products instead of an einsum, whose search for an order costs more than the sums.
    across = columns.T @ z.reshape(-1, width, channels)
    down = rows.T @ across.view(-1, height, width * channels)
    return down.view(-1, height, width, channels)


def _heatmap_shape(context: StatisticContext) -> tuple[int, int, int]:
    if context.heatmap_shape is None:
        raise ValueError("this network has no last feature map")
    return context.heatmap_shape


def _ascending(values: Tensor) -> Tensor:
    """Rows (B, D) sorted; numpy sorts several times faster where nothing is differentiated."""
    if values.requires_grad or values.device.type != "cpu":
        return values.sort(1).values
    return torch.from_numpy(np.sort(values.numpy(), axis=1))


# Constants of a model's shape. Made outside of inference mode, so that any caller may use them.


@lru_cache(maxsize=16)
def _quantiles(dims: int, device: torch.device) -> Tensor:
    """(i + ½)/D for i = 0 ... D - 1."""
    with torch.inference_mode(False):
        return (torch.arange(dims, device=device, dtype=torch.float32) + 0.5) / dims


@lru_cache(maxsize=64)
def _band(height: int, width: int, band: int, device: torch.device) -> Tensor:
    """Positions k * W + l of the frequencies with max(k, l) = band."""
    with torch.inference_mode(False):
        rows = torch.arange(height, device=device)[:, None].expand(height, width)
        columns = torch.arange(width, device=device)[None, :]
        return (torch.maximum(rows, columns) == band).flatten().nonzero().flatten()


@lru_cache(maxsize=16)
def _dct(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return dct_matrix(size).to(device, dtype)
