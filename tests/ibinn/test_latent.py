"""The latent mixture: its densities, its means in two forms, its two subspaces."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from ibinn.errors import ConfigError
from ibinn.latent import LOG_2PI, GaussianMixture, MixtureConfig, Subspaces, log_sum_exp
from tests.ibinn.networks import random_mixture

CLASSES, DIMS = 5, 12

CONFIGS = {
    "full": MixtureConfig(),
    "full with learned weights": MixtureConfig(learned_weights=True),
    "low rank": MixtureConfig(rank=2, learned_weights=True),
    "low rank beside full": MixtureConfig(rank=3, class_dims=4, learned_weights=True),
}


def small(config: MixtureConfig, classes: int = CLASSES, dims: int = DIMS) -> GaussianMixture:
    return random_mixture(classes, dims, config).double().requires_grad_(False)


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def mixture(request) -> GaussianMixture:
    return small(request.param)


@pytest.fixture
def z() -> torch.Tensor:
    return 3.0 * torch.randn(20, DIMS, dtype=torch.float64)


def grid(dims: int, half_width: float = 16.0, points: int = 321) -> tuple[torch.Tensor, float]:
    """All points of a grid (N, dims) and the volume of its cells."""
    axis = torch.linspace(-half_width, half_width, points, dtype=torch.float64)
    cell = float(axis[1] - axis[0])
    return torch.cartesian_prod(*[axis] * dims).view(-1, dims), cell**dims


@pytest.mark.parametrize(
    ("dims", "config"),
    [
        (1, MixtureConfig(learned_weights=True)),
        (2, MixtureConfig(learned_weights=True)),
        (2, MixtureConfig(rank=1, learned_weights=True)),
        (2, MixtureConfig(rank=1, class_dims=1, learned_weights=True)),
    ],
    ids=["1-D", "2-D", "2-D low rank", "2-D low rank beside full"],
)
def test_densities_integrate_to_one(dims, config):
    mixture = small(config, classes=3, dims=dims)
    points, cell = grid(dims)
    assert mixture.dense_means().abs().max() < 9.0
    assert float(mixture.log_prob(points).exp().sum() * cell) == pytest.approx(1.0, abs=1e-9)
    by_class = mixture.class_log_likelihoods(points).exp().sum(0) * cell
    np.testing.assert_allclose(by_class.numpy(), 1.0, atol=1e-9)


def test_densities_are_those_of_unit_gaussians(mixture, z):
    means = mixture.dense_means()
    expected = np.stack([multivariate_normal(mean.numpy()).logpdf(z.numpy()) for mean in means], 1)
    np.testing.assert_allclose(mixture.class_log_likelihoods(z).numpy(), expected, rtol=1e-10)
    weighted = torch.from_numpy(expected) + mixture.log_weights
    torch.testing.assert_close(mixture.log_prob(z), weighted.logsumexp(1))


def test_class_weights_sum_to_one(mixture):
    assert float(mixture.log_weights.exp().sum()) == pytest.approx(1.0)


def test_posterior_is_bayes_rule(mixture, z):
    joint = mixture.log_weights + mixture.class_log_likelihoods(z)
    torch.testing.assert_close(
        mixture.logits(z).log_softmax(1), joint - mixture.log_prob(z)[:, None]
    )


@pytest.mark.parametrize("name", ["low rank", "low rank beside full"])
def test_low_rank_means_equal_the_dense_ones(name, z):
    mixture = small(CONFIGS[name])
    dense = small(MixtureConfig(learned_weights=True))
    dense.means.copy_(mixture.dense_means())
    dense.phi.copy_(mixture.phi)
    for quantity in ("mean_products", "logits", "class_log_likelihoods", "log_prob"):
        torch.testing.assert_close(
            getattr(mixture, quantity)(z), getattr(dense, quantity)(z), msg=quantity
        )
    torch.testing.assert_close(mixture.gram(), dense.gram())
    torch.testing.assert_close(mixture.mean_norms(), dense.mean_norms())


def test_low_rank_means_have_fewer_parameters():
    mixture = GaussianMixture(100, 1000, MixtureConfig(rank=4, class_dims=50))
    count = sum(parameter.numel() for parameter in mixture.parameters())
    assert count == 100 * 50 + 100 * 4 + 4 * 950
    assert mixture.dense_means().shape == (100, 1000)


def test_a_rank_below_one_is_refused():
    with pytest.raises(ConfigError, match="rank is 0"):
        MixtureConfig(rank=0)


def test_fixed_weights_are_uniform_and_not_learned():
    mixture = GaussianMixture(4, 8)
    assert [name for name, _ in mixture.named_parameters()] == ["means"]
    torch.testing.assert_close(mixture.log_weights, torch.full((4,), -math.log(4)))


@pytest.mark.parametrize(
    "shape",
    [{}, {"rank": 64, "class_dims": 768}, {"rank": 256}],
    ids=["full", "low rank beside full", "low rank alone"],
)
def test_means_start_at_the_distance_asked_for(shape):
    config = MixtureConfig(initial_distance=7.0, **shape)
    mixture = GaussianMixture(10, 3072, config, generator=torch.Generator().manual_seed(2))
    distances = torch.pdist(mixture.dense_means().detach())
    assert distances.mean().item() == pytest.approx(7.0, rel=0.03)


def dependent_means() -> dict[str, torch.Tensor]:
    drawn = torch.randn(CLASSES, DIMS, dtype=torch.float64)
    summed = drawn.clone()
    summed[4] = summed[0] + 2.0 * summed[1]
    twice = drawn.clone()
    twice[3] = twice[2]
    absent = drawn.clone()
    absent[1] = 0.0
    line = torch.arange(-2.0, 3.0, dtype=torch.float64)[:, None] * drawn[:1]
    return {
        "independent": drawn,
        "one a sum of others": summed,
        "two the same": twice,
        "one zero": absent,
        "all on a line": line,
        "rounded to float32": summed.float().double(),
    }


@pytest.mark.parametrize("name", dependent_means().keys())
def test_log_densities_of_the_subspaces_add_up_even_where_means_depend_on_each_other(name, z):
    torch.manual_seed(0)
    means = dependent_means()[name]
    mixture = small(MixtureConfig(learned_weights=True))
    mixture.means.copy_(means)
    check_subspaces(mixture, z)
    assert mixture.subspaces().rank == int(torch.linalg.matrix_rank(means, rtol=1e-5))


def test_log_densities_of_the_subspaces_add_up(mixture, z):
    check_subspaces(mixture, z)


def test_more_classes_than_dimensions_leave_no_style(z):
    mixture = small(MixtureConfig(learned_weights=True), classes=DIMS + 3)
    densities = check_subspaces(mixture, z)
    assert mixture.subspaces().rank == DIMS
    torch.testing.assert_close(
        densities.log_q_style, torch.zeros(len(z), dtype=torch.float64), rtol=0.0, atol=1e-8
    )


def check_subspaces(mixture: GaussianMixture, z: torch.Tensor):
    """Against an explicit orthonormal basis of the span of the means."""
    subspaces = mixture.subspaces()
    densities = subspaces.split(z.square().sum(1), mixture.mean_products(z))
    torch.testing.assert_close(
        densities.log_q_class + densities.log_q_style, mixture.log_prob(z), rtol=1e-10, atol=1e-8
    )
    means = mixture.dense_means()
    _, values, rows = torch.linalg.svd(means)
    rank = int((values > 1e-5 * values[0]).sum())
    basis = rows[:rank]
    z_class = z @ basis.T
    style_norm = z.square().sum(1) - z_class.square().sum(1)
    torch.testing.assert_close(densities.style_norm, style_norm, rtol=1e-8, atol=1e-8)
    distances = torch.cdist(z_class, means @ basis.T).square()
    torch.testing.assert_close(densities.class_distances, distances, rtol=1e-8, atol=1e-8)
    log_class = torch.logsumexp(mixture.log_weights - 0.5 * distances, 1) - 0.5 * rank * LOG_2PI
    torch.testing.assert_close(densities.log_q_class, log_class, rtol=1e-8, atol=1e-8)
    return densities


def test_subspaces_need_only_norms_and_products():
    # The style norm does not see where in the style subspace a code lies.
    mixture = small(MixtureConfig())
    basis = torch.linalg.svd(mixture.means)[2][CLASSES:]
    z = torch.randn(3, DIMS, dtype=torch.float64)
    moved = z - (z @ basis.T) @ basis + (z @ basis.T).flip(1) @ basis
    subspaces = Subspaces.of(mixture)
    first, second = (
        subspaces.split(code.square().sum(1), mixture.mean_products(code)) for code in (z, moved)
    )
    torch.testing.assert_close(first.log_q_class, second.log_q_class)
    torch.testing.assert_close(first.log_q_style, second.log_q_style)


def test_samples_scatter_about_their_class_mean(generator):
    mixture = small(MixtureConfig(rank=2))
    labels = torch.tensor([1]).expand(20_000)
    drawn = mixture.sample(labels, temperature=0.5, generator=generator)
    assert drawn.shape == (20_000, DIMS)
    np.testing.assert_allclose(drawn.mean(0), mixture.dense_means()[1], atol=0.02)
    np.testing.assert_allclose(np.cov(drawn.numpy().T), 0.25 * np.eye(DIMS), atol=0.02)


def test_samples_without_temperature_are_the_means():
    mixture = small(MixtureConfig())
    assert torch.equal(mixture.sample(torch.tensor([3, 0]), temperature=0.0), mixture.means[[3, 0]])


def test_log_sum_exp_is_torchs_with_its_gradient(generator):
    scores = 300.0 * torch.randn(50, 7, dtype=torch.float64, generator=generator)
    scores[0] = 5.0
    scores[1, 1:] = -torch.inf
    ours, torchs = (scores.clone().requires_grad_() for _ in range(2))
    log_sum_exp(ours).sum().backward()
    torch.logsumexp(torchs, dim=1).sum().backward()
    torch.testing.assert_close(log_sum_exp(scores), torch.logsumexp(scores, dim=1))
    torch.testing.assert_close(ours.grad, torchs.grad)
