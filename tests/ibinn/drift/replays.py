"""Stored scores of the embedded model, as references and observations; see `score_replays`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ibinn.drift import DriftReference, Observations
from ibinn.held_out import leave_one_out
from tests.ibinn.drift.score_replays import CORRUPTIONS, FILE
from training.corruptions import SEVERITIES

ALPHA = 0.01
CELLS = tuple(f"{name}-{severity}" for name in CORRUPTIONS for severity in SEVERITIES)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """Images of one kind.

    Attributes:
        probabilities: (N, K).
        score: (N,).
        labels: (N,).
    """

    probabilities: np.ndarray
    score: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def correct(self) -> np.ndarray:
        return self.probabilities.argmax(axis=1) == self.labels

    def subset(self, index: np.ndarray) -> Scored:
        return Scored(
            probabilities=self.probabilities[index],
            score=self.score[index],
            labels=self.labels[index],
        )

    def observed(self, p: np.ndarray) -> Observations:
        return Observations(
            score=self.score,
            p_value=p,
            class_index=self.probabilities.argmax(axis=1),
            confidence=self.probabilities.max(axis=1),
            accepted=p > ALPHA,
            probabilities=self.probabilities,
        )

    def as_reference(self) -> DriftReference:
        return DriftReference(
            observed=self.observed(leave_one_out(self.score)),
            correct=self.correct,
            labels=self.labels,
            class_count=self.probabilities.shape[1],
            alpha=ALPHA,
        )

    def against(self, reference: DriftReference) -> Observations:
        """As a server with this reference would have answered them."""
        ordered = np.sort(reference.observed.score)
        at_least = len(ordered) - np.searchsorted(ordered, self.score, side="left")
        return self.observed((1 + at_least) / (len(ordered) + 1))


@cache
def scored(name: str) -> Scored:
    """``calibration``, ``clean``, or a cell such as ``gaussian_noise-3``, in one drawn order."""
    with np.load(FILE, allow_pickle=False) as arrays:
        p = np.exp(arrays[f"{name}/log_p"].astype(np.float64))
        stored = Scored(
            probabilities=p / p.sum(axis=1, keepdims=True),
            score=arrays[f"{name}/score"].astype(np.float64),
            labels=arrays[f"{name}/label"].astype(np.int64),
        )
    # The set is sorted by class: a window of it would be of one class.
    return stored.subset(np.random.default_rng(0).permutation(len(stored)))


@cache
def calibration() -> DriftReference:
    """Of the embedded bundle."""
    return scored("calibration").as_reference()


@cache
def pool() -> Scored:
    """Calibration and clean test images together."""
    parts = [scored("calibration"), scored("clean")]
    return Scored(
        probabilities=np.concatenate([part.probabilities for part in parts]),
        score=np.concatenate([part.score for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
    )
