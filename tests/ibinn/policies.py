"""Policies and answers drawn at random, for tests that need no model."""

from __future__ import annotations

from typing import Any

import numpy as np

from ibinn.held_out import HeldOutScores
from ibinn.policy import Answers, Costs, Policy
from ibinn.policy.fitting import ModelFacts, model_answers

CLASSES = ("cat", "dog", "frog", "ship", "truck")
K = len(CLASSES)


def make_policy(**changes: Any) -> Policy:
    """0-1 costs, deferring 0.5, another picture 0.1, not fitted."""
    entries: dict[str, Any] = {
        "name": "test",
        "classes": CLASSES,
        "origin": None,
        "alpha": 0.01,
        "class_alphas": (),
        "coverage": 0.95,
        "costs": Costs.zero_one(K, defer=0.5, reject=0.1),
        "priors": None,
        "certificate": None,
    }
    return Policy(**(entries | changes))


def make_facts(**changes: Any) -> ModelFacts:
    """A model at T = 1 whose sets are those classes with at least 0.2."""
    entries: dict[str, Any] = {
        "classes": CLASSES,
        "weights": "aa" * 32,
        "calibration": "bb" * 32,
        "temperature": 1.0,
        "alpha": 0.01,
        "coverage": 0.95,
        "quantile": 0.8,
        "priors": (1 / K,) * K,
        "calibration_count": 2000,
        "class_counts": (400,) * K,
    }
    return ModelFacts(**(entries | changes))


def draw_scores(
    count: int, *, seed: int = 0, sharpness: float = 1.0, classes: int = K
) -> HeldOutScores:
    """Images of a model whose posterior is calibrated at sharpness 1, too sure above."""
    rng = np.random.default_rng(seed)
    truth = rng.dirichlet(np.full(classes, 0.15), count) + 1e-9
    truth /= truth.sum(axis=1, keepdims=True)
    labels = (truth.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1).clip(0, classes - 1)
    return HeldOutScores(
        logits=(sharpness * np.log(truth)).astype(np.float32),
        labels=labels.astype(np.int64),
        combined_p=(1 + rng.integers(0, 1000, count)) / 1000,
        drivers=rng.integers(0, 3, count).astype(np.int8),
        class_p=(1 + rng.integers(0, 400, (count, classes))) / 401,
    )


def draw_answers(count: int, *, seed: int = 0) -> Answers:
    """The answers for `draw_scores`."""
    return model_answers(draw_scores(count, seed=seed), make_facts())
