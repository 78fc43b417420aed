"""The softmax ResNet of equal training cost that a bundle's report is held against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ibinn.images import Preprocessing
from ibinn.manifest import Manifest
from training.config import FitConfig, from_dict
from training.discriminative import (
    Progress,
    load_softmax,
    resnet,
    save_softmax,
    softmax_logits,
    train_softmax,
)
from training.evaluation import Baseline, Rate
from training.image_set import ImageSet
from training.loader import eval_batches
from training.roles import roles_of
from training.splits import Role

COMPARATORS = Path(__file__).parent / "comparators"
"""Weights of the comparators that reports of this repository use, by bundle name."""


def train_comparator(
    manifest: Manifest,
    data: str,
    *,
    run: Path,
    out: Path,
    command: str,
    device: str = "cpu",
    skip_unreadable: bool = False,
    group_by: str | None = None,
    progress: Progress | None = None,
) -> Baseline:
    """Train a ResNet as a bundle was trained, and write its weights.

    Args:
        manifest: Of the bundle: its run's configuration and classes.
        data: The data of that run.
        run: Folder of the checkpoint.
        out: Where the weights go.
        command: For the file's facts.
        device: Where to compute.
        skip_unreadable: Go on without unreadable files.
        group_by: As in that run.
        progress: Called after every epoch.

    Returns:
        What it reaches on the test images.

    Raises:
        DataError: The data is not that of the run.
    """
    config = from_dict(dict(manifest.training.config))
    roles = roles_of(manifest, data, skip_unreadable=skip_unreadable, group_by=group_by)
    train_on(
        manifest,
        config,
        roles[Role.TRAIN],
        run=run,
        out=out,
        command=command,
        device=torch.device(device),
        progress=progress,
    )
    return judged(manifest, roles[Role.TEST], out)


def train_on(
    manifest: Manifest,
    config: FitConfig,
    train: ImageSet,
    *,
    run: Path,
    out: Path,
    command: str,
    device: torch.device,
    progress: Progress | None = None,
) -> None:
    """Train the ResNet of a run on its training images and write the weights to `out`."""
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    trained = train_softmax(
        resnet(len(manifest.classes), config.preprocessing.side),
        train,
        config,
        out=run,
        device=device,
        progress=progress,
    )
    save_softmax(
        trained.model,
        out,
        about={
            "bundle": manifest.name,
            "command": command,
            "epochs": str(trained.epochs),
            "seconds": f"{trained.seconds:.0f}",
        },
    )


def judged(manifest: Manifest, test: ImageSet, path: Path) -> Baseline:
    """The comparator in a file, on test images: accuracy, cost, and how it was trained."""
    config = from_dict(dict(manifest.training.config))
    model = resnet(len(manifest.classes), config.preprocessing.side)
    about = load_softmax(model, path)
    preprocessing = Preprocessing(config.preprocessing)
    correct = 0
    for batch in eval_batches(test, preprocessing, batch_size=250):
        logits = softmax_logits(model, batch.images.numpy(), preprocessing)
        correct += int(np.sum(logits.argmax(1) == batch.labels.numpy()))
    return Baseline(
        name="ResNet",
        accuracy=Rate.of(correct, len(test)),
        train_seconds=float(about.get("seconds", "nan")),
        description=_described(model, config, about),
    )


def _described(model: torch.nn.Module, config: FitConfig, about: dict[str, str]) -> str:
    parameters = sum(p.numel() for p in model.parameters())
    return (
        "timm ResNet of basic blocks (2, 2, 2, 2) with 24, 48, 96 and 192 channels, "
        f"{parameters:,} parameters, {about.get('epochs', '?')} epochs in batches of "
        f"{config.batch_size}; the same images, preprocessing and augmentation"
    )
