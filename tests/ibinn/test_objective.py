"""The training objectives and their limits."""

import math

import pytest
import torch

from ibinn.errors import ConfigError
from ibinn.latent import GaussianMixture, MixtureConfig
from ibinn.objective import class_nll, information_bottleneck, soft_targets
from tests.ibinn.networks import random_mixture

BATCH, CLASSES, DIMS = 6, 4, 10
GAMMAS = [0.0, 0.1, 1.0, 8.0, math.inf]


@pytest.fixture
def mixture() -> GaussianMixture:
    return random_mixture(CLASSES, DIMS, MixtureConfig(learned_weights=True)).double()


@pytest.fixture
def z() -> torch.Tensor:
    return torch.randn(BATCH, DIMS, dtype=torch.float64, requires_grad=True)


@pytest.fixture
def log_det() -> torch.Tensor:
    return torch.randn(BATCH, dtype=torch.float64, requires_grad=True)


@pytest.fixture
def targets() -> torch.Tensor:
    return soft_targets(torch.arange(BATCH) % CLASSES, CLASSES, 0.05).double()


def nll_per_dim(mixture, z, log_det) -> torch.Tensor:
    """L_X/D from the density itself, without its constant."""
    log_q = mixture.log_prob(z) + 0.5 * DIMS * math.log(2.0 * math.pi)
    return -(log_q + log_det).mean() / DIMS


def log_posterior(mixture, z, targets) -> torch.Tensor:
    """L_Y by Bayes' rule."""
    joint = mixture.log_weights + mixture.class_log_likelihoods(z)
    return (targets * (joint - joint.logsumexp(1, keepdim=True))).sum(1).mean()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_loss_is_the_formula(gamma, mixture, z, log_det, targets):
    terms = information_bottleneck(mixture, z, log_det, targets, gamma=gamma)
    l_x, l_y = nll_per_dim(mixture, z, log_det), log_posterior(mixture, z, targets)
    torch.testing.assert_close(terms.nll_per_dim, l_x.detach())
    torch.testing.assert_close(terms.log_posterior, l_y.detach())
    expected = -2.0 * l_y if math.isinf(gamma) else 2.0 / (1.0 + gamma) * (l_x - gamma * l_y)
    torch.testing.assert_close(terms.loss, expected)
    assert terms.log_posterior <= 0


def test_gamma_zero_is_a_plain_flow(mixture, z, log_det, targets):
    loss = information_bottleneck(mixture, z, log_det, targets, gamma=0.0).loss
    torch.testing.assert_close(loss, 2.0 * nll_per_dim(mixture, z, log_det))
    other = information_bottleneck(mixture, z, log_det, targets.flip(1), gamma=0.0).loss
    torch.testing.assert_close(other, loss)
    gradient = torch.autograd.grad(loss, (z, log_det), retain_graph=True)
    expected = torch.autograd.grad(2.0 * nll_per_dim(mixture, z, log_det), (z, log_det))
    torch.testing.assert_close(gradient, expected)


def test_gamma_infinite_is_twice_the_cross_entropy(mixture, z, log_det, targets):
    loss = information_bottleneck(mixture, z, log_det, targets, gamma=math.inf).loss
    expected = 2.0 * torch.nn.functional.cross_entropy(mixture.logits(z), targets)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert log_det.grad is None


@pytest.mark.parametrize(("gamma", "limit"), [(1e-10, 0.0), (1e10, math.inf)])
def test_gamma_reaches_its_limits_smoothly(gamma, limit, mixture, z, log_det, targets):
    near = information_bottleneck(mixture, z, log_det, targets, gamma=gamma).loss
    at = information_bottleneck(mixture, z, log_det, targets, gamma=limit).loss
    torch.testing.assert_close(near, at, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_only_the_likelihood_reaches_learned_class_weights(gamma, mixture, z, log_det, targets):
    information_bottleneck(mixture, z, log_det, targets, gamma=gamma).loss.backward()
    got = torch.zeros(CLASSES) if mixture.phi.grad is None else mixture.phi.grad.clone()
    factor = 0.0 if math.isinf(gamma) else 2.0 / (1.0 + gamma)
    (of_likelihood,) = torch.autograd.grad(nll_per_dim(mixture, z, log_det), mixture.phi)
    torch.testing.assert_close(got.double(), factor * of_likelihood)


def test_the_posterior_reaches_means_and_codes(mixture, z, log_det, targets):
    information_bottleneck(mixture, z, log_det, targets, gamma=math.inf).loss.backward()
    assert mixture.means.grad.abs().max() > 0
    assert z.grad.abs().max() > 0


@pytest.mark.parametrize("gamma", [-1e-9, -1.0, -math.inf, math.nan])
def test_a_gamma_that_makes_no_sense_is_refused(gamma, mixture, z, log_det, targets):
    with pytest.raises(ConfigError, match=f"gamma is {gamma}"):
        information_bottleneck(mixture, z, log_det, targets, gamma=gamma)


def line_of_two() -> GaussianMixture:
    """Means -1 and 3 on a line, weights ¼ and ¾."""
    mixture = GaussianMixture(2, 1, MixtureConfig(learned_weights=True)).double()
    with torch.no_grad():
        mixture.means.copy_(torch.tensor([[-1.0], [3.0]]))
        mixture.phi.copy_(torch.tensor([0.25, 0.75]).log())
    return mixture


def test_class_nll_has_the_values_worked_out_by_hand():
    # ½(2 - μ)² is 4.5 and 0.5; -log w is log 4 and log 4/3; log|det J| is 0.3.
    z = torch.tensor([[2.0], [2.0]], dtype=torch.float64)
    log_det = torch.full((2,), 0.3, dtype=torch.float64)
    terms = class_nll(line_of_two(), z, log_det, soft_targets(torch.tensor([0, 1]), 2, 0.0))
    first, second = 4.5 + math.log(4) - 0.3, 0.5 + math.log(4 / 3) - 0.3
    assert terms.loss.item() == pytest.approx((first + second) / 2)
    evidence = math.log(0.25 * math.exp(-4.5) + 0.75 * math.exp(-0.5))
    assert terms.nll_per_dim.item() == pytest.approx(-evidence - 0.3)
    posterior = 0.5 * (math.log(0.25) - 4.5 + math.log(0.75) - 0.5) - evidence
    assert terms.log_posterior.item() == pytest.approx(posterior)
    assert terms.correct == 1


def test_information_bottleneck_has_the_values_worked_out_by_hand():
    z = torch.tensor([[2.0]], dtype=torch.float64)
    log_det = torch.tensor([0.3], dtype=torch.float64)
    targets = soft_targets(torch.tensor([0]), 2, 0.2).double()
    terms = information_bottleneck(line_of_two(), z, log_det, targets, gamma=3.0)
    joint = [math.log(0.25) - 4.5, math.log(0.75) - 0.5]
    evidence = math.log(sum(map(math.exp, joint)))
    l_x = -evidence - 0.3
    l_y = 0.9 * (joint[0] - evidence) + 0.1 * (joint[1] - evidence)
    assert terms.loss.item() == pytest.approx(0.5 * (l_x - 3.0 * l_y))
    assert terms.correct == 0


def test_class_nll_is_the_joint_density(mixture, z, log_det):
    labels = torch.arange(BATCH) % CLASSES
    loss = class_nll(mixture, z, log_det, soft_targets(labels, CLASSES, 0.0).double()).loss
    joint = (mixture.log_weights + mixture.class_log_likelihoods(z))[range(BATCH), labels]
    expected = -(joint + 0.5 * DIMS * math.log(2.0 * math.pi) + log_det).mean() / DIMS
    torch.testing.assert_close(loss, expected)


def test_class_nll_is_likelihood_and_posterior_at_equal_nats(mixture, z, log_det):
    # -log q(x, y) = -log q(x) - log q(y|x).
    targets = soft_targets(torch.arange(BATCH) % CLASSES, CLASSES, 0.05).double()
    terms = class_nll(mixture, z, log_det, targets)
    torch.testing.assert_close(terms.loss.detach(), terms.nll_per_dim - terms.log_posterior / DIMS)


@pytest.mark.parametrize("smoothing", [0.0, 0.05, 1.0])
def test_targets_share_the_smoothing_among_all_classes(smoothing):
    targets = soft_targets(torch.tensor([2, 0]), 4, smoothing)
    torch.testing.assert_close(targets.sum(1), torch.ones(2))
    assert targets[0, 2] == pytest.approx(1.0 - 0.75 * smoothing)
    assert targets[0, 1] == pytest.approx(smoothing / 4)


@pytest.mark.parametrize("objective", ["ib", "class_nll"])
def test_figures_for_the_log_carry_no_gradient(objective, mixture, z, log_det, targets):
    if objective == "ib":
        terms = information_bottleneck(mixture, z, log_det, targets, gamma=1.0)
    else:
        terms = class_nll(mixture, z, log_det, targets)
    assert terms.loss.requires_grad
    assert not terms.nll_per_dim.requires_grad
    assert not terms.log_posterior.requires_grad
    assert terms.correct == (mixture.logits(z).argmax(1) == targets.argmax(1)).sum()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_low_rank_means_are_trained_alike(gamma, z, log_det, targets):
    low = random_mixture(CLASSES, DIMS, MixtureConfig(rank=2, class_dims=3)).double()
    dense = GaussianMixture(CLASSES, DIMS).double()
    with torch.no_grad():
        dense.means.copy_(low.dense_means())
    of_low, of_dense = (
        information_bottleneck(m, z, log_det, targets, gamma=gamma).loss for m in (low, dense)
    )
    torch.testing.assert_close(of_low, of_dense)
