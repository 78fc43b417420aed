"""Heatmaps: they add up to the answer, whatever the temperature and the weights."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.fft import idctn

from ibinn.errors import NotExplainableError
from ibinn.explain import cell_means
from ibinn.explain.heatmap import (
    CellMeans,
    completeness_error,
    log_odds_heatmap,
    posterior_heatmaps,
)
from ibinn.latent import MixtureConfig, wide_means
from tests.ibinn.networks import CIFAR, SIDE, evidence_of, random_classifier

CLASSES = 5
MIXTURES = {
    "full": MixtureConfig(),
    "learned weights": MixtureConfig(learned_weights=True),
    "low rank": MixtureConfig(rank=2, class_dims=30, learned_weights=True),
    "low rank alone": MixtureConfig(rank=3),
    "low rank after more than one frequency": MixtureConfig(rank=2, class_dims=70),
}
TEMPERATURES = (0.3, 1.0, 1.7, 40.0)


class Explained:
    """A model, evidence of three images, and heatmaps at a temperature."""

    def __init__(self, mixture: MixtureConfig, temperature: float) -> None:
        self.model = random_classifier(classes=CLASSES, mixture=mixture)
        torch.manual_seed(2)
        self.evidence = evidence_of(self.model, torch.randn(3, 3, SIDE, SIDE))
        self.shape = self.model.network.heatmap_shape
        self.means = wide_means(self.model.mixture).detach()
        self.temperature = temperature
        self.maps = posterior_heatmaps(
            self.evidence,
            cells=CellMeans.of(self.model.mixture, self.shape),
            subspaces=self.model.mixture.subspaces(),
            temperature=temperature,
        )

    @property
    def log_posterior(self) -> torch.Tensor:
        return self.evidence.log_posterior(temperature=self.temperature)


@pytest.fixture(
    params=[(m, t) for m in MIXTURES for t in TEMPERATURES], ids=lambda p: f"{p[0]} T={p[1]}"
)
def explained(request) -> Explained:
    mixture, temperature = request.param
    return Explained(MIXTURES[mixture], temperature)


def test_heatmaps_sum_to_the_log_posterior(explained):
    assert explained.maps.shape == (3, CLASSES, 2, 2)
    assert explained.maps.dtype == torch.float64
    assert completeness_error(explained.maps, explained.log_posterior).max() < 1e-9


def test_heatmaps_equal_the_printed_formula(explained):
    height, width, channels = explained.shape
    cells, t = height * width, explained.temperature
    log_weights = explained.model.mixture.log_weights.double().detach().numpy()
    means = explained.means.numpy()
    for i, z in enumerate(explained.evidence.z.double().numpy()):
        w = idctn((z - means).reshape(CLASSES, *explained.shape), axes=(1, 2), norm="ortho")
        by_cell = (-0.5 * (w**2).sum(3) - 0.5 * channels * math.log(2 * math.pi)) / t
        joint = log_weights / t + by_cell.sum((1, 2))
        log_q_z = np.logaddexp.reduce(joint)
        q = np.exp(joint - log_q_z)
        shared = np.tensordot(q, by_cell, axes=1)
        shared += (log_q_z - q @ by_cell.sum((1, 2))) / cells
        expected = by_cell + (log_weights / t / cells)[:, None, None] - shared
        np.testing.assert_allclose(explained.maps[i].numpy(), expected, rtol=1e-9, atol=1e-8)


def test_log_odds_maps_sum_to_the_log_odds_and_need_no_shared_part(explained):
    odds = log_odds_heatmap(explained.maps, 1, 3)
    expected = explained.log_posterior[:, 1] - explained.log_posterior[:, 3]
    torch.testing.assert_close(odds.sum((1, 2)), expected, rtol=0.0, atol=1e-9)
    assert torch.equal(log_odds_heatmap(explained.maps, 3, 1), -odds)
    moved = explained.maps + torch.randn(3, 1, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(log_odds_heatmap(moved, 1, 3), odds)


def test_heatmaps_of_classes_agree_where_the_means_do():
    # With the class evidence confined to one cell, all other cells say nothing about the class.
    explained = Explained(MixtureConfig(), 1.0)
    network, mixture = explained.model.network, explained.model.mixture
    pooling = network.layers[-1]
    maps = torch.zeros(CLASSES, 48, 2, 2)
    maps[:, :, 1, 0] = torch.randn(CLASSES, 48)
    with torch.no_grad():
        mixture.means.copy_(pooling(maps)[0])
    evidence = evidence_of(explained.model, torch.randn(1, 3, SIDE, SIDE))
    found = posterior_heatmaps(
        evidence,
        cells=CellMeans.of(mixture, network.heatmap_shape),
        subspaces=mixture.subspaces(),
    )
    spread = (found.amax(1) - found.amin(1))[0]
    assert spread[1, 0] > 1
    spread[1, 0] = 0
    assert spread.max() < 1e-4


@pytest.mark.parametrize("channels", [5, 48])
def test_norms_of_low_rank_cells_are_those_of_the_dense_means(monkeypatch, channels):
    monkeypatch.setattr(cell_means, "CHANNELS", channels)
    for config in MIXTURES.values():
        explained = Explained(config, 1.0)
        height, width, _ = explained.shape
        cells = CellMeans.of(explained.model.mixture, explained.shape)
        dense = idctn(
            explained.means.numpy().reshape(CLASSES, *explained.shape), axes=(1, 2), norm="ortho"
        )
        expected = (dense**2).sum(3).reshape(CLASSES, height * width).T
        np.testing.assert_allclose(cells.squares.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_heatmaps_do_not_depend_on_the_batch():
    explained = Explained(MixtureConfig(), 1.0)
    first = replace(
        explained.evidence,
        z=explained.evidence.z[:1],
        logits=explained.evidence.logits[:1],
    )
    alone = posterior_heatmaps(
        first,
        cells=CellMeans.of(explained.model.mixture, explained.shape),
        subspaces=explained.model.mixture.subspaces(),
    )
    torch.testing.assert_close(alone[0], explained.maps[0])


def test_the_completeness_error_is_that_of_the_worst_class():
    maps = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    maps[0, 1, 0, 0] = -3.0
    error = completeness_error(maps, torch.tensor([[0.0, -1.0]], dtype=torch.float64))
    assert error.item() == 2.0


def test_a_network_that_mixes_all_positions_has_no_heatmap():
    model = random_classifier(CIFAR, classes=CLASSES)
    with pytest.raises(NotExplainableError, match="ends in DCT pooling"):
        CellMeans.of(model.mixture, model.network.heatmap_shape)
