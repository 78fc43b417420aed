"""Optimizers and schedules from their configs."""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.optim.muon import Muon
from torch import nn

from ibinn.classifier import GenerativeClassifier
from training.config import OptimizerConfig, ScheduleConfig


def make_optimizer(model: GenerativeClassifier, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Optimizer over a model's parameters in three groups: weights, means, everything else.

    Weight decay is for convolution and linear weights alone.
    """
    means = list(model.mixture.parameters())
    weights = [p for p in model.network.parameters() if p.dim() >= 2]
    others = [p for p in model.network.parameters() if p.dim() < 2]
    rate = config.learning_rate
    groups: list[dict[str, Any]] = [
        {"params": weights, "lr": rate, "weight_decay": config.weight_decay},
        {"params": means, "lr": rate * config.mean_rate, "weight_decay": 0.0},
        {"params": others, "lr": rate, "weight_decay": 0.0},
    ]
    if config.name == "muon":
        for group in groups[1:]:
            group |= {"use_fallback": True, "fallback_lr_scale": config.other_rate}
        return Muon(groups, lr=rate, momentum=config.momentum, nesterov=True)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=(config.momentum, 0.95))
    # The thesis moves the means without momentum (section C.1.2).
    groups[1] |= {"momentum": 0.0}
    return torch.optim.SGD(groups, lr=rate, momentum=config.momentum)


def rate_factor(config: ScheduleConfig, step: int, total: int) -> float:
    """Factor in [0, 1] on the learning rate at a step in [0, total).

    With c = `cycles` and f = `cycle_factor`, step t is in cycle k = ⌊c·t/total⌋ at the share
    s = c·t/total - k of it, and the factor is f^k times that of one cycle at s.
    """
    place = config.cycles * step / max(total, 1)
    cycle = min(int(place), config.cycles - 1)
    return config.cycle_factor**cycle * _factor_in_cycle(config, place - cycle)


def _factor_in_cycle(config: ScheduleConfig, share: float) -> float:
    if config.name == "step":
        return float(0.1 ** sum(share >= milestone for milestone in config.milestones))
    warmup = config.warmup if config.name == "one_cycle" else 0.0
    if share < warmup:
        return 0.1 + 0.9 * share / warmup
    progress = (share - warmup) / (1.0 - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Scale every group's rate from its initial one; returns the first group's."""
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])


def parameters_of(model: nn.Module) -> list[nn.Parameter]:
    """Trainable parameters of a model."""
    return [p for p in model.parameters() if p.requires_grad]
