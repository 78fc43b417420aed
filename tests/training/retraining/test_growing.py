"""A classifier with components for new classes keeps what it knew."""

from __future__ import annotations

import pytest
import torch

from ibinn.classifier import GenerativeClassifier
from ibinn.latent import MixtureConfig
from tests.training.tiny_runs import digits, tiny_config
from training.config import FitConfig
from training.fit import build_model
from training.retraining.growing import latent_codes, shrunken_mean, start_from

MIXTURES = {
    "full": MixtureConfig(),
    "low-rank": MixtureConfig(rank=4, class_dims=16),
    "weighted": MixtureConfig(learned_weights=True),
    "sphere": MixtureConfig(means="sphere"),
}


def grown(config: FitConfig, codes: list[torch.Tensor]) -> tuple[GenerativeClassifier, ...]:
    base = build_model(config, 9).eval()
    return base, start_from(build_model(config, 9 + len(codes)), base, codes).eval()


@pytest.mark.parametrize("name", MIXTURES)
def test_old_logits_are_the_same_up_to_the_new_classes_weight(name: str) -> None:
    config = tiny_config(mixture=MIXTURES[name])
    dims = build_model(config, 9).mixture.dims
    base, model = grown(config, [torch.randn(50, dims) + 3.0, torch.randn(50, dims)])
    x = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        (z, log_det), (z_new, log_det_new) = base(x), model(x)
        old, new = base.mixture.logits(z), model.mixture.logits(z_new)
    assert torch.equal(z, z_new)
    assert torch.equal(log_det, log_det_new)
    assert new.shape == (4, 11)
    assert torch.allclose(torch.log_softmax(old, 1), torch.log_softmax(new[:, :9], 1), atol=1e-4)


def test_the_new_component_is_where_the_new_class_lies() -> None:
    config = tiny_config()
    dims = build_model(config, 9).mixture.dims
    where = torch.zeros(dims)
    where[0] = 20.0
    codes = torch.randn(400, dims) + where
    _, model = grown(config, [codes])
    with torch.no_grad():
        assert (model.mixture.logits(codes).argmax(1) == 9).float().mean() > 0.99
        assert (model.mixture.dense_means()[9] - where).norm() < 3.0


def test_without_new_classes_the_model_is_the_base() -> None:
    base, model = grown(tiny_config(), [])
    expected = base.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_mean_of_few_images_is_drawn_towards_the_centre() -> None:
    torch.manual_seed(0)
    truth = torch.zeros(500)
    truth[0] = 5.0
    z = torch.randn(50, 500) + truth
    shrunk = shrunken_mean(z, torch.zeros(500))
    assert (shrunk - truth).norm() < (z.mean(0) - truth).norm()
    many = torch.randn(5_000, 500) + truth
    assert torch.allclose(shrunken_mean(many, torch.zeros(500)), many.mean(0), rtol=0.02, atol=1e-3)


def test_codes_of_images_are_those_of_the_network() -> None:
    from ibinn.images import Preprocessing

    config = tiny_config()
    model = build_model(config, 10)
    images = digits().subset(range(7))
    codes = latent_codes(
        model, Preprocessing(config.preprocessing), images, device=torch.device("cpu")
    )
    assert codes.shape == (7, model.mixture.dims)
    none = latent_codes(
        model, Preprocessing(config.preprocessing), images.subset([]), device=torch.device("cpu")
    )
    assert none.shape == (0, model.mixture.dims)
