"""Every recipe builds, and says what it is."""

from __future__ import annotations

import pytest
import torch

from ibinn.errors import ConfigError
from ibinn.flow.ib_inn_50 import IbInn50Config
from ibinn.images import JpegStep
from training.fit import build_model
from training.recipes import RECIPES, described, recipe

CIFAR = ("cifar10-small", "cifar10-small-accelerator", "cifar10")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_its_name_and_says_what_the_model_is_for(name: str) -> None:
    config = recipe(name)
    assert config.recipe == name
    assert RECIPES[name].name == name
    assert RECIPES[name].summary
    assert "Not stated" not in config.intended_use + config.training_data


@pytest.mark.parametrize("name", ["digits", "cifar10-small", "elpv"])
def test_a_network_maps_an_image_of_the_recipes_size(name: str) -> None:
    config = recipe(name)
    model = build_model(config, 3).eval()
    side = config.preprocessing.side
    with torch.no_grad():
        z, log_det = model(torch.zeros(1, 3, side, side))
    assert (z.shape, log_det.shape) == ((1, 3 * side * side), (1,))
    assert model.network.heatmap_shape is not None


def test_the_embedded_model_has_the_size_that_its_summary_states() -> None:
    model = build_model(recipe("cifar10-small"), 10)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert f"{millions:.2f} M parameters" in RECIPES["cifar10-small"].summary


@pytest.mark.parametrize("name", CIFAR)
def test_models_of_photographs_see_them_as_jpeg(name: str) -> None:
    config = recipe(name)
    assert config.preprocessing.jpeg == JpegStep(quality=75, subsampling="4:2:0")
    assert config.objective.gamma == 1.0


@pytest.mark.parametrize("name", ["cifar10-small-accelerator", "cifar10", "tiny-imagenet"])
def test_recipes_for_accelerators_keep_them_busy(name: str) -> None:
    config = recipe(name)
    assert config.batch_size >= 512
    assert config.bf16_subnetworks
    assert config.compile


def test_the_imagenet_recipe_is_the_published_one() -> None:
    config = recipe("imagenet")
    assert config.architecture == IbInn50Config()
    assert (config.mixture.rank, config.mixture.class_dims) == (128, 3072)
    assert (config.preprocessing.shorter_side, config.preprocessing.side) == (256, 224)
    optimizer, schedule = config.optimizer, config.schedule
    assert (optimizer.name, optimizer.learning_rate, optimizer.momentum) == ("sgd", 0.07, 0.9)
    assert (optimizer.weight_decay, optimizer.gradient_clip) == (0.0, 8.0)
    assert (schedule.name, len(schedule.milestones)) == ("step", 3)
    assert (schedule.first_steps, schedule.first_factor) == (10, 0.05)
    assert config.batch_size >= 100
    assert config.objective.label_smoothing == 0.05
    assert config.augment.flip
    assert config.augment.random_resized_crop_min == 0.08


def test_tiny_imagenet_has_full_means_where_the_pooling_puts_the_channels_means() -> None:
    config = recipe("tiny-imagenet")
    network = config.architecture.build()
    assert network.heatmap_shape is not None
    assert config.mixture.class_dims == network.heatmap_shape[2] == 768
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert f"{millions:.1f} M parameters" in RECIPES["tiny-imagenet"].summary
    assert config.preprocessing.jpeg == JpegStep(quality=75, subsampling="4:2:0")


def test_texts_of_the_imagenet_recipes_hold_for_that_many_classes() -> None:
    config = recipe("tiny-imagenet")
    own = described(config, data="tiny", class_names=[f"c{number}" for number in range(200)])
    assert own == config
    other = described(config, data="mine", class_names=["a", "b"])
    assert other.training_data == "mine: 2 classes; terms not stated (--set training_data=...)."


def test_an_unknown_recipe_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="recipe is 'cifar'; there are: digits, cifar10-small"):
        recipe("cifar")
