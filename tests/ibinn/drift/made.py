"""References and observations made up from seeds, where the model's own are not needed."""

from __future__ import annotations

import numpy as np

from ibinn.drift import DriftReference, Observation, Observations
from ibinn.held_out import HeldOutScores, leave_one_out

CLASSES = 4
ALPHA = 0.05


def held_out(n: int = 300, seed: int = 0) -> tuple[HeldOutScores, np.ndarray]:
    """Held-out scores whose labels are drawn from their posteriors, and sorted combined scores."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2.5, size=(n, CLASSES)).astype(np.float32)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=CLASSES - 1)
    score = rng.gamma(8, size=n)
    made = HeldOutScores(
        logits=logits,
        labels=labels.astype(np.int64),
        combined_p=leave_one_out(score),
        drivers=np.zeros(n, dtype=np.int8),
    )
    return made, np.sort(score)


def reference(n: int = 300, seed: int = 0) -> DriftReference:
    made, combined = held_out(n, seed)
    return DriftReference.of(made, temperature=1.0, alpha=ALPHA, combined=combined)


def observations(n: int, seed: int = 1, *, harder: float = 0.0) -> Observations:
    """Images like those of `reference`; `harder` adds to their scores."""
    rng = np.random.default_rng([seed, 99])
    logits = rng.normal(scale=2.5, size=(n, CLASSES))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    score = rng.gamma(8, size=n) + harder
    return Observations(
        score=score,
        p_value=np.full(n, 0.5),
        class_index=p.argmax(axis=1),
        confidence=p.max(axis=1),
        accepted=score < 13,
        probabilities=p,
    )


def one(seen: Observations, i: int) -> Observation:
    return Observation(
        score=float(seen.score[i]),
        p_value=float(seen.p_value[i]),
        class_index=int(seen.class_index[i]),
        confidence=float(seen.confidence[i]),
        accepted=bool(seen.accepted[i]),
        probabilities=None if seen.probabilities is None else seen.probabilities[i],
    )
