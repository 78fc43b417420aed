"""Discriminative classifiers trained at the cost of ours: what the generative ones are held to.

They see the same images in the same order with the same augmentation, preprocessing, batch size
and label smoothing, for the same number of epochs. Shapes: B batch, K classes, N images.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from ibinn.decoding import Pixels
from ibinn.errors import CheckpointError, DataError
from ibinn.images import Preprocessing
from training.checkpoint import write_atomically
from training.config import FitConfig, digest
from training.image_set import ImageSet
from training.loader import TrainLoader
from training.optimization import rate_factor

SMALL_SIDE = 64
"""Inputs up to this side keep their resolution in the first layer."""

PEAK_RATE = 0.1
"""Learning rate of SGD for batches of 128; proportional to the batch."""

WEIGHT_DECAY = 5e-4

CHECKPOINT = "softmax.pt"
"""Name of the file in a run's folder that the run goes on from."""

Progress = Callable[[int, int, float, float], None]
"""Called after an epoch with (epoch, of how many, mean loss, training accuracy)."""


class SoftmaxClassifier(nn.Module):
    """A network whose outputs are logits: q(y|x) = softmax(f(x)).

    Args:
        network: Preprocessed images (B, C, H, W) -> logits (B, K).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K)."""
        logits: Tensor = self.network(x)
        return logits

    def loss(self, x: Tensor, labels: Tensor, *, label_smoothing: float) -> tuple[Tensor, Tensor]:
        """(mean cross-entropy, logits (B, K)) of labels (B,)."""
        logits = self(x)
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing), logits


def resnet(classes: int, side: int, *, width: int = 24) -> SoftmaxClassifier:
    """timm's ResNet with two basic blocks per stage and 24 to 192 channels (1.6 M parameters).

    Small inputs keep their resolution in the first layer, as usual for CIFAR.

    Args:
        classes: K.
        side: Side of the input in pixels.
        width: Channels of the first stage; each further one has twice as many.
    """
    # timm annotates the class of a block as a block.
    network: nn.Module = ResNet(
        BasicBlock,  # type: ignore[arg-type]
        layers=(2, 2, 2, 2),
        channels=(width, 2 * width, 4 * width, 8 * width),
        num_classes=classes,
    )
    if side <= SMALL_SIDE:
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    return SoftmaxClassifier(network)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedSoftmax:
    """A trained discriminative classifier.

    Attributes:
        model: In evaluation mode.
        epochs: Passes over the training images.
        seconds: Training time over all attempts.
    """

    model: SoftmaxClassifier
    epochs: int
    seconds: float


def train_softmax(
    model: SoftmaxClassifier,
    train: ImageSet,
    config: FitConfig,
    *,
    out: Path,
    device: torch.device,
    epochs: int | None = None,
    peak_rate: float = PEAK_RATE,
    weight_decay: float = WEIGHT_DECAY,
    progress: Progress | None = None,
) -> TrainedSoftmax:
    """Train with SGD, Nesterov momentum 0.9 and the run's schedule; resumes after whole epochs.

    Args:
        model: Untrained.
        train: Training images of the generative run.
        config: That run: preprocessing, augmentation, batch size, smoothing, schedule, seed.
        out: Folder of the checkpoint.
        device: Where to compute.
        epochs: Passes over the images; None: as many as the run.
        peak_rate: Largest learning rate for a batch of 128.
        weight_decay: On all parameters.
        progress: Called after every epoch.

    Raises:
        CheckpointError: The checkpoint in `out` is of another run.
        DataError: The loss is not finite.
    """
    epochs = config.epochs if epochs is None else epochs
    preprocessing = Preprocessing(config.preprocessing)
    model = model.to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rate = peak_rate * config.batch_size / 128
    optimizer = torch.optim.SGD(
        model.parameters(), lr=rate, momentum=0.9, weight_decay=weight_decay, nesterov=True
    )
    loader = TrainLoader(
        train,
        preprocessing,
        config.augment,
        batch_size=config.batch_size,
        seed=config.seed,
        workers=config.workers,
    )
    path = out / CHECKPOINT
    identity = _identity(config, epochs, rate, weight_decay, train)
    first, seconds = _restore(path, identity, model, optimizer)
    total = epochs * loader.steps_per_epoch
    compute = torch.compile(model.loss) if config.compile else model.loss
    for epoch in range(first, epochs):
        started = time.monotonic()
        model.train()
        loss_sum = correct = images = 0.0
        torch.manual_seed(config.seed * 1_000_003 + epoch)
        for position, batch in enumerate(loader.epoch(epoch)):
            step = epoch * loader.steps_per_epoch + position
            optimizer.param_groups[0]["lr"] = rate * rate_factor(config.schedule, step, total)
            x = preprocessing.to_tensor(batch.images.to(device))
            labels = batch.labels.to(device)
            loss, logits = compute(
                x.contiguous(memory_format=torch.channels_last),
                labels,
                label_smoothing=config.objective.label_smoothing,
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            value = float(loss.detach())
            if not math.isfinite(value):
                raise DataError(
                    f"step {step}: loss is {value}; expected a finite number; lower the learning "
                    f"rate (peak {rate:g})"
                )
            loss_sum += value * len(labels)
            correct += int((logits.detach().argmax(1) == labels).sum())
            images += len(labels)
        seconds += time.monotonic() - started
        state = {
            "identity": identity,
            "epoch": epoch + 1,
            "seconds": seconds,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        write_atomically(state, path)
        if progress is not None:
            progress(epoch + 1, epochs, loss_sum / images, correct / images)
    return TrainedSoftmax(model=model.eval(), epochs=epochs, seconds=seconds)


def trained_seconds(out: Path) -> float:
    """Training time so far of the run whose checkpoint lies in a folder; 0 without one."""
    path = out / CHECKPOINT
    if not path.exists():
        return 0.0
    return float(torch.load(path, weights_only=True, map_location="cpu")["seconds"])


@torch.no_grad()
def softmax_logits(
    model: SoftmaxClassifier, pixels: Pixels, preprocessing: Preprocessing, *, chunk: int = 250
) -> npt.NDArray[np.float64]:
    """Logits (N, K) of finished pixels, uint8 (N, S, S, 3)."""
    device = next(model.parameters()).device
    parts = [
        model(preprocessing.to_tensor(torch.from_numpy(pixels[i : i + chunk]).to(device)))
        for i in range(0, len(pixels), chunk)
    ]
    joined: npt.NDArray[np.float64] = torch.cat(parts).double().cpu().numpy()
    return joined


def save_softmax(model: SoftmaxClassifier, path: Path, *, about: Mapping[str, str]) -> None:
    """Write weights, matrices and kernels in half precision, with what they are.

    Args:
        model: Trained.
        path: A ``.safetensors`` file.
        about: Facts in words: data, command, epochs, seconds.
    """
    tensors = {
        name: (value.half() if value.dim() >= 2 else value).contiguous().cpu()
        for name, value in model.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not save_file: its files are for the user alone.
    path.write_bytes(safetensors.torch.save(tensors, metadata=dict(about)))


def load_softmax(model: SoftmaxClassifier, path: Path) -> dict[str, str]:
    """Fill an untrained network of the same kind from a file; returns its facts.

    Raises:
        CheckpointError: The file cannot be read, or is of another network.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = dict(file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        own = model.state_dict()
        model.load_state_dict({name: value.to(own[name].dtype) for name, value in state.items()})
    except (OSError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{path}: not the weights of this network ({error}); expected a file that "
            "`ibinn-train comparator` wrote"
        ) from error
    model.eval()
    return about


def _identity(
    config: FitConfig, epochs: int, rate: float, weight_decay: float, train: ImageSet
) -> str:
    ids = hashlib.sha256("".join(item.id for item in train.items).encode()).hexdigest()
    return json.dumps([digest(config), epochs, rate, weight_decay, ids])


def _restore(
    path: Path, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    if state["identity"] != identity:
        raise CheckpointError(
            f"{path}: written by another run; use its settings and data or another folder"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epoch"]), float(state["seconds"])
