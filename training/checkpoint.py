"""Checkpoints: everything that a run needs to go on exactly where it stopped."""

from __future__ import annotations

import os
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ibinn.errors import CheckpointError

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """Training figures over the steps since the last point.

    Attributes:
        step: Optimizer steps done.
        epoch: Passes over the data done, fractional.
        loss: Mean loss.
        nll_per_dim: Mean L_X/D in nats, preprocessing not included.
        log_posterior: Mean L_Y in nats.
        accuracy: Share of training images classified right, augmented and in training mode.
        learning_rate: At the last of these steps.
        images_per_s: Throughput.
        loader_share: Share of the time that went by waiting for images; None: not measured.
        validation_accuracy: Of the averaged weights on validation images, at an epoch's end.
        validation_bits_per_dim: The same for bits/dim.
    """

    step: int
    epoch: float
    loss: float
    nll_per_dim: float
    log_posterior: float
    accuracy: float
    learning_rate: float
    images_per_s: float
    validation_accuracy: float | None = None
    validation_bits_per_dim: float | None = None
    loader_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPoint:
    """What is summed towards the next point of the curves, over all processes.

    Attributes:
        figures: Loss, L_X/D, L_Y and number correct, each summed over images.
        images: Number of these.
        waited_s: Seconds waited for them.
        seconds: Seconds since the last point.
    """

    figures: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    images: int = 0
    waited_s: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A run's state between two steps.

    Attributes:
        config_digest: `training.config.digest` of the run.
        split_digest: Of the split manifest.
        step: Optimizer steps done.
        seconds: Training time so far.
        model: State of network and mixture.
        average: State of the averaged model; empty where there is none.
        optimizer: State of the optimizer.
        curve: Figures so far.
        open_point: Figures since the last of them.
        memory: `FitConfig.memory`, or what the run changed to.
    """

    config_digest: str
    split_digest: str
    step: int
    seconds: float
    model: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    curve: tuple[CurvePoint, ...]
    open_point: OpenPoint = field(default_factory=OpenPoint)
    memory: str = "store"


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write atomically: a kill at any moment leaves the old file or the new one."""
    content = {
        "format": FORMAT,
        "config_digest": checkpoint.config_digest,
        "split_digest": checkpoint.split_digest,
        "step": checkpoint.step,
        "seconds": checkpoint.seconds,
        "model": checkpoint.model,
        "average": checkpoint.average,
        "optimizer": checkpoint.optimizer,
        "curve": [asdict(point) for point in checkpoint.curve],
        "open_point": asdict(checkpoint.open_point),
        "memory": checkpoint.memory,
    }
    write_atomically(content, path)


def write_atomically(content: Any, path: Path) -> None:
    """`torch.save` so that a kill at any moment leaves the old file or the new one."""
    temporary = path.with_suffix(".partial")
    with temporary.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; tensors and plain values only, no code is run.

    Raises:
        CheckpointError: The file is damaged or of another format.
    """
    try:
        # torch does not compare the checksums that it writes.
        with zipfile.ZipFile(path) as archive:
            if broken := archive.testzip():
                raise zipfile.BadZipFile(f"checksum of {broken}")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != FORMAT:
            raise CheckpointError(
                f"{path}: checkpoint format is {content['format']}, expected {FORMAT}; "
                "resume with the version that wrote it, or start anew in another folder"
            )
        return Checkpoint(
            config_digest=content["config_digest"],
            split_digest=content["split_digest"],
            step=content["step"],
            seconds=content["seconds"],
            model=content["model"],
            average=content["average"],
            optimizer=content["optimizer"],
            curve=tuple(CurvePoint(**point) for point in content["curve"]),
            # Checkpoints of earlier versions are at points of the curves and store activations.
            open_point=OpenPoint(**content.get("open_point", {})),
            memory=content.get("memory", "store"),
        )
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({type(error).__name__}: {error}); "
            "delete it to start anew"
        ) from error
