"""Densities of images: they integrate to one, and bits per dimension keep every constant."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from ibinn.classifier import GenerativeClassifier
from ibinn.density import LOG_CELL_UNIFORM, bits_per_dim, log_cell_gaussian
from ibinn.flow import (
    ActNorm,
    AffineCoupling,
    ChannelRotation,
    DoubleCoupling,
    FlowLayer,
    InvertibleNetwork,
    Sequential,
)
from ibinn.flow.subnetworks import convolutional, fully_connected
from ibinn.images import Preprocessing, PreprocessingConfig
from ibinn.latent import GaussianMixture, MixtureConfig
from tests.ibinn.networks import SIDE, SMALL, evidence_of, random_mixture, randomise


def classifier(layers: list[FlowLayer], dims: int, classes: int = 3) -> GenerativeClassifier:
    """A flow on vectors, everything random, float64."""
    network = InvertibleNetwork(
        [("flow", Sequential(layers))], input_shape=(dims, 1, 1), heatmap_shape=None
    )
    randomise(network)
    mixture = random_mixture(classes, dims, MixtureConfig(learned_weights=True))
    with torch.no_grad():
        mixture.means.mul_(0.5)
    return GenerativeClassifier(network, mixture).double().eval()


def test_a_flow_on_a_line_integrates_to_one():
    model = classifier([ActNorm(1), ActNorm(1)], dims=1)
    axis = torch.linspace(-30.0, 30.0, 4001, dtype=torch.float64)
    evidence = evidence_of(model, axis[:, None])
    total = float(evidence.log_q_x.exp().sum() * (axis[1] - axis[0]))
    assert total == pytest.approx(1.0, abs=1e-9)


def test_couplings_on_the_plane_integrate_to_one():
    layers = [
        AffineCoupling(2, fully_connected(8)),
        ActNorm(2),
        ChannelRotation(2, generator=torch.Generator().manual_seed(2)),
        DoubleCoupling(2, fully_connected(8)),
    ]
    model = classifier(layers, dims=2)
    axis = torch.linspace(-24.0, 24.0, 601, dtype=torch.float64)
    cell = float(axis[1] - axis[0]) ** 2
    # Pixel values v; the network sees (v - mean)/std, whose log-determinant is -Σ log std.
    mean, std = torch.tensor([0.5, -1.0]).double(), torch.tensor([1.5, 0.8]).double()
    x = (torch.cartesian_prod(axis, axis) - mean) / std
    evidence = evidence_of(model, x, log_det=-float(std.log().sum()))
    assert float(evidence.log_q_x.exp().sum() * cell) == pytest.approx(1.0, abs=1e-4)
    by_class = evidence.class_log_likelihoods.exp().sum(0) * cell
    np.testing.assert_allclose(by_class.numpy(), 1.0, atol=1e-4)


def test_images_of_one_pixel_integrate_to_one_with_the_real_preprocessing():
    layers: list[FlowLayer] = [
        AffineCoupling(3, convolutional(6)),
        ChannelRotation(3, generator=torch.Generator().manual_seed(2)),
        ActNorm(3),
        AffineCoupling(3, convolutional(6)),
    ]
    network = InvertibleNetwork(
        [("1x1", _Flattened(layers))], input_shape=(3, 1, 1), heatmap_shape=None
    )
    randomise(network)
    model = GenerativeClassifier(network, random_mixture(2, 3)).double().eval()
    with torch.no_grad():
        model.mixture.means.mul_(0.5)
    # The stds are so small that the whole mass lies well inside of [0, 1)^3.
    preprocessing = Preprocessing(
        PreprocessingConfig(side=1, mean=(0.5, 0.45, 0.55), std=(0.04, 0.05, 0.045))
    )
    levels = torch.arange(2, 256, 4, dtype=torch.uint8)
    pixels = torch.cartesian_prod(levels, levels, levels).view(-1, 1, 1, 3)
    evidence = evidence_of(
        model, preprocessing.to_tensor(pixels).double(), log_det=preprocessing.log_det
    )
    total = float(evidence.log_q_x.exp().sum() / 64**3)
    assert total == pytest.approx(1.0, abs=1e-3)


class _Flattened(Sequential):
    """Layers on maps of one pixel, then a vector."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, log_det = super().forward(x, condition)
        return y.flatten(1), log_det


class Probit(FlowLayer):
    """z = Φ⁻¹(x), which maps uniform values on (0, 1) to N(0, 1)."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = torch.special.ndtri(x).flatten(1)
        return z, (0.5 * z.square() + 0.5 * math.log(2.0 * math.pi)).sum(1)

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


def standard_normal(dims: int) -> GaussianMixture:
    """One class at the origin."""
    mixture = GaussianMixture(1, dims)
    with torch.no_grad():
        mixture.means.zero_()
    return mixture


def test_uniform_pixels_through_the_probit_map_score_eight_bits():
    preprocessing = Preprocessing(
        PreprocessingConfig(side=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    )
    network = InvertibleNetwork([("probit", Probit())], input_shape=(3, 4, 4), heatmap_shape=None)
    model = GenerativeClassifier(network, standard_normal(48)).double()
    pixels = torch.randint(0, 256, (50, 4, 4, 3), dtype=torch.uint8)
    for noise in (None, torch.rand(50, 3, 4, 4, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)):
        x = preprocessing.to_tensor(pixels, noise).double()
        evidence = evidence_of(model, x, log_det=preprocessing.log_det)
        np.testing.assert_allclose(evidence.bits_per_dim.numpy(), 8.0, atol=1e-10)


def test_bits_do_not_change_when_the_preprocessing_is_rescaled():
    first = PreprocessingConfig(side=SIDE, mean=(0.5, 0.4, 0.6), std=(0.25, 0.2, 0.3))
    second = PreprocessingConfig(side=SIDE, mean=(0.0, 0.1, -0.2), std=(1.0, 2.0, 0.5))
    network = randomise(SMALL.build())
    # What undoes the second normalisation and applies the first one.
    bridge = ActNorm(3)
    with torch.no_grad():
        ratio = torch.tensor(second.std) / torch.tensor(first.std)
        bridge.log_scale.copy_(ratio.log())
        offset = (torch.tensor(second.mean) - torch.tensor(first.mean)) / torch.tensor(first.std)
        bridge.offset.copy_(offset)
    bridged = InvertibleNetwork(
        [("bridge", bridge), ("network", network)],
        input_shape=network.input_shape,
        heatmap_shape=network.heatmap_shape,
    )
    mixture = random_mixture(3, network.dims)
    pixels = torch.randint(0, 256, (4, SIDE, SIDE, 3), dtype=torch.uint8)
    half = torch.full((4, 3, SIDE, SIDE), 0.5, dtype=torch.float64)
    bits = []
    for config, flow in ((first, network), (second, bridged)):
        preprocessing = Preprocessing(config)
        model = GenerativeClassifier(flow, mixture).double().eval()
        x = preprocessing.to_tensor(pixels, half)
        bits.append(evidence_of(model, x, log_det=preprocessing.log_det).bits_per_dim)
    assert Preprocessing(first).log_det != pytest.approx(Preprocessing(second).log_det)
    torch.testing.assert_close(bits[0], bits[1], rtol=0.0, atol=1e-5)


def test_centre_and_noise_bracket_the_cost_of_the_discrete_value():
    # Jensen: random u costs more than P(k) = ∫ q over the cell; the centre costs less where q
    # is concave in the cell, as it is where the mass of a wide Gaussian lies.
    q = norm(0.5, 0.03)
    k = np.arange(122, 134)
    mass = q.cdf((k + 1) / 256) - q.cdf(k / 256)
    exact = float(-(mass * np.log2(mass)).sum() / mass.sum())
    u = (np.arange(1000) + 0.5) / 1000
    noisy = torch.tensor(q.logpdf((k[:, None] + u) / 256).mean(1))
    centre = torch.tensor(q.logpdf((k + 0.5) / 256))

    def bits(log_q: Tensor) -> float:
        return float((torch.tensor(mass) * bits_per_dim(log_q, 1)).sum() / mass.sum())

    assert bits(centre) < exact < bits(noisy)


def test_gaussian_noise_alone_costs_no_bits():
    log_q = torch.tensor([8 * norm(0.0, 1e-3).logpdf(0.0)])
    assert bits_per_dim(log_q, 8, log_cell=log_cell_gaussian(1e-3)).item() == pytest.approx(
        0.0, abs=1e-6
    )


def test_a_uniform_density_costs_eight_bits_for_256_levels():
    assert bits_per_dim(torch.zeros(1), 5).item() == pytest.approx(8.0)
    assert pytest.approx(-8.0 * math.log(2.0)) == LOG_CELL_UNIFORM
