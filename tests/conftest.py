"""What every test shares: where real data lies, one thread, seeds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
EMBEDDED_BUNDLE = ROOT / "ibinn" / "models" / "cifar10-small"


def pytest_configure(config: pytest.Config) -> None:
    """Hold torch to one thread, so that sums have one order and tests share two cores well."""
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `gpu` tests where there is no accelerator."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no accelerator on this machine"))


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Start every test from seed 0 and give back the default dtype."""
    torch.manual_seed(0)
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)


@pytest.fixture
def rng() -> np.random.Generator:
    """A numpy generator, seed 0."""
    return np.random.default_rng(0)


@pytest.fixture
def generator() -> torch.Generator:
    """A torch generator on the CPU, seed 0."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def embedded_bundle() -> Path:
    """The bundle that is part of the repository."""
    return EMBEDDED_BUNDLE


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with ``data/`` and ``golden/`` beside the repository; skips without it."""
    path = Path(os.environ.get("IBINN_SHARED", ROOT.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no shared folder at {path}; IBINN_SHARED names another")
    return path


def unpacked(name: str) -> Path:
    """The folder of a data set that `make data` unpacked; skips without it."""
    path = ROOT / "data" / name
    if not (path / ".complete").exists():
        pytest.skip(f"data set {name} is not in {path}; `make data` unpacks it")
    return path


@pytest.fixture(scope="session")
def cifar10_dir() -> Path:
    """CIFAR-10 (JPEG): ``train/<class>/NNNN.jpg`` and ``test/<class>/NNNN.jpg``."""
    return unpacked("cifar10")


@pytest.fixture(scope="session")
def tiny_imagenet_dir() -> Path:
    """Tiny ImageNet: ``train/<wnid>/…`` and ``val/<wnid>/…``, 64×64."""
    return unpacked("tiny-imagenet")


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """MNIST: the root that torchvision expects, with ``MNIST/raw`` below."""
    return unpacked("mnist")
