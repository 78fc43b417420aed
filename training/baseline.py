"""The cost of trust: a discriminative ResNet of equal training cost, with the same data."""

from __future__ import annotations

import math
import time

import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import nn
from torch.nn import functional as F

from ibinn.images import Preprocessing
from training.config import FitConfig
from training.evaluation import Baseline, Rate
from training.image_set import ImageSet
from training.loader import TrainLoader, eval_batches

SMALL_SIDE = 64
"""Inputs up to this side keep their resolution in the first layer."""


def resnet(classes: int, side: int) -> nn.Module:
    """timm's ResNet with two basic blocks per stage and 24 to 192 channels (1.6 M parameters).

    Small inputs keep their resolution in the first layer, as usual for CIFAR.
    """
    # timm annotates the class of a block as a block.
    network: nn.Module = ResNet(
        BasicBlock,  # type: ignore[arg-type]
        layers=(2, 2, 2, 2),
        channels=(24, 48, 96, 192),
        num_classes=classes,
    )
    if side <= SMALL_SIDE:
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    return network


def train_baseline(
    train: ImageSet,
    test: ImageSet,
    preprocessing: Preprocessing,
    config: FitConfig,
    *,
    seconds: float,
    device: torch.device,
) -> Baseline:
    """Train a softmax classifier for as long as the generative one took; then test it.

    The same images, augmentation, batch size and label smoothing; SGD with momentum and a
    one-cycle schedule over the time that is given.

    Args:
        train: Training images.
        test: Test images.
        preprocessing: That of the generative classifier.
        config: Its run.
        seconds: Training time.
        device: Where to compute.
    """
    torch.manual_seed(config.seed)
    side = preprocessing.config.side
    model = resnet(len(train.class_names), side).to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    loader = TrainLoader(
        train,
        preprocessing,
        config.augment,
        batch_size=config.batch_size,
        seed=config.seed + 1,
        workers=config.workers,
    )
    peak = 0.1 * config.batch_size / 128
    model.train()
    started = time.monotonic()
    steps = epoch = 0
    while time.monotonic() - started < seconds:
        for batch in loader.epoch(epoch):
            share = (time.monotonic() - started) / seconds
            if share >= 1.0:
                break
            warm = min(1.0, share / 0.15)
            rate = peak * warm * 0.5 * (1.0 + math.cos(math.pi * max(0.0, share - 0.15) / 0.85))
            optimizer.param_groups[0]["lr"] = rate
            logits = model(preprocessing.to_tensor(batch.images.to(device)))
            loss = F.cross_entropy(
                logits,
                batch.labels.to(device),
                label_smoothing=config.objective.label_smoothing,
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            steps += 1
        epoch += 1
    model.eval()
    correct = 0
    with torch.no_grad():
        for batch in eval_batches(test, preprocessing, batch_size=250):
            logits = model(preprocessing.to_tensor(batch.images.to(device)))
            correct += int((logits.argmax(1).cpu() == batch.labels).sum())
    return Baseline(
        name="ResNet",
        accuracy=Rate.of(correct, len(test)),
        train_seconds=time.monotonic() - started,
        description=(
            "timm ResNet of basic blocks (2, 2, 2, 2) with 24, 48, 96 and 192 channels, "
            f"{sum(p.numel() for p in model.parameters()):,} parameters, {steps} steps of "
            f"{config.batch_size} images; the same images, preprocessing and augmentation"
        ),
    )
