"""A checkpoint of the published size: 77 million numbers there and back, and an answer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from ibinn import bundle
from ibinn.classifier import GenerativeClassifier
from ibinn.flow.ib_inn_50 import IbInn50Config
from ibinn.latent import GaussianMixture, MixtureConfig
from ibinn.types import Verdict
from tests.training.released import bits_equal, write_checkpoint
from training import imagenet_names
from training.export_checkpoint import export_checkpoint
from training.import_checkpoint import ImportRequest, import_checkpoint
from training.released_file import read_tensors

pytestmark = pytest.mark.slow

NETWORK, WITH_MEANS = 55_412_304, 77_486_672


def random_model() -> GenerativeClassifier:
    """Of the published size, with couplings that do something, and batch norms that have seen
    images."""
    network = IbInn50Config(pooling="published").build()
    mixture = GaussianMixture(
        imagenet_names.COUNT, network.dims, MixtureConfig(rank=128, class_dims=3072)
    )
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d) and not layer.weight.any():
                layer.weight.uniform_(-0.01, 0.01)
            elif isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.uniform_(-0.1, 0.1)
                layer.num_batches_tracked.fill_(450_000)
    return GenerativeClassifier(network, mixture).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A random checkpoint ``beta_8.avg.pt`` and the ``bundle`` that it was imported as."""
    folder = tmp_path_factory.mktemp("full-size")
    file = write_checkpoint(folder / "beta_8.avg.pt", random_model())
    import_checkpoint(
        ImportRequest(file=file, out=folder / "bundle"),
        device=torch.device("cpu"),
        say=lambda _: None,
    )
    yield folder
    shutil.rmtree(folder)  # pytest would keep a gigabyte of each of the last runs


def test_every_number_of_the_published_size_comes_back_bit_by_bit(folder: Path) -> None:
    export_checkpoint(folder / "bundle", folder / "back.avg.pt")
    before, after = (read_tensors(folder / f"{name}.avg.pt") for name in ("beta_8", "back"))
    assert list(before) == list(after)
    assert [key for key in before if not bits_equal(before[key], after[key])] == []


def test_an_imported_checkpoint_classifies_a_photograph(folder: Path) -> None:
    data = pytest.importorskip("skimage.data")
    classifier = bundle.load(folder / "bundle")
    assert classifier.info.parameters == WITH_MEANS
    assert sum(p.numel() for p in classifier.network.parameters()) == NETWORK
    assert classifier.info.classes == imagenet_names.class_names()
    answer = classifier.classify(data.coffee())
    assert answer.verdict is Verdict.NOT_ASSESSED
    assert answer.top.name in classifier.info.classes
    assert sum(entry.probability for entry in answer.classes) == pytest.approx(1.0, abs=1e-6)
    # 600×400 px: the shorter side becomes 256, and the middle 224 of it are seen.
    region = answer.input.region
    assert (region.left, region.top, region.width, region.height) == (125, 25, 350, 350)
