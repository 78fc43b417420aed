"""One optimizer step: the loss of its micro-batches, their gradient, and the move.

Everything random at a step is a function of (seed, step) and of the place in it, so that a resumed
run repeats the uninterrupted one, and many processes the single one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import cast

import torch
from lightning.fabric import Fabric
from lightning.fabric.wrappers import _FabricModule
from torch import Tensor, nn

from ibinn.classifier import GenerativeClassifier
from ibinn.errors import NonFiniteLossError
from ibinn.flow.recomputation import Memory, RoundTrip, transform, uncounted
from ibinn.images import Preprocessing
from ibinn.objective import LossTerms, class_nll, information_bottleneck, soft_targets
from training.config import FitConfig, ObjectiveKind
from training.loader import Batch
from training.optimization import parameters_of
from training.placed import noise, step_seed

SOUND = 1e-4
"""Largest error of an inverse, relative to what it should give, that a gradient may rest on: up to
there, gradients were within 1 % of those of stored activations."""

_LOG = logging.getLogger(__name__)

Figures = Tensor
"""Loss, L_X/D, L_Y and number correct, summed over images: float64 (4,)."""


class Objective(nn.Module):
    """Loss of a batch, as one module so that it can be compiled and distributed.

    Args:
        model: The classifier to train.
        config: The run.
    """

    def __init__(self, model: GenerativeClassifier, config: FitConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config.objective
        self.memory: Memory = config.memory
        self.round_trip = RoundTrip()

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(loss, L_X/D, L_Y, number correct) of images (B, C, H, W) and labels (B,)."""
        z, log_det = transform(
            self.model.network, x, memory=self.memory, round_trip=self.round_trip
        )
        mixture = self.model.mixture
        targets = soft_targets(labels, mixture.classes, self.config.label_smoothing)
        terms: LossTerms
        if self.config.kind is ObjectiveKind.CLASS_NLL:
            terms = class_nll(mixture, z, log_det, targets)
        else:
            terms = information_bottleneck(mixture, z, log_det, targets, gamma=self.config.gamma)
        return terms.loss, terms.nll_per_dim, terms.log_posterior, terms.correct


def compiled(objective: Objective) -> nn.Module:
    """The objective, compiled; as it is where activations are computed again.

    A compiled subnetwork may keep other tensors when it runs again than when it ran first, which
    recomputation cannot take.
    """
    if objective.memory == "store":
        return cast(nn.Module, torch.compile(objective))
    _LOG.warning(
        "compile is true and memory %s: steps that compute activations again are not compiled",
        objective.memory,
    )
    return objective


class Stepper:
    """Takes optimizer steps.

    Args:
        runner: The objective as the devices run it.
        objective: The same, as it is.
        optimizer: Moves its parameters.
        preprocessing: From pixels to the network's input.
        config: The run.
        fabric: Devices and processes.
    """

    def __init__(
        self,
        runner: _FabricModule,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        preprocessing: Preprocessing,
        config: FitConfig,
        fabric: Fabric,
    ) -> None:
        self._runner, self._objective, self._optimizer = runner, objective, optimizer
        self._preprocessing, self._config, self._fabric = preprocessing, config, fabric

    def take(self, batches: Sequence[Batch], step: int) -> Figures:
        """One step over its micro-batches; returns the figures of this process's images.

        Raises:
            NonFiniteLossError: The loss or the gradient is not finite; the model did not move.
        """
        figures = self._gradients(batches, step)
        if self._objective.memory == "invert" and not self._inverse_is_sound(step):
            self._objective.memory = "checkpoint"
            with uncounted([self._objective]):
                figures = self._gradients(batches, step)
        norm = nn.utils.clip_grad_norm_(
            parameters_of(self._runner), self._config.optimizer.gradient_clip
        )
        loss = float(figures[0]) / sum(len(batch.labels) for batch in batches)
        if not math.isfinite(loss) or not math.isfinite(float(norm)):
            rate = self._optimizer.param_groups[0]["lr"]
            ids = [identifier for batch in batches for identifier in batch.ids]
            raise NonFiniteLossError(
                f"step {step}: loss is {loss}, gradient norm {float(norm)}; expected finite "
                f"numbers; batch ids {', '.join(identifier[:12] for identifier in ids[:8])} …; "
                f"the optimizer did not move; lower optimizer.learning_rate (now {rate:.2g}) or "
                "optimizer.gradient_clip, or look at these images"
            )
        self._optimizer.step()
        return figures

    def _gradients(self, batches: Sequence[Batch], step: int) -> Figures:
        self._optimizer.zero_grad(set_to_none=True)
        self._objective.round_trip.reset()
        schedule = self._config.schedule
        factor = schedule.first_factor if step < schedule.first_steps else 1.0
        last = len(batches) - 1
        figures = torch.zeros(4, dtype=torch.float64)
        for number, batch in enumerate(batches):
            x, labels = self._inputs(batch, number, step)
            # Gradients are exchanged once, with the last micro-batch.
            with self._fabric.no_backward_sync(self._runner, enabled=number < last):
                terms: tuple[Tensor, Tensor, Tensor, Tensor] = self._runner(x, labels)
                loss = terms[0] if factor == 1.0 else terms[0] * factor
                self._fabric.backward(loss if last == 0 else loss / len(batches))
            means = torch.stack([term.detach().double() for term in terms[:3]])
            figures[:3] += len(labels) * means.cpu()
            figures[3] += terms[3].cpu()
        return figures

    def _inputs(self, batch: Batch, number: int, step: int) -> tuple[Tensor, Tensor]:
        fabric = self._fabric
        images = batch.images.to(fabric.device, non_blocking=True)
        labels = batch.labels.to(fabric.device, non_blocking=True)
        count, side, channels = images.shape[0], images.shape[1], images.shape[3]
        seed = step_seed(self._config.seed, step)
        # Dropout draws from the global generator, which is in the same state everywhere.
        torch.manual_seed(seed + number + 1)
        drawn = noise(
            (number * fabric.world_size + fabric.global_rank) * count,
            count,
            (channels, side, side),
            seed=seed,
            device=fabric.device,
        )
        return self._preprocessing.to_tensor(images, drawn), labels

    def _inverse_is_sound(self, step: int) -> bool:
        error = torch.tensor(self._objective.round_trip.error, device=self._fabric.device)
        if self._fabric.world_size > 1:
            torch.distributed.all_reduce(error, torch.distributed.ReduceOp.MAX)
        if float(error) <= SOUND:
            return True
        if self._fabric.is_global_zero:
            _LOG.warning(
                "step %d: memory is invert and an inverse is off by %.1e of its input; at most "
                "%.0e is sound; this step and all further ones take memory=checkpoint",
                *(step, float(error), SOUND),
            )
        return False
