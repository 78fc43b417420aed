"""The training loop: steps, averages, checkpoints, and exact resume.

Everything random at a step is a function of (seed, step), so that a resumed run repeats the
uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import torch
from lightning.fabric import Fabric
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from ibinn.classifier import GenerativeClassifier
from ibinn.density import bits_per_dim
from ibinn.errors import CheckpointError, NonFiniteLossError
from ibinn.flow.subnetworks import use_low_precision
from ibinn.images import Preprocessing
from ibinn.objective import LossTerms, class_nll, information_bottleneck, soft_targets
from training import checkpoint as checkpoints
from training.checkpoint import Checkpoint, CurvePoint
from training.config import FitConfig, ObjectiveConfig, ObjectiveKind, digest
from training.image_set import ImageSet
from training.loader import Batch, TrainLoader, eval_batches
from training.optimization import make_optimizer, parameters_of, rate_factor, set_rate

CHECKPOINT = "checkpoint.pt"
"""Name of the file in a run's folder that the run goes on from."""


class Progress(Protocol):
    """Where a run reports to."""

    def begin(self, curve: Sequence[CurvePoint]) -> None:
        """The run starts, after the points of its checkpoint."""

    def step(self, step: int, total: int, images_per_s: float) -> None:
        """A step is done."""

    def point(self, point: CurvePoint) -> None:
        """A point of the curves is there."""


class Objective(nn.Module):
    """Loss of a batch, as one module so that it can be compiled and distributed.

    Args:
        model: The classifier to train.
        config: Which loss.
    """

    def __init__(self, model: GenerativeClassifier, config: ObjectiveConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(loss, L_X/D, L_Y, number correct) of images (B, C, H, W) and labels (B,)."""
        z, log_det = self.model(x)
        mixture = self.model.mixture
        targets = soft_targets(labels, mixture.classes, self.config.label_smoothing)
        terms: LossTerms
        if self.config.kind is ObjectiveKind.CLASS_NLL:
            terms = class_nll(mixture, z, log_det, targets)
        else:
            terms = information_bottleneck(mixture, z, log_det, targets, gamma=self.config.gamma)
        return terms.loss, terms.nll_per_dim, terms.log_posterior, terms.correct


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


class _Sums:
    """Figures since the last curve point: sum, then divide by the count."""

    def __init__(self) -> None:
        self.values = torch.zeros(4, dtype=torch.float64)
        self.images = 0
        self.started = time.monotonic()

    def add(self, terms: tuple[Tensor, Tensor, Tensor, Tensor], images: int) -> None:
        loss, nll, log_posterior, correct = (term.detach().double().cpu() for term in terms)
        self.values += torch.stack((loss * images, nll * images, log_posterior * images, correct))
        self.images += images

    @property
    def rate(self) -> float:
        return self.images / max(time.monotonic() - self.started, 1e-9)


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
    """
    preprocessing = Preprocessing(config.preprocessing)
    loader = TrainLoader(
        data.train,
        preprocessing,
        config.augment,
        batch_size=config.batch_size // fabric.world_size,
        seed=config.seed,
        workers=config.workers,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    total = config.epochs * loader.steps_per_epoch
    if config.bf16_subnetworks:
        use_low_precision(model.network, torch.bfloat16)
    # Before the optimizer takes up its state, which goes where the parameters are.
    model.to(fabric.device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = ModelEmaV3(model, decay=config.ema_decay, foreach=True) if config.ema_decay else None
    optimizer = make_optimizer(model, config.optimizer)
    set_rate(optimizer, 0.0)
    path = out / CHECKPOINT
    state = _restore(path, model, average, optimizer, config, data.split_digest)
    step, spent, curve = state
    progress.begin(curve)
    objective = Objective(model, config.objective)
    compiled = cast(nn.Module, torch.compile(objective)) if config.compile else objective
    runner, optimizer = fabric.setup(compiled, optimizer)

    started = saved = time.monotonic()

    def write_checkpoint() -> None:
        if fabric.is_global_zero:
            checkpoints.save(
                Checkpoint(
                    config_digest=digest(config),
                    split_digest=data.split_digest,
                    step=step,
                    seconds=spent + time.monotonic() - started,
                    model=model.state_dict(),
                    average=average.module.state_dict() if average is not None else {},
                    optimizer=optimizer.state_dict(),
                    curve=tuple(curve),
                ),
                path,
            )
        fabric.barrier()

    report_every = max(1, min(50, loader.steps_per_epoch))
    model.train()
    sums = _Sums()
    for batch in _batches(loader, step, config.epochs):
        rate = set_rate(optimizer, rate_factor(config.schedule, step, total))
        terms = _step(runner, optimizer, batch, preprocessing, config, step, fabric)
        step += 1
        sums.add(terms, len(batch.labels))
        if average is not None:
            average.update(model, step=step)
        progress.step(step, total, sums.rate * fabric.world_size)
        epoch_ends = step % loader.steps_per_epoch == 0
        if step % report_every and not epoch_ends:
            continue
        point = _point(sums, step, step / loader.steps_per_epoch, rate, fabric)
        if epoch_ends and len(data.validation):
            judged = average.module if average is not None else model
            point = _with_validation(point, judged, data.validation, preprocessing, fabric)
            model.train()
        curve.append(point)
        progress.point(point)
        sums = _Sums()
        # Between two points there are sums that a checkpoint does not hold.
        now = time.monotonic()
        out_of_time = _agreed(
            fabric, wish=stop_after_s is not None and now - started >= stop_after_s
        )
        due = _agreed(fabric, wish=now - saved >= config.checkpoint_every_s)
        if epoch_ends or out_of_time or due:
            write_checkpoint()
            saved = time.monotonic()
        if out_of_time and step < total:
            return None
    seconds = spent + time.monotonic() - started
    final = average.module if average is not None else model
    assert isinstance(final, GenerativeClassifier)
    reestimate_batch_norm(final, data.train, preprocessing, config, device=fabric.device)
    return Trained(model=final.eval(), curve=tuple(curve), steps=step, seconds=seconds)


def _restore(
    path: Path,
    model: GenerativeClassifier,
    average: ModelEmaV3 | None,
    optimizer: torch.optim.Optimizer,
    config: FitConfig,
    split_digest: str,
) -> tuple[int, float, list[CurvePoint]]:
    if not path.exists():
        return 0, 0.0, []
    state = checkpoints.load(path)
    for what, got, expected in (
        ("configuration", state.config_digest, digest(config)),
        ("split", state.split_digest, split_digest),
    ):
        if got != expected:
            raise CheckpointError(
                f"{path}: written by a run with another {what} (digest {got[:12]}, this run has "
                f"{expected[:12]}); use the settings of that run or another --out folder"
            )
    model.load_state_dict(state.model)
    if average is not None:
        average.module.load_state_dict(state.average)
    optimizer.load_state_dict(state.optimizer)
    return state.step, state.seconds, list(state.curve)


def _agreed(fabric: Fabric, *, wish: bool) -> bool:
    """Whether any process wishes it: their clocks differ, and they must act at the same step."""
    if fabric.world_size == 1:
        return wish
    votes = fabric.all_reduce(torch.tensor(float(wish), device=fabric.device), reduce_op="sum")
    return float(cast(Tensor, votes)) > 0.0


def _batches(loader: TrainLoader, step: int, epochs: int) -> Iterator[Batch]:
    first, offset = divmod(step, loader.steps_per_epoch)
    for epoch in range(first, epochs):
        yield from loader.epoch(epoch, start_step=offset)
        offset = 0


def _step(
    runner: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    preprocessing: Preprocessing,
    config: FitConfig,
    step: int,
    fabric: Fabric,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    # Dropout and the dequantisation noise both draw from the global generator.
    torch.manual_seed((config.seed * 1_000_003 + step) * 4_099 + fabric.global_rank)
    images = batch.images.to(fabric.device, non_blocking=True)
    labels = batch.labels.to(fabric.device, non_blocking=True)
    noise = torch.rand(
        (images.shape[0], images.shape[3], images.shape[1], images.shape[2]),
        device=fabric.device,
    )
    optimizer.zero_grad(set_to_none=True)
    terms: tuple[Tensor, Tensor, Tensor, Tensor] = runner(
        preprocessing.to_tensor(images, noise), labels
    )
    fabric.backward(terms[0])
    norm = nn.utils.clip_grad_norm_(parameters_of(runner), config.optimizer.gradient_clip)
    loss = float(terms[0].detach())
    if not math.isfinite(loss) or not math.isfinite(float(norm)):
        rate = optimizer.param_groups[0]["lr"]
        raise NonFiniteLossError(
            f"step {step}: loss is {loss}, gradient norm {float(norm)}; expected finite "
            f"numbers; batch ids {', '.join(identifier[:12] for identifier in batch.ids[:8])} …; "
            f"the optimizer did not move; lower optimizer.learning_rate (now {rate:.2g}) or "
            "optimizer.gradient_clip, or look at these images"
        )
    optimizer.step()
    return terms


def _point(sums: _Sums, step: int, epoch: float, rate: float, fabric: Fabric) -> CurvePoint:
    images = max(sums.images, 1)
    loss, nll, log_posterior, correct = (float(value) / images for value in sums.values)
    return CurvePoint(
        step=step,
        epoch=epoch,
        loss=loss,
        nll_per_dim=nll,
        log_posterior=log_posterior,
        accuracy=correct,
        learning_rate=rate,
        images_per_s=sums.rate * fabric.world_size,
    )


def _with_validation(
    point: CurvePoint,
    model: nn.Module,
    validation: ImageSet,
    preprocessing: Preprocessing,
    fabric: Fabric,
) -> CurvePoint:
    assert isinstance(model, GenerativeClassifier)
    accuracy, bits = validate(model, validation, preprocessing, device=fabric.device)
    values = {name: getattr(point, name) for name in CurvePoint.__slots__}
    values |= {"validation_accuracy": accuracy, "validation_bits_per_dim": bits}
    return CurvePoint(**values)


@torch.no_grad()
def validate(
    model: GenerativeClassifier,
    images: ImageSet,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
) -> tuple[float, float]:
    """Accuracy and bits/dim (centre dequantisation) with the model's running statistics."""
    model.eval()
    correct, bits = 0, 0.0
    for batch in eval_batches(images, preprocessing, batch_size=250):
        z, log_det = model(preprocessing.to_tensor(batch.images.to(device)))
        labels = batch.labels.to(device)
        correct += int((model.mixture.logits(z).argmax(1) == labels).sum())
        log_q = model.mixture.log_prob(z) + log_det + preprocessing.log_det
        bits += float(bits_per_dim(log_q.double(), preprocessing.dims).sum())
    return correct / len(images), bits / len(images)


@torch.no_grad()
def reestimate_batch_norm(
    model: GenerativeClassifier,
    images: ImageSet,
    preprocessing: Preprocessing,
    config: FitConfig,
    *,
    device: torch.device,
) -> None:
    """Replace running batch-norm statistics by averages over training images at their centres.

    Averaged weights never ran with the statistics that were collected along the way.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    model.eval()
    for norm in norms:
        norm.train()
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(config.seed))
    subset = images.subset(sorted(chosen[: config.reestimate_images].tolist()))
    for batch in eval_batches(_shuffled(subset, config.seed), preprocessing, batch_size=250):
        if len(batch.labels) > 1:
            model(preprocessing.to_tensor(batch.images.to(device)))
    for norm in norms:
        norm.momentum = 0.1
    model.eval()


def _shuffled(images: ImageSet, seed: int) -> ImageSet:
    # Sorted by class, a batch would hold one class and its statistics would be that class's.
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed + 1))
    return images.subset(order.tolist())
