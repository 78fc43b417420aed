"""Training images per second: whole optimizer steps on batches that are ready.

What loading costs beside them is not in it: a run shows the loader's share itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from ibinn.classifier import GenerativeClassifier
from ibinn.errors import ConfigError
from ibinn.images import Preprocessing
from ibinn.latent import GaussianMixture
from tests.benchmarks.imagenet import material
from tests.benchmarks.imagenet.blocks import Spread
from tests.benchmarks.imagenet.figures import Figure
from training.config import FitConfig
from training.optimization import make_optimizer, parameters_of
from training.recipes import recipe
from training.step import Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A training step to time.

    Attributes:
        name: In the figures.
        recipe: Where its configuration comes from.
        classes: K.
        batch: Images of a step.
    """

    name: str
    recipe: str
    classes: int
    batch: int


CASES = (
    Case(name="ib_inn_50", recipe="imagenet", classes=material.CLASSES, batch=4),
    Case(name="tiny_imagenet", recipe="tiny-imagenet", classes=200, batch=16),
    Case(name="embedded", recipe="cifar10-small", classes=10, batch=64),
)


def measure(case: Case, *, seconds: float) -> list[Figure]:
    """Figures ``training.NAME.*``; none where there is no such recipe.

    Args:
        case: What to train.
        seconds: Time to train for, after one step that is not counted; at least three steps.
    """
    try:
        config = recipe(case.recipe)
    except ConfigError:
        return []
    config = replace(config, compile=False, bf16_subnetworks=False)
    step = _Stepper(config, case)
    step()
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        step()
        times.append(time.perf_counter() - before)
    rates = Spread.of([case.batch / taken for taken in times])
    return [
        Figure.of(
            f"training.{case.name}.images_per_s",
            rates,
            "images/s",
            how=f"recipe {case.recipe} in float32, not compiled: forward, backward and "
            f"{config.optimizer.name} on batches of {case.batch}, median of {len(times)} steps",
        )
    ]


class _Stepper:
    """One optimizer step after the other on images of noise."""

    def __init__(self, config: FitConfig, case: Case) -> None:
        generator = torch.Generator().manual_seed(0)
        network = config.architecture.build()
        mixture = GaussianMixture(case.classes, network.dims, config.mixture, generator=generator)
        self._model = GenerativeClassifier(network, mixture)
        self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._model.train()
        self._config = config
        self._objective = Objective(self._model, config)
        self._optimizer = make_optimizer(self._model, config.optimizer)
        side = config.preprocessing.side
        rng = np.random.default_rng(0)
        pixels = torch.from_numpy(rng.integers(0, 256, (case.batch, side, side, 3), dtype=np.uint8))
        noise = torch.rand(case.batch, 3, side, side, generator=generator)
        self._x = Preprocessing(config.preprocessing).to_tensor(pixels, noise)
        self._labels = torch.randint(0, case.classes, (case.batch,), generator=generator)

    def __call__(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._objective(self._x, self._labels)[0]
        # On noise, a rate that is right for photographs would lead to numbers that are not finite.
        (1e-3 * loss).backward()
        torch.nn.utils.clip_grad_norm_(
            parameters_of(self._model), self._config.optimizer.gradient_clip
        )
        self._optimizer.step()
