"""Answers of bundles to the held images, each under its own preprocessing and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ibinn import bundle, manifest
from ibinn.errors import NotCalibratedError
from ibinn.manifest import Manifest
from ibinn.types import Verdict
from training.ood_sets import LazyImages
from training.promotion.images import HeldImages
from training.promotion.judging import Answers
from training.scoring import Progress, Scored, Scorer

_FLAGGED = (Verdict.UNKNOWN.value, Verdict.NOT_ASSESSED.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A bundle by what identifies it.

    Attributes:
        path: Its folder.
        name: Its name.
        classes: That it knows.
        manifest_sha256: Of the bytes of its manifest, which states every other file's sha256.
        weights: Digest.
        calibration: Digest.
        alpha: Significance of its verdict.
    """

    path: Path
    name: str
    classes: tuple[str, ...]
    manifest_sha256: str
    weights: str
    calibration: str
    alpha: float


def identify(folder: Path) -> Model:
    """Check a bundle's files and name it.

    Raises:
        BundleError: It is not intact.
        NotCalibratedError: It has no calibration, and so no verdicts.
    """
    found: Manifest = bundle.verify(folder)
    if not found.calibration_digest:
        raise NotCalibratedError(
            f"{folder} is not calibrated, so that it flags nothing; run `ibinn-train calibrate` "
            "first"
        )
    return Model(
        path=folder,
        name=found.name,
        classes=found.classes,
        manifest_sha256=manifest.file_sha256(folder / manifest.FILE),
        weights=found.weights_digest,
        calibration=found.calibration_digest,
        alpha=found.alpha,
    )


def measure(
    model: Model,
    acceptance: HeldImages,
    ood: HeldImages,
    *,
    device: str = "cpu",
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Answers:
    """Ask a bundle about every image."""
    classifier = bundle.load(model.path, device=device)
    reference = classifier.reference
    if reference is None:
        raise NotCalibratedError(f"{model.path} is not calibrated; calibrate it first")
    scorer = Scorer(model=classifier, reference=reference, batch_size=batch_size, progress=progress)

    def scored(held: HeldImages, name: str) -> Scored:
        images = LazyImages(count=len(held.images), make=held.images.load)
        return scorer.images(images, name, finish=True)

    inside, outside = scored(acceptance, f"{model.name}: acceptance"), scored(ood, "unknown images")
    kinds = ood.names
    flagged = _flagged(outside)
    return answers_of(
        inside,
        acceptance.names.tolist(),
        classes=model.classes,
        missed={name: np.logical_not(flagged[kinds == name]) for name in ood.images.class_names},
    )


def answers_of(
    scores: Scored,
    truths: Sequence[str],
    *,
    classes: tuple[str, ...],
    missed: dict[str, npt.NDArray[np.bool_]],
) -> Answers:
    """What counts of the scores of the acceptance images.

    An answer that is not finite is wrong with certainty, so that failing to answer never looks
    better.
    """
    finite = np.atleast_1d(np.isfinite(scores.probabilities).all(axis=1))
    probabilities = np.where(np.expand_dims(finite, 1), scores.probabilities, 0.0)
    named = np.array(classes)[probabilities.argmax(axis=1)]
    return Answers(
        classes=classes,
        right=(named == np.asarray(truths)) & finite,
        confidence=np.where(finite, probabilities.max(axis=1), 1.0),
        flagged=_flagged(scores),
        missed=missed,
    )


def _flagged(scores: Scored) -> npt.NDArray[np.bool_]:
    flagged: npt.NDArray[np.bool_] = np.isin(scores.verdicts, _FLAGGED)
    return flagged
