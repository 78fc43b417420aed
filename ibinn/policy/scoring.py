"""Held-out scores of a folder of labelled images: one subfolder per class, named like the class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ibinn.errors import DataError, ImageError, NotCalibratedError, UnknownClassError
from ibinn.held_out import HeldOutScores, drivers_of

if TYPE_CHECKING:
    from ibinn.assessment import Scores
    from ibinn.trusted import TrustedClassifier

BATCH = 64
_NAMED = 5

Progress = Callable[[int, int], None]
"""Called with (images scored, images in all)."""


def held_out_of(scores: Sequence[Scores], labels: Sequence[int]) -> HeldOutScores:
    """What a policy needs of the scores of labelled images.

    Args:
        scores: From `TrustedClassifier.score`, in order.
        labels: Class of every image.

    Raises:
        NotCalibratedError: The scores hold no p-values.
    """
    if any(part.class_p is None for part in scores):
        raise NotCalibratedError(
            "the model is not calibrated; a policy needs its p-values: calibrate first"
        )
    return HeldOutScores(
        logits=np.concatenate([part.logits for part in scores]).astype(np.float32),
        labels=np.asarray(labels, dtype=np.int64),
        combined_p=np.concatenate([part.combined_p for part in scores]),
        drivers=np.concatenate([drivers_of(part.group_p, part.group_excess) for part in scores]),
        class_p=np.concatenate([part.class_p for part in scores if part.class_p is not None]),
    )


def score_folder(
    classifier: TrustedClassifier, folder: Path, *, progress: Progress | None = None
) -> HeldOutScores:
    """Classify every image of a folder of class folders.

    They must not have served training; whether they did cannot be told here.

    Args:
        classifier: A calibrated classifier.
        folder: ``folder/<class>/<image>``; hidden files are left out.
        progress: Called after every batch.

    Raises:
        DataError: No folder, no images, or images that cannot be read; the first five are named.
        UnknownClassError: A subfolder that is no class of the model.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; expected one with a subfolder per class")
    classes = classifier.info.classes
    found: list[tuple[Path, int]] = []
    for entry in sorted(path for path in folder.iterdir() if path.is_dir()):
        if entry.name not in classes:
            raise UnknownClassError(
                f"{entry}: the model has no class {entry.name!r}; it has {', '.join(classes)}; "
                "name the folders like its classes"
            )
        files = sorted(p for p in entry.rglob("*") if p.is_file() and not p.name.startswith("."))
        found += [(path, classes.index(entry.name)) for path in files]
    if not found:
        raise DataError(f"{folder} holds no images; expected {folder}/CLASS/IMAGE")
    parts: list[Scores] = []
    broken: list[str] = []
    for start in range(0, len(found), BATCH):
        prepared = []
        for path, _ in found[start : start + BATCH]:
            try:
                prepared.append(classifier.prepare(path).pixels)
            except ImageError as error:
                broken.append(f"{path} ({error})")
        if not broken:
            parts.append(classifier.score(np.stack(prepared)))
        if progress is not None:
            progress(min(start + BATCH, len(found)), len(found))
    if broken:
        raise DataError(
            f"{len(broken)} of {len(found)} images cannot be read: {'; '.join(broken[:_NAMED])}; "
            "take them out"
        )
    return held_out_of(parts, [label for _, label in found])
