"""What a run leaves: its figures, or why there are none; one ``result.json`` each."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pydantic

from ibinn.reliability import CalibrationErrors
from training.evaluation import _plain

FILE = "result.json"


class State(StrEnum):
    """How far a run got."""

    FINISHED = "finished"
    UNFINISHED = "unfinished"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFigures:
    """One out-of-distribution set.

    Attributes:
        name: Its name.
        count: Number of images.
        typicality_auroc: By typicality of log q(x), the published test; None without a density.
        combined_auroc: By the combined test; None without one.
        entropy_increase_nats: Mean H(y|x) on it minus on the test set (Eq. 5.28); None where no
            posterior on it is finite.
    """

    name: str
    count: int
    typicality_auroc: float | None
    combined_auroc: float | None
    entropy_increase_nats: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigures:
    """Figures of a trained model on test images, posterior at T = 1; fractions, nats and bits.

    Attributes:
        test_count: Number of test images.
        wrong: How many were classified wrong.
        bits_per_dim: Mean, centre dequantisation; None without a density.
        with_centres: Thesis bins, confidence of a bin is its centre, as published.
        with_mean_confidence: The same with mean confidences.
        top_label_ece: 15 equal-width bins.
        top_label_ece_floor: 95th percentile of the same for a calibrated model.
        overconfidence: OCE; None where no prediction is that confident.
        overconfidence_count: Predictions with max p >= 0.997.
        nll_nats: Mean of -log p(label).
        sets: Out-of-distribution sets.
        notes: What could not be measured, and why; sentences.
    """

    test_count: int
    wrong: int
    bits_per_dim: float | None
    with_centres: CalibrationErrors
    with_mean_confidence: CalibrationErrors
    top_label_ece: float
    top_label_ece_floor: float
    overconfidence: float | None
    overconfidence_count: int
    nll_nats: float
    sets: tuple[SetFigures, ...]
    notes: tuple[str, ...] = ()

    @property
    def error(self) -> float:
        """Share of test images classified wrong."""
        return self.wrong / self.test_count


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run and what became of it.

    Attributes:
        data: Name of the data set.
        entry: Name of the model.
        seed: Its seed.
        digest: Of all that the result depends on.
        state: How far it got.
        reason: Why it failed; empty otherwise.
        epochs: Passes over the training images done.
        epochs_planned: As many as the study asks for.
        epochs_full: As many as the recipe has that the study shortens.
        parameters: Trainable parameters; None where no model was built.
        train_seconds: Training time over all attempts.
        measure_seconds: Time of calibration and measurement.
        figures: None unless finished.
    """

    data: str
    entry: str
    seed: int
    digest: str
    state: State
    reason: str = ""
    epochs: float
    epochs_planned: int
    epochs_full: int
    parameters: int | None = None
    train_seconds: float = 0.0
    measure_seconds: float = 0.0
    figures: RunFigures | None = None


_ADAPTER = pydantic.TypeAdapter(RunRecord)


def write(record: RunRecord, folder: Path) -> None:
    """Write ``result.json`` so that a kill leaves the old file or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_plain(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(folder / FILE, text)


def read(folder: Path, *, digest: str) -> RunRecord | None:
    """The record of a run, or None if there is none of this digest that can be read."""
    try:
        found = _ADAPTER.validate_json((folder / FILE).read_bytes())
    except (OSError, pydantic.ValidationError):
        return None
    return found if found.digest == digest else None


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
