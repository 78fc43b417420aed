"""Laws that every architecture obeys, and how large each one is."""

import math

import pytest
import torch
from torch import nn

from ibinn.errors import ConfigError
from ibinn.flow import (
    ARCHITECTURES,
    CifarConfig,
    DownsamplingCoupling,
    IbInn50Config,
    SmallConfig,
)
from ibinn.flow.architectures import from_dict, to_dict
from ibinn.latent import GaussianMixture, MixtureConfig
from tests.ibinn.networks import randomise

TINY = {
    "small": SmallConfig(side=4, widths=(4, 5), blocks=(2, 1), initial_scale=1.0),
    "small of one channel": SmallConfig(
        side=4, channels=1, widths=(5,), blocks=(3,), initial_scale=1.0
    ),
    "cifar": CifarConfig(side=4, blocks=(1, 2, 1), widths=(4, 5, 6), hidden=16, initial_scale=1.0),
    "ib-inn-50": IbInn50Config(side=8, width=4, blocks=(2, 2), strides=(1, 2)),
    "ib-inn-50 of small images, published pooling": IbInn50Config(
        side=8, width=4, blocks=(1, 2), strides=(1, 2), haar=False, pooling="published"
    ),
}

TOLERANCE = 1e-5
"""Fixed rotations are stored in float32: orthogonal to about 1e-7 each."""


@pytest.fixture(params=TINY.values(), ids=TINY.keys())
def network(request):
    """A tiny network in float64 with nothing in it the identity."""
    return randomise(request.param.build()).double()


def images(network, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, *network.input_shape, generator=generator, dtype=torch.float64)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_laws_cover_every_architecture():
    assert {type(config) for config in TINY.values()} == set(ARCHITECTURES.values())


def test_inverse_undoes_forward(network):
    x = images(network)
    z, _ = network(x)
    assert z.shape == (2, network.dims)
    torch.testing.assert_close(network.inverse(z)[0], x, rtol=TOLERANCE, atol=TOLERANCE)


def test_forward_undoes_inverse(network):
    z = torch.randn(2, network.dims, dtype=torch.float64)
    x, _ = network.inverse(z)
    assert x.shape == (2, *network.input_shape)
    torch.testing.assert_close(network(x)[0], z, rtol=TOLERANCE, atol=TOLERANCE)


def test_log_det_of_the_inverse_is_minus_that_of_forward(network):
    z, log_det = network(images(network))
    torch.testing.assert_close(network.inverse(z)[1], -log_det, rtol=0.0, atol=TOLERANCE)


def test_log_det_equals_autograd_jacobian(network):
    x = images(network)
    _, log_det = network(x)
    for i in range(len(x)):
        jacobian = torch.autograd.functional.jacobian(
            lambda flat: network(flat.view(1, *network.input_shape))[0].flatten(), x[i].flatten()
        )
        expected = torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(log_det[i], expected, rtol=0.0, atol=TOLERANCE)
    assert not torch.isclose(log_det[0], log_det[1])


def test_forward_by_stage_agrees_with_forward(network):
    x = images(network)
    z, log_det = network(x)
    same_z, stage_log_dets = network.forward_by_stage(x)
    assert torch.equal(same_z, z)
    assert stage_log_dets.shape == (2, len(network.stage_names))
    torch.testing.assert_close(stage_log_dets.sum(1), log_det)


def test_an_image_does_not_see_the_others_of_its_batch(network):
    x = images(network, 7)
    z, log_det = network(x)
    alone, alone_log_det = network(x[3:4])
    torch.testing.assert_close(alone, z[3:4], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(alone_log_det, log_det[3:4], rtol=1e-10, atol=1e-10)


def test_stages_have_names_of_their_own(network):
    assert len(set(network.stage_names)) == len(network.stage_names) == len(network.layers)


@pytest.mark.parametrize("config", TINY.values(), ids=TINY.keys())
def test_a_float32_round_trip_is_exact_to_a_ten_thousandth(config):
    network = randomise(config.build())
    x = images(network).float()
    torch.testing.assert_close(network.inverse(network(x)[0])[0], x, rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("name", ["small", "small of one channel", "cifar"])
def test_an_untrained_network_keeps_lengths(name):
    network = TINY[name].build().eval()
    x = images(network).float()
    z, log_det = network(x)
    torch.testing.assert_close(z.norm(dim=1), x.flatten(1).norm(dim=1))
    torch.testing.assert_close(log_det, torch.zeros(2))


def test_heatmaps_exist_where_the_pooling_is_last():
    network = TINY["small"].build()
    assert network.heatmap_shape == (1, 1, 48)
    assert math.prod(network.heatmap_shape) == network.dims
    assert SmallConfig().build().heatmap_shape == (4, 4, 192)
    assert TINY["cifar"].build().heatmap_shape is None


def test_a_network_is_the_same_for_the_same_seed_and_another_for_another():
    def rotations(seed: int) -> dict[str, torch.Tensor]:
        network = SmallConfig(side=4, widths=(4, 5), blocks=(2, 1), seed=seed).build()
        return dict(network.named_buffers())

    key = next(key for key in rotations(0) if key.endswith("rotation"))
    assert torch.equal(rotations(0)[key], rotations(0)[key])
    assert not torch.equal(rotations(0)[key], rotations(1)[key])


def test_small_with_ten_means_has_1_631_280_parameters():
    network = SmallConfig().build()
    assert parameters(network) + 10 * network.dims == 1_631_280


def test_cifar_has_the_parameters_of_the_thesis_in_every_part():
    network = CifarConfig().build()
    counts = []
    for stage in network.layers:
        down = [layer for layer in stage.layers if isinstance(layer, DownsamplingCoupling)]
        counts += [parameters(layer) for layer in down]
        counts.append(parameters(stage) - sum(map(parameters, down)))
    assert counts == [21_568, 22_072, 275_808, 97_760, 1_299_840, 9_445_376]
    assert parameters(network) == 11_162_424


@pytest.mark.parametrize("config", TINY.values(), ids=TINY.keys())
def test_a_config_survives_being_written_down(config):
    assert from_dict(to_dict(config)) == config


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"name": "resnet"}, "small, cifar"),
        ({"name": "small", "depth": 3}, "depth"),
        ({"name": "small", "side": 30}, "multiple of 8; resize to 32"),
        ({"name": "small", "side": 0}, "multiple of 8"),
        ({"name": "small", "widths": [8], "blocks": [1, 1]}, "number of stages"),
        ({"name": "cifar", "side": 30}, "multiple of 4"),
        ({}, "architecture is None"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(data, says):
    with pytest.raises(ConfigError, match=says):
        from_dict(data)


class TestIbInn50:
    network = IbInn50Config().build().eval()

    def test_it_has_the_published_number_of_parameters(self):
        assert parameters(self.network) == 55_412_304
        config = MixtureConfig(rank=128, class_dims=3072)
        mixture = GaussianMixture(1000, self.network.dims, config)
        assert parameters(self.network) + parameters(mixture) == 77_486_672

    def test_its_layers_have_the_published_numbers_of_parameters(self):
        def blocks(stage: nn.Module) -> list[int]:
            """Each coupling with the act-norm and the permutation after it; Haar alone."""
            sizes = [parameters(layer) for layer in stage.layers if parameters(layer)]
            return [sum(sizes[i : i + 2]) for i in range(0, len(sizes), 2)]

        *stages, pooling = self.network.layers
        assert [blocks(stage) for stage in stages] == [
            [42_272],
            [3_648, *3 * [68_032]],
            [642_032, *3 * [325_888]],
            [3_409_856, *5 * [1_742_848]],
            [20_410_112, *2 * [10_504_192]],
        ]
        assert parameters(pooling) == 0

    def test_its_stages_have_the_published_shapes_and_multiply_adds(self):
        shapes, multiply_adds = [], 0

        def watch_stage(_module, _inputs, outputs):
            shapes.append(tuple(outputs[0].shape[1:]))

        def watch_convolution(module, _inputs, output):
            nonlocal multiply_adds
            multiply_adds += output.numel() * module.weight[0].numel()

        hooks = [stage.register_forward_hook(watch_stage) for stage in self.network.layers]
        hooks += [
            module.register_forward_hook(watch_convolution)
            for module in self.network.modules()
            if isinstance(module, nn.Conv2d)
        ]
        with torch.no_grad():
            self.network(torch.zeros(1, 3, 224, 224))
        for hook in hooks:
            hook.remove()
        assert shapes == [
            (12, 112, 112),
            (48, 56, 56),
            (192, 28, 28),
            (768, 14, 14),
            (3072, 7, 7),
            (150_528,),
        ]
        assert multiply_adds == pytest.approx(6.917e9, rel=1e-3)

    def test_its_last_map_has_seven_by_seven_cells(self):
        assert self.network.heatmap_shape == (7, 7, 3072)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"side": 100}, "multiple of 32; resize to 96"),
            ({"strides": (1, 2)}, "same number of stages"),
            ({"strides": (1, 3, 2, 2)}, "expected each 1 or 2"),
            ({"pooling": "average"}, "orthonormal, published"),
        ],
    )
    def test_an_impossible_config_is_refused(self, changes, message):
        with pytest.raises(ConfigError, match=message):
            IbInn50Config(**changes)
