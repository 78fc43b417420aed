"""What it costs to give every image a label, so that all labels together have the right balance.

With posteriors p_1 … p_N and class shares π, the cheapest assignment

    min over y_1 … y_N with #{i: y_i = k} = N π_k (rounded)   of   Σ_i (1 - p_i(y_i)),

an optimal transport between posteriors and labels. Where the model names classes in the right
shares, nearly every image gets the class it was named. Where images make it name some class too
often, images have to take improbable labels: the cost shows errors of which the confidence knows
nothing (Lu et al., *Characterizing Out-of-Distribution Error via Optimal Transport*, NeurIPS 2023).

Shapes: N images, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from ibinn.drift.observation import FloatArray, IntArray


def transport_costs(
    probabilities: npt.NDArray[np.floating[Any]], priors: npt.NDArray[np.floating[Any]]
) -> FloatArray:
    """1 - p_i(y_i) of every image in the cheapest assignment, (N,); takes about N³ steps.

    Args:
        probabilities: Posteriors (N, K), N >= 1.
        priors: Shares of the classes (K,), adding up to 1.

    >>> sure_of_the_first = np.array([[0.9, 0.1], [0.8, 0.2]])
    >>> transport_costs(sure_of_the_first, np.array([0.5, 0.5])).round(2).tolist()
    [0.1, 0.8]
    """
    labels = np.repeat(np.arange(len(priors)), rounded_counts(priors, len(probabilities)))
    costs = 1.0 - np.asarray(probabilities, dtype=np.float64)[:, labels]
    rows, columns = linear_sum_assignment(costs)
    found: FloatArray = costs[rows, columns]
    return found


def rounded_counts(priors: npt.NDArray[np.floating[Any]], count: int) -> IntArray:
    """Numbers of images per class that add up to `count`, by largest remainders (K,).

    >>> rounded_counts(np.array([0.5, 0.3, 0.2]), 4).tolist()
    [2, 1, 1]
    """
    exact = np.asarray(priors, dtype=np.float64) * count
    counts = np.floor(exact + 1e-9).astype(np.int64)
    missing = count - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return counts
