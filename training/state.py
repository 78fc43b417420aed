"""What a run has reached between two steps: weights, averages, optimizer, figures.

It is all that a checkpoint holds, so that a run that goes on from one repeats the uninterrupted
one.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from lightning.fabric import Fabric
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor

from ibinn.classifier import GenerativeClassifier
from ibinn.errors import CheckpointError
from training import checkpoint as checkpoints
from training.checkpoint import Checkpoint, CurvePoint, OpenPoint
from training.config import FitConfig, digest
from training.step import Figures, Objective

CHECKPOINT = "checkpoint.pt"
"""Name of the file in a run's folder that the run goes on from."""


class Sums:
    """Figures since the last point of the curves: sum, then divide by the count.

    Args:
        fabric: Devices and processes; the sums are of this process until they are asked for.
        before: What was summed before this session, over all processes.
    """

    def __init__(self, fabric: Fabric, before: OpenPoint | None = None) -> None:
        before = before or OpenPoint()
        self._fabric = fabric
        self._sums = torch.tensor([*before.figures, before.images], dtype=torch.float64)
        if not fabric.is_global_zero:
            self._sums.zero_()
        self._waited_s = before.waited_s
        self._started = time.monotonic() - before.seconds

    def add(self, figures: Figures, images: int, waited_s: float) -> None:
        """A step is done.

        Args:
            figures: Its figures over this process's images.
            images: Number of these.
            waited_s: Seconds that the step waited for them.
        """
        self._sums[:4] += figures
        self._sums[4] += images
        self._waited_s += waited_s

    @property
    def images_per_s(self) -> float:
        """Throughput of all processes."""
        images = float(self._sums[4]) * self._fabric.world_size
        return images / self._elapsed_s

    @property
    def loader_share(self) -> float:
        """Share of the time that went by waiting for images."""
        return min(self._waited_s / self._elapsed_s, 1.0)

    def open(self) -> OpenPoint:
        """The sums over all processes; all of them must ask."""
        *figures, images = self._everyones().tolist()
        return OpenPoint(
            figures=tuple(figures),
            images=int(images),
            waited_s=self._waited_s,
            seconds=self._elapsed_s,
        )

    def point(self, step: int, epoch: float, rate: float) -> CurvePoint:
        """The mean figures over all processes; all of them must ask."""
        found = self.open()
        loss, nll, log_posterior, correct = (
            value / max(found.images, 1) for value in found.figures
        )
        return CurvePoint(
            step=step,
            epoch=epoch,
            loss=loss,
            nll_per_dim=nll,
            log_posterior=log_posterior,
            accuracy=correct,
            learning_rate=rate,
            images_per_s=found.images / found.seconds,
            loader_share=self.loader_share,
        )

    @property
    def _elapsed_s(self) -> float:
        return max(time.monotonic() - self._started, 1e-9)

    def _everyones(self) -> Tensor:
        if self._fabric.world_size == 1:
            return self._sums
        sums = self._sums.to(self._fabric.device, copy=True)
        torch.distributed.all_reduce(sums)
        return sums.cpu()


class RunState:
    """A run's state, taken up from its folder's checkpoint if there is one.

    Args:
        objective: With the model on its device.
        average: Its averaged copy, if there is one.
        optimizer: Of its parameters.
        config: The run.
        split_digest: Of the split manifest.
        path: The checkpoint.
        fabric: Devices and processes.

    Raises:
        CheckpointError: The checkpoint belongs to another configuration or split.
    """

    def __init__(
        self,
        objective: Objective,
        average: ModelEmaV3 | None,
        optimizer: torch.optim.Optimizer,
        config: FitConfig,
        *,
        split_digest: str,
        path: Path,
        fabric: Fabric,
    ) -> None:
        self._objective, self._average, self._optimizer = objective, average, optimizer
        self._digests = {"configuration": digest(config), "split": split_digest}
        self._path, self._fabric = path, fabric
        self.step = 0
        self.curve: list[CurvePoint] = []
        self.sums = Sums(fabric)
        self._spent_s = 0.0
        self._started = time.monotonic()
        if path.exists():
            self._take_up(checkpoints.load(path))

    @property
    def model(self) -> GenerativeClassifier:
        """The model whose figures count: the averaged one if there is one."""
        model = self._objective.model if self._average is None else self._average.module
        assert isinstance(model, GenerativeClassifier)
        return model

    @property
    def seconds(self) -> float:
        """Training time over all sessions."""
        return self._spent_s + time.monotonic() - self._started

    def next_point(self) -> None:
        """The figures are at a point of the curves; new ones begin."""
        self.sums = Sums(self._fabric)

    def save(self) -> None:
        """Write the checkpoint; all processes must call, the first one writes."""
        open_point = self.sums.open()
        if self._fabric.is_global_zero:
            average = self._average
            checkpoints.save(
                Checkpoint(
                    config_digest=self._digests["configuration"],
                    split_digest=self._digests["split"],
                    step=self.step,
                    seconds=self.seconds,
                    model=self._objective.model.state_dict(),
                    average=average.module.state_dict() if average is not None else {},
                    optimizer=self._optimizer.state_dict(),
                    curve=tuple(self.curve),
                    open_point=open_point,
                    memory=self._objective.memory,
                ),
                self._path,
            )
        self._fabric.barrier()

    def _take_up(self, found: Checkpoint) -> None:
        for (what, expected), got in zip(
            self._digests.items(), (found.config_digest, found.split_digest), strict=True
        ):
            if got != expected:
                raise CheckpointError(
                    f"{self._path}: written by a run with another {what} (digest {got[:12]}, this "
                    f"run has {expected[:12]}); use the settings of that run or another --out "
                    "folder"
                )
        self._objective.model.load_state_dict(found.model)
        if self._average is not None:
            self._average.module.load_state_dict(found.average)
        self._optimizer.load_state_dict(found.optimizer)
        if self._objective.memory == "invert" and found.memory == "checkpoint":
            self._objective.memory = "checkpoint"  # its inverse has been found unsound
        self.step, self._spent_s, self.curve = found.step, found.seconds, list(found.curve)
        self.sums = Sums(self._fabric, found.open_point)
