"""Models are built without their weights, and the weights that they get are the stored ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ibinn import bundle, manifest, weights
from ibinn.errors import BundleFormatError
from ibinn.latent import GaussianMixture, MixtureConfig
from ibinn.unfilled import Unfilled
from tests.ibinn.bundles import make_manifest, write_bundle
from tests.ibinn.networks import CONFIGS, random_classifier


@pytest.mark.parametrize("mixture", [MixtureConfig(), MixtureConfig(rank=3, class_dims=20)])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_loaded_model_is_the_saved_one_with_what_is_not_stored(
    tmp_path: Path, architecture: str, mixture: MixtureConfig
) -> None:
    model = random_classifier(CONFIGS[architecture], mixture=mixture, classes=10)
    settings = {"rank": mixture.rank, "class_dims": mixture.class_dims}
    bundle.save(make_manifest(CONFIGS[architecture], mixture=settings), model, None, tmp_path)
    loaded, _ = bundle.load_model(tmp_path)
    assert not any(value.is_meta for value in (*loaded.parameters(), *loaded.buffers()))
    others = dict((*loaded.named_parameters(), *loaded.named_buffers()))
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        found = others[name]
        assert torch.equal(found, value), name
        assert found.dtype is value.dtype, name
    again = tmp_path / "again"
    bundle.save(manifest.read(tmp_path), loaded, None, again)
    assert manifest.read(again).files == manifest.read(tmp_path).files


def test_weights_are_in_memory_once(tmp_path: Path) -> None:
    model = random_classifier(CONFIGS["ib-inn-50"], classes=10)
    bundle.save(make_manifest(CONFIGS["ib-inn-50"]), model, None, tmp_path)
    loaded = bundle.load(tmp_path).model
    (storage, _), *_ = sorted(
        (
            (parameter.untyped_storage().data_ptr(), parameter.untyped_storage().nbytes())
            for parameter in loaded.parameters()
        ),
        key=lambda entry: -entry[1],
    )
    # All but convolutions that see neighbours: those are laid out anew.
    for name, parameter in loaded.named_parameters():
        shared = parameter.untyped_storage().data_ptr() == storage
        assert shared == (parameter.dim() != 4 or parameter.shape[-1] == 1), name


def test_widened_weights_do_not_keep_the_files_bytes(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    size = (tmp_path / weights.WEIGHTS).stat().st_size
    loaded = bundle.load(tmp_path).model
    for name, value in loaded.state_dict().items():
        assert value.untyped_storage().nbytes() < size / 2, name


def test_values_that_only_add_up_to_infinity_are_finite(tmp_path: Path) -> None:
    model = random_classifier(classes=10)
    with torch.no_grad():
        model.mixture.means.fill_(3e38)
    bundle.save(make_manifest(), model, None, tmp_path)
    found = make_manifest(CONFIGS["small"])
    content = bytearray((tmp_path / weights.WEIGHTS).read_bytes())
    assert (weights.load(found, tmp_path, content).mixture.means == 3e38).all()
    with torch.no_grad():
        model.mixture.means[3, 4] = torch.inf
    weights.write(model, tmp_path)
    content = bytearray((tmp_path / weights.WEIGHTS).read_bytes())
    with pytest.raises(BundleFormatError, match=r"'mixture\.means' holds values that are not"):
        weights.load(found, tmp_path, content)


def test_channels_last_is_the_layout_that_torch_gives() -> None:
    ours, torchs = (random_classifier(CONFIGS["ib-inn-50"]) for _ in range(2))
    weights.use_channels_last(ours)
    torchs.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for name, value in torchs.named_parameters():
        found = ours.get_parameter(name)
        assert found.is_contiguous(memory_format=torch.channels_last) or found.dim() != 4, name
        assert torch.equal(found, value), name
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(ours(x)[0], torchs(x)[0])


def test_an_unfilled_module_has_shapes_and_no_content() -> None:
    with Unfilled():
        layer = nn.Conv2d(3, 4, 3)
        norm = nn.BatchNorm2d(4)
        mixture = GaussianMixture(5, 30, MixtureConfig(rank=2, class_dims=4))
        drawn = torch.randn(3)
    assert layer.weight.is_meta
    assert layer.weight.shape == (4, 3, 3, 3)
    assert all(parameter.is_meta for parameter in mixture.parameters())
    assert norm.running_mean is not None
    assert torch.equal(norm.running_mean, torch.zeros(4))
    assert not drawn.is_meta
    assert not nn.Linear(2, 2).weight.is_meta
