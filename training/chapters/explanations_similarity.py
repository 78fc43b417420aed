"""How alike classes are by Φ(-Δ/2), and how well that tells what is mistaken for what.

Shapes: N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from ibinn.explain.similarity import (
    ClassPair,
    closest_pairs,
    display_order,
    mean_distances,
    overlaps,
)
from ibinn.latent import Subspaces
from ibinn.selective import Estimate, estimate

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

PAIRS = 6
SAMPLED = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    """Class similarity in closed form, and how it compares with what is mistaken.

    Attributes:
        order: Class names, like beside like.
        overlaps: Φ(-Δ/2) in that order (K, K); 0.5 on the diagonal.
        confusions: Mean of the two shares of test images of one class taken for the other, in
            that order (K, K); 0 on the diagonal.
        pairs: The most similar pairs.
        rank_correlation: Spearman's, of overlaps and confusions over all pairs; the interval is
            over the draw of the test images, with the classes as they are.
        predicted_error: Mean of Φ(-Δ/2) over all pairs.
        observed_error: Share of test images of a pair that lie nearer to the other one's mean, its
            mean over all pairs.
        separation: Distance of the averages of two classes' test images along the line between
            their means, divided by Δ, its mean over all pairs; 1 in the model.
        spread: Standard deviation of test images around their class's average, along the lines to
            the other means; 1 in the model.
        sampled_deviation: Largest deviation of sampled E[1 - max p] from Φ(-Δ/2) over all pairs,
            in standard errors.
    """

    order: tuple[str, ...]
    overlaps: FloatArray
    confusions: FloatArray
    pairs: tuple[ClassPair, ...]
    rank_correlation: Estimate
    predicted_error: float
    observed_error: float
    separation: float
    spread: float
    sampled_deviation: float


def similarity(
    logits: FloatArray,
    products: FloatArray,
    labels: IntArray,
    *,
    subspaces: Subspaces,
    class_names: tuple[str, ...],
    draws: int,
    seed: int,
) -> Similarity:
    """Class similarity, and what test images make of it.

    Args:
        logits: (N, K).
        products: a (N, K).
        labels: (N,).
        subspaces: Of the mixture.
        class_names: K names.
        draws: Bootstrap draws, of images within each class.
        seed: Of the draws.
    """
    classes = len(class_names)
    distances = mean_distances(subspaces)
    shared = overlaps(distances)
    rows, columns = np.triu_indices(classes, k=1)
    counts = np.zeros((classes, classes))
    np.add.at(counts, (labels, logits.argmax(axis=1)), 1.0)
    generator = np.random.default_rng(seed)
    totals = counts.sum(axis=1).astype(int)
    shares = counts / np.maximum(totals[:, None], 1)
    drawn = np.empty(draws)
    for draw in range(draws):
        again = np.stack([generator.multinomial(n, p) for n, p in zip(totals, shares, strict=True)])
        drawn[draw] = _correlation(shared, again / np.maximum(totals[:, None], 1))
    observed, spreads, separations = [], [], []
    gram = subspaces.gram.cpu().numpy()
    for i, j in zip(rows, columns, strict=True):
        middle = (gram[j, j] - gram[i, i]) / 2
        along = (products[:, j] - products[:, i] - middle) / max(distances[i, j], 1e-12)
        first, second = along[labels == i], along[labels == j]
        if len(first) and len(second):
            observed.append(((first > 0).mean() + (second < 0).mean()) / 2)
            spreads += [first.var(), second.var()]
            separations.append((second.mean() - first.mean()) / max(distances[i, j], 1e-12))
    order = list(display_order(distances))
    symmetric = (shares + shares.T) / 2
    np.fill_diagonal(symmetric, 0.0)
    return Similarity(
        order=tuple(class_names[k] for k in order),
        overlaps=np.round(shared[np.ix_(order, order)], 6),
        confusions=np.round(symmetric[np.ix_(order, order)], 6),
        pairs=closest_pairs(distances, class_names, PAIRS),
        rank_correlation=estimate(_correlation(shared, shares), drawn),
        predicted_error=float(shared[rows, columns].mean()),
        observed_error=float(np.mean(observed)),
        separation=float(np.mean(separations)),
        spread=float(np.sqrt(np.mean(spreads))),
        sampled_deviation=_sampled_deviation(distances, seed),
    )


def _correlation(shared: FloatArray, shares: FloatArray) -> float:
    """Spearman's correlation of overlaps and symmetrised confusions; 0 where one is constant."""
    rows, columns = np.triu_indices(len(shared), k=1)
    confusions = (shares + shares.T)[rows, columns]
    similar = shared[rows, columns]
    if len(rows) < 2 or np.ptp(confusions) == 0 or np.ptp(similar) == 0:
        return 0.0
    return float(spearmanr(similar, confusions).statistic)


def _sampled_deviation(distances: FloatArray, seed: int) -> float:
    """Largest |sampled E[1 - max p] - Φ(-Δ/2)| over all pairs, in standard errors."""
    noise = np.random.default_rng(seed).standard_normal(SAMPLED)
    worst = 0.0
    for distance in distances[np.triu_indices(len(distances), k=1)]:
        smaller = 1.0 / (1.0 + np.exp(np.minimum(np.abs(distance * (noise - distance / 2)), 700.0)))
        error = max(float(smaller.std()), 1e-300) / np.sqrt(SAMPLED)
        worst = max(worst, abs(float(smaller.mean()) - float(overlaps(distance))) / error)
    return worst
