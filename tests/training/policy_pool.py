"""Stored scores of the embedded model's calibration part B and test images, and how to make them.

python -m tests.training.policy_pool --data data/cifar10 --split runs/cifar10-small/split.json
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path

import numpy as np

from ibinn import bundle
from training.data import open_data
from training.policy_redraws import Pool
from training.splits import Role, SplitManifest, role_set

FILE = Path(__file__).parent / "data" / "cifar10-small-scores.npz"

TEMPERATURE = 0.9900692
"""T of the embedded model, fitted on calibration part A, of which no image is in the pool."""

_BATCH = 100


@cache
def stored_pool() -> Pool:
    """12,500 images; logits were stored as float16, which moves a posterior by under 1 %."""
    with np.load(FILE, allow_pickle=False) as arrays:
        return Pool(
            logits=arrays["logits"].astype(np.float32),
            labels=arrays["labels"].astype(np.int64),
            combined=arrays["combined"].astype(np.float64),
        )


def make_pool(data: str, split: Path) -> Pool:
    """Score calibration part B and the test images with the embedded model."""
    classifier = bundle.load(bundle.embedded_path())
    steps = classifier.preprocessing
    source, manifest = open_data(data), SplitManifest.load(split)
    logits, labels, combined = [], [], []
    for role in (Role.CALIBRATION_B, Role.TEST):
        images = role_set(source, manifest, role)
        for start in range(0, len(images), _BATCH):
            chosen = range(start, min(start + _BATCH, len(images)))
            pixels = [steps.finish(steps.fit_size(images.load(index))) for index in chosen]
            scores = classifier.score(np.stack(pixels))
            logits.append(scores.logits)
            combined.append(scores.combined_score)
        labels.append(images.labels)
    return Pool(
        logits=np.concatenate(logits).astype(np.float32),
        labels=np.concatenate(labels),
        combined=np.concatenate(combined),
    )


def write_pool(pool: Pool, path: Path) -> None:
    """Store a pool: logits as float16, scores as float32."""
    np.savez_compressed(
        path,
        logits=pool.logits.astype(np.float16),
        labels=pool.labels.astype(np.uint8),
        combined=pool.combined.astype(np.float32),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", type=Path, required=True)
    arguments = parser.parse_args()
    FILE.parent.mkdir(exist_ok=True)
    write_pool(make_pool(arguments.data, arguments.split), FILE)
