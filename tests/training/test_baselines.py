"""The discriminative baselines: what they see, how they answer, how they are trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ibinn.errors import CheckpointError, ConfigError
from ibinn.images import Preprocessing
from ibinn.latent import GaussianMixture, MixtureConfig
from tests.training.tiny_runs import digits, tiny_config
from training.baselines import VariationalBottleneck, linear_head, variational_bottleneck
from training.config import digest, from_dict, to_dict
from training.discriminative import (
    SoftmaxClassifier,
    resnet,
    softmax_logits,
    train_softmax,
    trained_seconds,
)
from training.loader import eval_batches

CPU = torch.device("cpu")


def models() -> dict[str, SoftmaxClassifier]:
    torch.manual_seed(0)
    return {
        "resnet": resnet(10, 8, width=4),
        "linear head": linear_head(tiny_config().architecture, 10),
        "vib": variational_bottleneck(10, 8, width=4, code_dims=8),
    }


def weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [value.detach().clone() for value in model.state_dict().values()]


@pytest.mark.parametrize(("side", "features"), [(32, 4), (128, 4)])
def test_small_images_keep_their_resolution_in_the_first_layer(side: int, features: int) -> None:
    network = resnet(10, side).eval()
    seen = {}
    network.get_submodule("network.layer4").register_forward_hook(
        lambda _module, _input, output: seen.update(side=output.shape[-1])
    )
    with torch.no_grad():
        assert network(torch.zeros(1, 3, side, side)).shape == (1, 10)
    assert seen["side"] == features


@pytest.mark.parametrize("name", models())
def test_an_image_has_one_answer_whatever_is_in_its_batch(name: str) -> None:
    model = models()[name].eval()
    x = torch.randn(6, 3, 8, 8)
    with torch.no_grad():
        whole, again, alone = model(x), model(x), model(x[2:3])
    assert whole.shape == (6, 10)
    assert torch.equal(whole, again)
    assert torch.allclose(whole[2:3], alone, atol=1e-5)


@pytest.mark.parametrize("name", models())
def test_a_baseline_learns_and_goes_on_exactly_where_it_stopped(name: str, tmp_path: Path) -> None:
    config = tiny_config(batch_size=32, epochs=3)
    images = digits().subset(range(640))

    class StopError(Exception):
        pass

    def stop(epoch: int, epochs: int, loss: float, accuracy: float) -> None:
        raise StopError

    def fit(out: Path, progress=None):  # type: ignore[no-untyped-def]
        out.mkdir(exist_ok=True)
        return train_softmax(models()[name], images, config, out=out, device=CPU, progress=progress)

    losses: list[float] = []
    whole = fit(tmp_path / "whole", lambda e, n, loss, a: losses.append(loss))
    assert losses[-1] < losses[0]
    with pytest.raises(StopError):
        fit(tmp_path / "stopped", stop)
    assert trained_seconds(tmp_path / "stopped") > 0.0
    resumed = fit(tmp_path / "stopped")
    for one, other in zip(weights(whole.model), weights(resumed.model), strict=True):
        assert torch.equal(one, other)
    preprocessing = Preprocessing(config.preprocessing)
    batch = next(iter(eval_batches(images, preprocessing, batch_size=200)))
    logits = softmax_logits(resumed.model, batch.images.numpy(), preprocessing)
    assert np.mean(logits.argmax(1) == batch.labels.numpy()) > 0.15  # chance is 0.1
    with pytest.raises(CheckpointError, match="written by another run"):
        train_softmax(
            models()[name], images, tiny_config(batch_size=32), out=tmp_path / "whole", device=CPU
        )


def test_vib_pays_for_what_its_code_says_of_the_image() -> None:
    x, labels = torch.randn(8, 3, 8, 8), torch.arange(8)
    free, dear = (variational_bottleneck(10, 8, width=4, beta=beta) for beta in (0.0, 1.0))
    dear.load_state_dict(free.state_dict())
    losses = []
    for model in (free, dear):
        torch.manual_seed(1)
        losses.append(float(model.loss(x, labels, label_smoothing=0.0)[0].detach()))
    mean, scale = free._code(x)
    code = torch.distributions.Normal(mean, scale)
    unit = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(scale))
    rate = torch.distributions.kl_divergence(code, unit).sum(1).mean()
    assert losses[1] - losses[0] == pytest.approx(float(rate.detach()), rel=1e-3)
    assert isinstance(free, VariationalBottleneck)


def test_the_linear_head_is_linear_in_the_latent_code() -> None:
    model = linear_head(tiny_config().architecture, 10).eval()
    x = torch.randn(3, 3, 8, 8)
    codes, head = model.network
    with torch.no_grad():
        assert torch.allclose(codes.network(x)[0] @ head.weight.T + head.bias, model(x), atol=1e-6)


def test_means_on_a_sphere_lie_there_and_never_move() -> None:
    mixture = GaussianMixture(10, 192, MixtureConfig(means="sphere"))
    assert torch.allclose(mixture.mean_norms(), torch.full((10,), 192.0), rtol=1e-5)
    assert list(mixture.parameters()) == []
    assert "means" in mixture.state_dict()
    with pytest.raises(ConfigError, match="only full means"):
        MixtureConfig(means="sphere", rank=2)


def test_a_run_that_was_started_before_means_could_be_fixed_keeps_its_digest() -> None:
    config = tiny_config()
    old = to_dict(config)
    del old["mixture"]["means"]
    assert from_dict(old) == config
    fixed = tiny_config(mixture=MixtureConfig(means="sphere"))
    assert digest(fixed) != digest(config)
    assert digest(from_dict(old)) == digest(config)
    assert from_dict(to_dict(fixed)) == fixed
