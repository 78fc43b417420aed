"""Means as factors say what the multiplied-out means say, in float64, whatever their size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ibinn import latent_means
from ibinn.latent import GaussianMixture, MixtureConfig, Subspaces, wide_means
from ibinn.latent_means import LatentMeans
from tests.ibinn.networks import random_mixture

CLASSES, DIMS, RANK, FULL = 12, 1000, 5, 40
CONFIGS = {
    "full": MixtureConfig(),
    "low rank": MixtureConfig(rank=RANK),
    "low rank beside full": MixtureConfig(rank=RANK, class_dims=FULL),
}


@pytest.fixture(params=list(CONFIGS))
def mixture(request: pytest.FixtureRequest) -> GaussianMixture:
    made: GaussianMixture = random_mixture(CLASSES, DIMS, CONFIGS[request.param])
    return made.requires_grad_(requires_grad=False)


@pytest.fixture
def z() -> Tensor:
    return torch.randn(3, DIMS).double()


def test_products_and_gram_are_those_of_the_dense_means(
    mixture: GaussianMixture, z: Tensor
) -> None:
    means, dense = mixture.latent_means(), wide_means(mixture)
    torch.testing.assert_close(means.products(z), z @ dense.T, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(means.gram(), dense @ dense.T, rtol=1e-12, atol=1e-12)


def test_combinations_are_those_of_the_dense_means(
    monkeypatch: pytest.MonkeyPatch, mixture: GaussianMixture
) -> None:
    monkeypatch.setattr(latent_means, "GRAM_BLOCK", 128)
    shares = torch.randn(4, CLASSES).double()
    expected = shares @ wide_means(mixture)
    torch.testing.assert_close(
        mixture.latent_means().combined(shares), expected, rtol=1e-12, atol=1e-12
    )


def test_rows_are_the_means_of_the_classes(mixture: GaussianMixture) -> None:
    labels = torch.tensor([3, 0, 3])
    expected = mixture.dense_means()[labels]
    torch.testing.assert_close(mixture.latent_means()[labels], expected)
    torch.testing.assert_close(mixture.class_means(labels), expected)
    torch.testing.assert_close(mixture.latent_means()[7], mixture.dense_means()[7])


@pytest.mark.parametrize("dims", [DIMS, 1024 + FULL, 100])
def test_a_large_basis_is_not_copied_and_its_products_are_exact_to_a_millionth(
    monkeypatch: pytest.MonkeyPatch, dims: int
) -> None:
    mixture = random_mixture(CLASSES, dims, CONFIGS["low rank beside full"])
    codes = 5.0 * torch.randn(4, dims)
    monkeypatch.setattr(latent_means, "EXACT_ENTRIES", 0)
    monkeypatch.setattr(latent_means, "GRAM_BLOCK", 128)
    means, dense = mixture.latent_means(), wide_means(mixture).detach()
    assert means.low_rank is not None
    assert means.low_rank.wide_basis is None
    assert means.low_rank.basis.data_ptr() == mixture.mean_basis.data_ptr()
    expected = codes.double() @ dense.T
    torch.testing.assert_close(
        means.products(codes.double()), expected, rtol=0.0, atol=1e-6 * float(expected.std())
    )
    torch.testing.assert_close(means.gram(), dense @ dense.T, rtol=1e-12, atol=1e-12)


def test_means_follow_no_later_change_of_a_model_in_float32() -> None:
    mixture = random_mixture(CLASSES, DIMS, MixtureConfig())
    before = mixture.latent_means()
    products = before.products(torch.ones(1, DIMS).double())
    with torch.no_grad():
        mixture.means.zero_()
    assert torch.equal(before.products(torch.ones(1, DIMS).double()), products)


def test_the_whitening_is_the_root_of_the_pseudo_inverse(mixture: GaussianMixture) -> None:
    subspaces = Subspaces.of(mixture)
    torch.testing.assert_close(
        subspaces.whitening @ subspaces.whitening, subspaces.gram_pinv, rtol=1e-9, atol=1e-12
    )
    expected = torch.linalg.pinv(subspaces.gram, rtol=1e-10, hermitian=True)
    torch.testing.assert_close(subspaces.gram_pinv, expected, rtol=1e-9, atol=1e-12)


def test_a_thousand_classes_of_an_imagenet_network_make_no_dense_array(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError("means are multiplied out")

    monkeypatch.setattr(GaussianMixture, "dense_means", refuse)
    mixture = random_mixture(1000, 20_000, MixtureConfig(rank=16, class_dims=500))
    subspaces = Subspaces.of(mixture)
    assert subspaces.rank == 516
    assert max(map(_entries, (subspaces.means, subspaces.means.low_rank))) < 1000 * 20_000 / 10
    z = torch.randn(2, 20_000)
    torch.testing.assert_close(
        subspaces.mean_products(z.double()), mixture.mean_products(z).double(), rtol=0, atol=1e-3
    )


def _entries(means: LatentMeans | latent_means.LowRank | None) -> int:
    assert means is not None
    values = (getattr(means, name) for name in means.__slots__)
    return max(value.numel() for value in values if isinstance(value, Tensor))
