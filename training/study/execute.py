"""One run of a study: train it, going on where it stopped, then measure it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric import Fabric

from training import checkpoint as checkpoints
from training.baselines import linear_head, variational_bottleneck
from training.checkpoint import CurvePoint
from training.config import FitConfig
from training.discriminative import SoftmaxClassifier, resnet, train_softmax, trained_seconds
from training.fit import Prepared, train_model
from training.loop import CHECKPOINT
from training.ood_sets import OodSet
from training.splits import Role, role_set
from training.study.measure import measure_generative, measure_softmax
from training.study.plan import ModelKind, Run
from training.study.record import RunFigures, RunRecord, State

Progress = Callable[[float], None]
"""Called with the epochs of a run that are done, fractional."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunImages:
    """What the runs of one data set and seed share.

    Attributes:
        prepared: Images with their roles.
        sets: Out-of-distribution sets.
    """

    prepared: Prepared
    sets: tuple[OodSet, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    figures: RunFigures | None
    epochs: float
    parameters: int | None
    train_seconds: float
    measure_seconds: float


class _OutOfTime(Exception):  # noqa: N818 - stops an epoch loop, is no error
    """The time of this session is over; the checkpoint is written."""


def execute(
    run: Run,
    images: RunImages,
    folder: Path,
    *,
    fabric: Fabric,
    stop_after_s: float | None = None,
    progress: Progress | None = None,
) -> RunRecord:
    """Train and measure a run; its checkpoint lies in `folder` until it is measured.

    Args:
        run: The run.
        images: Of its data set and seed.
        folder: Its own folder.
        fabric: Where to compute, launched.
        stop_after_s: Stop with a checkpoint after this training time; None: never.
        progress: Called as epochs go on.

    Returns:
        A finished or an unfinished record.
    """
    torch.compiler.reset()  # compiled steps of earlier runs count against a limit
    folder.mkdir(parents=True, exist_ok=True)
    config = run.config
    if run.entry.kind is ModelKind.GENERATIVE:
        outcome = _generative(run, config, images, folder, fabric, stop_after_s, progress)
    else:
        outcome = _discriminative(run, config, images, folder, fabric, stop_after_s, progress)
    return record_of(
        run,
        state=State.UNFINISHED if outcome.figures is None else State.FINISHED,
        epochs=outcome.epochs,
        parameters=outcome.parameters,
        train_seconds=outcome.train_seconds,
        measure_seconds=outcome.measure_seconds,
        figures=outcome.figures,
    )


def record_of(
    run: Run,
    *,
    state: State,
    reason: str = "",
    epochs: float = 0.0,
    parameters: int | None = None,
    train_seconds: float = 0.0,
    measure_seconds: float = 0.0,
    figures: RunFigures | None = None,
) -> RunRecord:
    """The record of a run in a state."""
    planned = run.block.config.epochs
    return RunRecord(
        data=run.block.name,
        entry=run.entry.name,
        seed=run.seed,
        digest=run.digest,
        state=state,
        reason=reason,
        epochs=epochs,
        epochs_planned=planned,
        epochs_full=run.block.full_epochs or planned,
        parameters=parameters,
        train_seconds=train_seconds,
        measure_seconds=measure_seconds,
        figures=figures,
    )


class _Steps:
    """Turns a generative run's steps into epochs."""

    def __init__(self, epochs: int, progress: Progress | None) -> None:
        self._epochs, self._progress = epochs, progress

    def begin(self, curve: Sequence[CurvePoint]) -> None:
        pass

    def step(self, step: int, total: int, images_per_s: float, loader_share: float) -> None:
        if self._progress is not None:
            self._progress(self._epochs * step / total)

    def point(self, point: CurvePoint) -> None:
        pass


def _generative(
    run: Run,
    config: FitConfig,
    images: RunImages,
    folder: Path,
    fabric: Fabric,
    stop_after_s: float | None,
    progress: Progress | None,
) -> _Outcome:
    trained = train_model(
        config,
        images.prepared,
        folder,
        fabric=fabric,
        progress=_Steps(config.epochs, progress),
        stop_after_s=stop_after_s,
    )
    if trained is None:
        state = checkpoints.load(folder / CHECKPOINT)
        return _Outcome(
            figures=None,
            epochs=state.curve[-1].epoch if state.curve else 0.0,
            parameters=None,
            train_seconds=state.seconds,
            measure_seconds=0.0,
        )
    parameters = _parameters(trained.model)  # before they are frozen
    started = time.monotonic()
    figures = measure_generative(
        trained.model,
        config,
        images.prepared,
        images.sets,
        floor_draws=run.floor_draws,
        device=fabric.device,
    )
    return _Outcome(
        figures=figures,
        epochs=config.epochs,
        parameters=parameters,
        train_seconds=trained.seconds,
        measure_seconds=time.monotonic() - started,
    )


def _discriminative(
    run: Run,
    config: FitConfig,
    images: RunImages,
    folder: Path,
    fabric: Fabric,
    stop_after_s: float | None,
    progress: Progress | None,
) -> _Outcome:
    prepared = images.prepared
    torch.manual_seed(config.seed)
    model = _softmax_model(run, len(prepared.source.train.class_names))
    parameters = _parameters(model)
    started = time.monotonic()
    done = 0

    def after_epoch(epoch: int, epochs: int, loss: float, accuracy: float) -> None:
        nonlocal done
        done = epoch
        if progress is not None:
            progress(epoch)
        spent = time.monotonic() - started
        if stop_after_s is not None and spent >= stop_after_s and epoch < epochs:
            raise _OutOfTime

    try:
        trained = train_softmax(
            model,
            role_set(prepared.source, prepared.manifest, Role.TRAIN),
            config,
            out=folder,
            device=fabric.device,
            peak_rate=run.entry.peak_rate,
            progress=after_epoch,
        )
    except _OutOfTime:
        return _Outcome(
            figures=None,
            epochs=done,
            parameters=parameters,
            train_seconds=trained_seconds(folder),
            measure_seconds=0.0,
        )
    measuring = time.monotonic()
    figures = measure_softmax(
        trained.model, config, prepared, images.sets, floor_draws=run.floor_draws
    )
    return _Outcome(
        figures=figures,
        epochs=config.epochs,
        parameters=parameters,
        train_seconds=trained.seconds,
        measure_seconds=time.monotonic() - measuring,
    )


def _softmax_model(run: Run, classes: int) -> SoftmaxClassifier:
    architecture, width = run.block.config.architecture, run.block.resnet_width
    match run.entry.kind:
        case ModelKind.LINEAR_HEAD:
            return linear_head(architecture, classes)
        case ModelKind.VIB:
            return variational_bottleneck(classes, architecture.side, width=width)
        case _:
            return resnet(classes, architecture.side, width=width)


def _parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
