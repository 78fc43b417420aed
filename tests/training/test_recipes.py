"""Every recipe builds, and says what it is."""

from __future__ import annotations

import pytest
import torch

from ibinn.errors import ConfigError
from ibinn.images import JpegStep
from training.fit import build_model
from training.recipes import RECIPES, recipe

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


@pytest.mark.parametrize("name", ["cifar10-small-accelerator", "cifar10"])
def test_recipes_for_accelerators_keep_them_busy(name: str) -> None:
    config = recipe(name)
    assert config.batch_size >= 512
    assert config.bf16_subnetworks
    assert config.compile


def test_an_unknown_recipe_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="recipe is 'cifar'; there are: digits, cifar10-small"):
        recipe("cifar")
