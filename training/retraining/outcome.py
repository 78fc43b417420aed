"""What a retraining changed, on images that neither model was trained or calibrated on.

The test images of the new split, those of the old data apart from those of the feedback. An image
of a class that a model does not know is answered wrongly by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ibinn.reliability import TOP_LABEL_BINS, confidence_bin
from ibinn.trusted import TrustedClassifier
from ibinn.types import Verdict
from training.image_set import ImageSet
from training.loader import eval_batches

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One model on one set.

    Attributes:
        images: Number of images.
        accuracy: Share of right answers.
        top_label_ece: Of the calibrated confidence, 15 equal-width bins.
        flagged: Share with a verdict other than NOT_FLAGGED.
        recall: Share of right answers per class.
    """

    images: int
    accuracy: float
    top_label_ece: float
    flagged: float
    recall: Mapping[str, float]


def figures(classifier: TrustedClassifier, images: ImageSet) -> Figures | None:
    """A model's figures on labelled images; None where there is none."""
    if not len(images):
        return None
    confidence: list[FloatArray] = []
    right: list[npt.NDArray[np.bool_]] = []
    flagged = 0
    names = np.array(classifier.info.classes)
    truth = np.array([images.class_names[label] for label in images.labels])
    done = 0
    for batch in eval_batches(images, classifier.preprocessing, batch_size=100):
        scores = classifier.score(batch.images.numpy())
        probabilities = np.asarray(scores.probabilities, np.float64)
        expected = truth[done : done + len(probabilities)]
        done += len(probabilities)
        confidence.append(probabilities.max(axis=1))
        right.append(names[probabilities.argmax(axis=1)] == expected)
        flagged += sum(verdict is not Verdict.NOT_FLAGGED for verdict in scores.verdicts)
    correct = np.concatenate(right)
    return Figures(
        images=len(images),
        accuracy=float(correct.mean()),
        top_label_ece=top_label_ece(np.concatenate(confidence), correct),
        flagged=flagged / len(images),
        recall={
            str(name): float(correct[truth == name].mean()) for name in sorted(set(truth.tolist()))
        },
    )


def top_label_ece(confidence: FloatArray, correct: npt.NDArray[np.bool_]) -> float:
    """Σ_b |right answers - Σ confidence| / N over 15 equal-width bins.

    >>> top_label_ece(np.array([0.9, 0.9]), np.array([True, False]))
    0.4
    """
    bins = confidence_bin(confidence)
    right = np.bincount(bins, weights=correct, minlength=TOP_LABEL_BINS)
    stated = np.bincount(bins, weights=confidence, minlength=TOP_LABEL_BINS)
    return float(np.abs(right - stated).sum() / len(confidence))
