"""Checkpoints in the released layout to test with: the golden one, and made ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ibinn.classifier import GenerativeClassifier
from ibinn.flow.ib_inn_50 import IbInn50Config
from ibinn.latent import GaussianMixture, MixtureConfig
from tests.ibinn.networks import randomise
from training.released_model import tensors_of

TINY = IbInn50Config(
    side=32, width=4, blocks=(2, 1), strides=(1, 2), clamp=0.7, pooling="published"
)
MEANS = ("mu", "mu_t", "mu_m")


def made_model(
    config: IbInn50Config = TINY, *, classes: int = 5, rank: int = 3, class_dims: int = 8
) -> GenerativeClassifier:
    """A random model that the layout can hold."""
    network = config.build()
    randomise(network)
    mixture = GaussianMixture(
        classes,
        network.dims,
        MixtureConfig(rank=rank, class_dims=class_dims),
        generator=torch.Generator().manual_seed(1),
    )
    return GenerativeClassifier(network, mixture).eval()


def content_of(tensors: Mapping[str, Tensor], **changes: Any) -> dict[str, Any]:
    """What a released file holds, with scratch tensors and an optimizer's state."""
    inn = OrderedDict((k, v) for k, v in tensors.items() if k not in MEANS)
    inn["tmp_var_2"] = torch.zeros(4, 3)
    means = {name: nn.Parameter(tensors[name]) for name in MEANS}
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    return {"inn": inn, **means, "opt": optimizer, **changes}


def write_checkpoint(path: Path, model: GenerativeClassifier | None = None) -> Path:
    """A checkpoint file of a model in the released layout."""
    torch.save(content_of(tensors_of(model or made_model())), path)
    return path


def bits_equal(left: Tensor, right: Tensor) -> bool:
    """The same shape, type and bits; NaN and signed zeros included."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    left, right = (t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (left, right))
    return torch.equal(left, right)
