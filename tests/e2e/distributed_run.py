"""A short training run of every process that is started with it: ``distributed_run.py OUT``.

Leaves in OUT the curve, the final weights and the process ids of each start.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from ibinn.flow.architectures import CifarConfig
from ibinn.latent import MixtureConfig
from tests.training.tiny_runs import Recorder, digits, tiny_config
from training.config import FitConfig, OptimizerConfig, ScheduleConfig
from training.fit import Hardware, build_model
from training.loop import TrainingData, train

STEPS = 60
STEPS_PER_EPOCH = 10


def config() -> FitConfig:
    """Batch norm, dropout, low-rank means, micro-batches, recomputation, averages: all at once."""
    return tiny_config(
        architecture=CifarConfig(side=8, blocks=(1, 1, 2), widths=(4, 4, 6), hidden=16),
        mixture=MixtureConfig(rank=3, class_dims=48),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.02),
        schedule=ScheduleConfig(name="step", first_steps=3, first_factor=0.1),
        batch_size=16,
        accumulate=2,
        memory="checkpoint",
        epochs=100,
        max_steps=STEPS,
        ema_decay=0.9,
        reestimate_images=1_000,
        checkpoint_every_steps=7,
        checkpoint_every_s=1e9,
    )


def main(out: Path) -> None:
    torch.set_num_threads(1)
    fabric = Hardware(accelerator="cpu").fabric()
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{os.getpid()}.pid").write_text(str(fabric.global_rank))
    images = digits()
    data = TrainingData(
        # 167 images: the last seven of an epoch fill no step.
        train=images.subset(range(16 * STEPS_PER_EPOCH + 7)),
        validation=images.subset(range(480, 601)),
        split_digest="split",
    )
    recorder = Recorder()
    trained = train(
        build_model(config(), 10), data, config(), fabric=fabric, out=out, progress=recorder
    )
    assert trained is not None
    if fabric.is_global_zero:
        curve = [asdict(point) for point in trained.curve]
        (out / "result.json").write_text(json.dumps({"curve": curve, "steps": recorder.steps}))
        torch.save(trained.model.state_dict(), out / "weights.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
