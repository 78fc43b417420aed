"""The training loop: steps, averages, checkpoints, and exact resume, on one process or many.

A run is a function of its configuration and data, however often it is interrupted and, where
batch norm is synchronised, on however many processes it computes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

import torch
from lightning.fabric import Fabric
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor

from ibinn.classifier import GenerativeClassifier
from ibinn.errors import ConfigError
from ibinn.flow.subnetworks import use_low_precision
from ibinn.images import Preprocessing
from training.batch_norm import reestimate_batch_norm
from training.checkpoint import CurvePoint
from training.config import FitConfig
from training.image_set import ImageSet
from training.loader import Batch, TrainLoader
from training.optimization import make_optimizer, rate_factor, set_rate
from training.placed import place_dropout
from training.state import CHECKPOINT as CHECKPOINT  # what others ask the loop for
from training.state import RunState
from training.step import Objective, Stepper, compiled
from training.synchronised import synchronise_batch_norm
from training.validation import validate

_POINT_EVERY = 50


class Progress(Protocol):
    """Where a run reports to."""

    def begin(self, curve: Sequence[CurvePoint]) -> None:
        """The run starts, after the points of its checkpoint."""

    def step(self, step: int, total: int, images_per_s: float, loader_share: float) -> None:
        """A step is done; so much of the time since the last point went by waiting for images."""

    def point(self, point: CurvePoint) -> None:
        """A point of the curves is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What the loop sees.

    Attributes:
        train: Training images.
        validation: Validation images; may be empty.
        split_digest: Of the split manifest, to recognise a checkpoint of another split.
    """

    train: ImageSet
    validation: ImageSet
    split_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What the loop leaves.

    Attributes:
        model: The averaged model with re-estimated batch-norm statistics, in evaluation mode.
        curve: Training figures.
        steps: Optimizer steps done.
        seconds: Training time over all attempts.
    """

    model: GenerativeClassifier
    curve: tuple[CurvePoint, ...]
    steps: int
    seconds: float


def train(
    model: GenerativeClassifier,
    data: TrainingData,
    config: FitConfig,
    *,
    fabric: Fabric,
    out: Path,
    progress: Progress,
    stop_after_s: float | None = None,
) -> Trained | None:
    """Train a classifier, from the folder's checkpoint if it has one.

    Args:
        model: Untrained, on the CPU.
        data: Training and validation images.
        config: The run.
        fabric: Devices and processes, launched.
        out: Folder of the checkpoint.
        progress: Where figures go.
        stop_after_s: Stop with a checkpoint at the first point of the curves after this many
            seconds, to be resumed; None: never.

    Returns:
        The trained model, or None if it stopped early.

    Raises:
        NonFiniteLossError: The loss or the gradient is not finite; the model did not move.
        CheckpointError: The checkpoint belongs to another configuration or split.
        ConfigError: The processes and micro-batches cannot share a step's images evenly.
    """
    preprocessing = Preprocessing(config.preprocessing)
    loader = _loader(data.train, preprocessing, config, fabric)
    per_epoch = loader.steps_per_epoch // config.accumulate
    total = config.epochs * per_epoch
    if config.max_steps is not None:
        total = min(total, config.max_steps)
    if config.bf16_subnetworks:
        use_low_precision(model.network, torch.bfloat16)
    # Before the optimizer takes up its state, which goes where the parameters are.
    model.to(fabric.device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = ModelEmaV3(model, decay=config.ema_decay, foreach=True) if config.ema_decay else None
    _spread(model, config, fabric)
    optimizer = make_optimizer(model, config.optimizer)
    set_rate(optimizer, 0.0)
    objective = Objective(model, config)
    state = RunState(
        objective,
        average,
        optimizer,
        config,
        split_digest=data.split_digest,
        path=out / CHECKPOINT,
        fabric=fabric,
    )
    progress.begin(state.curve)
    runner, optimizer = fabric.setup(
        compiled(objective) if config.compile else objective, optimizer
    )
    stepper = Stepper(runner, objective, optimizer, preprocessing, config, fabric)

    started = saved = time.monotonic()
    model.train()
    for batches, waited_s in _steps(loader, state.step, config.accumulate, total):
        rate = set_rate(optimizer, rate_factor(config.schedule, state.step, total))
        figures = stepper.take(batches, state.step)
        state.step += 1
        state.sums.add(figures, sum(len(batch.labels) for batch in batches), waited_s)
        if average is not None:
            average.update(model, step=state.step)
        step, sums = state.step, state.sums
        progress.step(step, total, sums.images_per_s, sums.loader_share)
        ends = step % per_epoch == 0 or step == total
        counted = config.checkpoint_every_steps and step % config.checkpoint_every_steps == 0
        if step % min(_POINT_EVERY, per_epoch) and not ends:
            if counted:
                state.save()
            continue
        point = sums.point(step, step / per_epoch, rate)
        if ends and len(data.validation):
            accuracy, bits = validate(state.model, data.validation, preprocessing, fabric=fabric)
            point = replace(point, validation_accuracy=accuracy, validation_bits_per_dim=bits)
            model.train()
        state.curve.append(point)
        progress.point(point)
        state.next_point()
        now = time.monotonic()
        out_of_time = _agreed(
            fabric, wish=stop_after_s is not None and now - started >= stop_after_s
        )
        due = _agreed(fabric, wish=now - saved >= config.checkpoint_every_s)
        if ends or out_of_time or due or counted:
            state.save()
            saved = time.monotonic()
        if out_of_time and step < total:
            return None
    seconds = state.seconds
    final = state.model
    reestimate_batch_norm(final, data.train, preprocessing, config, fabric=fabric)
    return Trained(model=final.eval(), curve=tuple(state.curve), steps=state.step, seconds=seconds)


def _loader(
    images: ImageSet, preprocessing: Preprocessing, config: FitConfig, fabric: Fabric
) -> TrainLoader:
    parts = fabric.world_size * config.accumulate
    if config.batch_size % parts or config.batch_size == parts:
        raise ConfigError(
            f"batch_size is {config.batch_size} on {fabric.world_size} processes with "
            f"{config.accumulate} micro-batches each; expected a multiple of {parts}, with at "
            "least 2 images in each; change batch_size, accumulate or the number of processes"
        )
    return TrainLoader(
        images,
        preprocessing,
        config.augment,
        batch_size=config.batch_size // parts,
        seed=config.seed,
        workers=config.workers,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )


def _spread(model: GenerativeClassifier, config: FitConfig, fabric: Fabric) -> None:
    """Let what looks at a whole batch, or draws for it, do so over all processes."""
    if fabric.world_size == 1:
        return
    place_dropout(model, rank=fabric.global_rank, world_size=fabric.world_size)
    if config.batch_norm == "synchronised":
        synchronise_batch_norm(model)


def _agreed(fabric: Fabric, *, wish: bool) -> bool:
    """Whether any process wishes it: their clocks differ, and they must act at the same step."""
    if fabric.world_size == 1:
        return wish
    votes = fabric.all_reduce(torch.tensor(float(wish), device=fabric.device), reduce_op="sum")
    return float(cast(Tensor, votes)) > 0.0


def _steps(
    loader: TrainLoader, step: int, accumulate: int, total: int
) -> Iterator[tuple[list[Batch], float]]:
    """The micro-batches of each step up to `total`, and the seconds that they were waited for."""
    per_epoch = loader.steps_per_epoch // accumulate
    epoch, offset = divmod(step, per_epoch)
    while step < total:
        batches = loader.epoch(epoch, start_step=offset * accumulate)
        for _ in range(min(per_epoch - offset, total - step)):
            began = time.monotonic()
            taken = [next(batches) for _ in range(accumulate)]
            yield taken, time.monotonic() - began
            step += 1
        # What does not fill a step is read too, so that the loader comes to its end.
        if step < total:
            for _ in batches:
                pass
        epoch, offset = epoch + 1, 0
