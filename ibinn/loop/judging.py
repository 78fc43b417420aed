"""What a bundle is worth on held-out digits: accuracy, calibration error, flags, the new class.

Run as a process of its own (``python -m ibinn.loop.judging BUNDLE DATA``), so that the loop's own
process never holds a network; it prints one line of JSON.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ibinn.errors import DataError
from ibinn.loop.digits import MISSING, Picture, picture, read_digits
from ibinn.loop.processes import clean_environment
from ibinn.types import Prediction, Verdict

BINS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """What a model is worth on one set of images.

    Attributes:
        count: Number of images.
        accuracy: Share whose top class is the truth.
        confidence: Mean probability of the top class.
        ece: Top-label expected calibration error, 15 equal-width bins with mean confidences.
        unknown: Share with the verdict UNKNOWN.
        missing_recognised: Share of the missing class's images whose top class it is.
        missing_count: How many images show the missing class.
    """

    count: int
    accuracy: float
    confidence: float
    ece: float
    unknown: float
    missing_recognised: float
    missing_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A model on held-out images, as they are and drifted.

    Attributes:
        weights: Digest of its weights.
        clean: Digits of all ten classes.
        clean_known: Of those, the classes that the base model knows.
        drifted: The same digits with noise.
        drifted_known: Of those, again the known classes.
    """

    weights: str
    clean: Worth
    clean_known: Worth
    drifted: Worth
    drifted_known: Worth


def top_label_ece(confidence: Sequence[float], correct: Sequence[bool]) -> float:
    """Σ_b |Σ_i∈b (correct_i - confidence_i)| / n over 15 equal-width bins.

    >>> round(top_label_ece([0.9, 0.9], [True, False]), 3)
    0.4
    """
    p = np.asarray(confidence, np.float64)
    gap = np.asarray(correct, np.float64) - p
    bins = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    return float(np.abs(np.bincount(bins, weights=gap, minlength=BINS)).sum() / len(p))


def worth(pictures: Sequence[Picture], answers: Sequence[Prediction]) -> Worth:
    """The figures of answers about pictures."""
    confidence = [answer.top.probability for answer in answers]
    correct = [a.top.name == p.truth for p, a in zip(pictures, answers, strict=True)]
    of_missing = [c for p, c in zip(pictures, correct, strict=True) if p.truth == MISSING]
    return Worth(
        count=len(pictures),
        accuracy=sum(correct) / len(pictures),
        confidence=sum(confidence) / len(pictures),
        ece=top_label_ece(confidence, correct),
        unknown=sum(a.verdict is Verdict.UNKNOWN for a in answers) / len(pictures),
        missing_recognised=sum(of_missing) / len(of_missing) if of_missing else 0.0,
        missing_count=len(of_missing),
    )


def judge(bundle: Path, data: Path) -> Judged:
    """Judge a bundle on all of MNIST's test images, with and without noise."""
    from ibinn import bundle as bundles

    classifier = bundles.load(bundle)
    digits = read_digits(data, "test")
    clean = [picture(digits, index) for index in range(len(digits.labels))]
    drifted = [picture(digits, index, add_noise=True) for index in range(len(digits.labels))]
    on_clean = classifier.classify([image.data for image in clean])
    on_drifted = classifier.classify([image.data for image in drifted])
    known = [i for i, image in enumerate(drifted) if image.truth != MISSING]
    return Judged(
        weights=classifier.versions.weights,
        clean=worth(clean, on_clean),
        clean_known=worth([clean[i] for i in known], [on_clean[i] for i in known]),
        drifted=worth(drifted, on_drifted),
        drifted_known=worth([drifted[i] for i in known], [on_drifted[i] for i in known]),
    )


def judged_apart(bundle: Path, data: Path) -> Judged:
    """`judge` in a process of its own.

    Raises:
        DataError: It failed; its last words are in the message.
    """
    command = [sys.executable, "-m", "ibinn.loop.judging", str(bundle), str(data)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=clean_environment()
    )
    if done.returncode:
        raise DataError(f"judging {bundle} failed: {done.stderr.strip()[-500:]}")
    values = json.loads(done.stdout.splitlines()[-1])
    return Judged(
        weights=values.pop("weights"), **{name: Worth(**part) for name, part in values.items()}
    )


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(judge(Path(sys.argv[1]), Path(sys.argv[2])))))
