"""A step in micro-batches is the step over all of its images."""

from __future__ import annotations

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from ibinn.images import Preprocessing
from tests.training.tiny_runs import digits, tiny_config
from training.config import FitConfig, OptimizerConfig, ScheduleConfig
from training.fit import build_model
from training.loader import Batch, eval_batches
from training.optimization import make_optimizer
from training.step import Objective, Stepper

PLAIN = OptimizerConfig(name="sgd", learning_rate=0.01, gradient_clip=1e9)


def stepped(config: FitConfig, batches: list[Batch], step: int = 0) -> tuple[Tensor, Tensor]:
    """Weights before less after a step without batch norm, and the figures."""
    fabric = Fabric(accelerator="cpu", devices=1)
    model = build_model(config, 10).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    objective = Objective(model, config)
    runner, optimizer = fabric.setup(objective, make_optimizer(model, config.optimizer))
    preprocessing = Preprocessing(config.preprocessing)
    stepper = Stepper(runner, objective, optimizer, preprocessing, config, fabric)
    figures = stepper.take(batches, step)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    return before - after, figures


def batches_of(size: int) -> list[Batch]:
    """The same 24 images in batches of a size."""
    preprocessing = Preprocessing(tiny_config().preprocessing)
    return list(eval_batches(digits().subset(range(24)), preprocessing, batch_size=size))


@pytest.mark.parametrize("size", [12, 6, 2])
def test_micro_batches_give_the_gradient_of_the_whole(size: int) -> None:
    config = tiny_config(optimizer=PLAIN)
    whole, figures = stepped(config, batches_of(24))
    parts, their_figures = stepped(config, batches_of(size))
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(their_figures, figures, rtol=1e-5, atol=1e-6)


def test_the_first_steps_move_less_and_report_the_same_loss() -> None:
    config = tiny_config(optimizer=PLAIN)
    gentle = tiny_config(
        optimizer=PLAIN, schedule=ScheduleConfig(first_steps=10, first_factor=0.05)
    )
    whole, figures = stepped(config, batches_of(24))
    small, their_figures = stepped(gentle, batches_of(24))
    torch.testing.assert_close(small, 0.05 * whole, rtol=1e-3, atol=1e-7)
    assert torch.equal(their_figures, figures)
    later, _ = stepped(gentle, batches_of(24), step=10)
    assert torch.equal(later, stepped(config, batches_of(24), step=10)[0])
