"""Training runs of a second: a tiny network on 480 digits, 60 steps an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric

from ibinn.flow.architectures import SmallConfig
from ibinn.images import PreprocessingConfig
from training.augment import AugmentConfig
from training.checkpoint import CurvePoint
from training.config import FitConfig, OptimizerConfig
from training.data import open_data
from training.fit import build_model
from training.image_set import ImageSet
from training.loop import Trained, TrainingData, train

STEPS_PER_EPOCH = 60
POINT_EVERY = 50


class Recorder:
    """Keeps what a run reports."""

    def __init__(self) -> None:
        self.start: list[CurvePoint] | None = None
        self.points: list[CurvePoint] = []
        self.steps: list[int] = []

    def begin(self, curve: Sequence[CurvePoint]) -> None:
        self.start = list(curve)

    def step(self, step: int, total: int, images_per_s: float, loader_share: float) -> None:
        self.steps.append(step)

    def point(self, point: CurvePoint) -> None:
        self.points.append(point)


def tiny_config(**changes: Any) -> FitConfig:
    values: dict[str, Any] = {
        "recipe": "tiny",
        "architecture": SmallConfig(side=8, widths=(6,), blocks=(2,)),
        "preprocessing": PreprocessingConfig(side=8, mean=(0.3, 0.3, 0.3), std=(0.4, 0.4, 0.4)),
        "optimizer": OptimizerConfig(name="muon", learning_rate=6e-3),
        "augment": AugmentConfig(crop_padding=1),
        "epochs": 2,
        "batch_size": 8,
        "ema_decay": 0.9,
        "reestimate_images": 100,
        "workers": 0,
    }
    return FitConfig(**(values | changes))


@cache
def digits() -> ImageSet:
    return open_data("digits").train


def tiny_data(*, split_digest: str = "split") -> TrainingData:
    return TrainingData(
        train=digits().subset(range(480)),
        validation=digits().subset(range(480, 540)),
        split_digest=split_digest,
    )


def run(
    config: FitConfig,
    out: Path,
    *,
    data: TrainingData | None = None,
    recorder: Recorder | None = None,
    stop_after_s: float | None = None,
    accelerator: str = "cpu",
) -> Trained | None:
    """Train in this process."""
    fabric = Fabric(accelerator=accelerator, devices=1)
    return train(
        build_model(config, 10),
        data or tiny_data(),
        config,
        fabric=fabric,
        out=out,
        progress=recorder or Recorder(),
        stop_after_s=stop_after_s,
    )


def figures(curve: Sequence[CurvePoint]) -> list[dict[str, float | None]]:
    """Points of a curve without their speed."""
    return [
        {
            name: getattr(point, name)
            for name in CurvePoint.__slots__
            if name not in ("images_per_s", "loader_share")
        }
        for point in curve
    ]
