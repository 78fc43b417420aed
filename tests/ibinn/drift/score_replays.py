"""Makes `replays.npz`: what the embedded model says of CIFAR-10's test images, clean and damaged.

    python -m tests.ibinn.drift.score_replays DATA

Scores only, no images: log-posteriors in half precision, combined scores in single, labels. All
10,000 clean test images, and the same 2,000 of them after five corruptions at five severities, in
the order of the set. About two minutes on two cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ibinn import bundle
from ibinn.trusted import CHUNK, TrustedClassifier
from training.corruptions import SEVERITIES, corrupt
from training.data import open_data
from training.image_set import ImageSet
from training.ood_sets import choose

CORRUPTIONS = ("gaussian_noise", "defocus_blur", "brightness", "contrast", "jpeg_compression")
"""Those of the evaluation's mix of mild damage, and the damage that photographs most often have."""

DAMAGED = 2_000
FILE = Path(__file__).parent / "replays.npz"


def scored(
    classifier: TrustedClassifier, images: ImageSet, damage: tuple[str, int] | None
) -> dict[str, np.ndarray]:
    logs, scores = [], []
    for start in range(0, len(images), CHUNK):
        pixels = [images.load(i) for i in range(start, min(start + CHUNK, len(images)))]
        if damage:
            pixels = [corrupt(image, damage[0], damage[1], seed=0) for image in pixels]
        steps = classifier.preprocessing
        found = classifier.score(np.stack([steps.finish(steps.fit_size(p)) for p in pixels]))
        logs.append(np.log(np.maximum(found.probabilities, 1e-30)))
        scores.append(found.combined_score)
    return {
        "log_p": np.concatenate(logs).astype(np.float16),
        "score": np.concatenate(scores).astype(np.float32),
        "label": images.labels.astype(np.uint8),
    }


def main() -> None:
    classifier = bundle.load(bundle.embedded_path())
    calibration = classifier.reference
    assert calibration is not None
    assert calibration.held_out is not None
    held_out = calibration.held_out
    logits = held_out.logits.astype(np.float64) / calibration.temperature
    logits -= np.logaddexp.reduce(logits, axis=1, keepdims=True)
    n = len(held_out)
    cells = {
        "calibration": {
            "log_p": logits.astype(np.float16),
            "score": np.sort(calibration.combined)[
                np.rint(n * (1 - held_out.combined_p)).astype(int)
            ].astype(np.float32),
            "label": held_out.labels.astype(np.uint8),
        }
    }
    test = open_data(sys.argv[1]).test
    assert test is not None
    damaged = test.subset(choose(len(test), DAMAGED, seed=0))
    cells["clean"] = scored(classifier, test, None)
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            cell = scored(classifier, damaged, (name, severity))
            cells[f"{name}-{severity}"] = cell
            print(name, severity, flush=True)
    np.savez_compressed(
        FILE,
        versions=np.array([classifier.versions.weights, classifier.versions.calibration]),
        **{f"{name}/{key}": values for name, cell in cells.items() for key, values in cell.items()},
    )
    print(f"{FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
