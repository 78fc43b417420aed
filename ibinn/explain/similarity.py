"""How alike the model takes its classes to be (figures 5.22 and 5.23; section C.5).

Two unit Gaussians whose means are Δ apart overlap by Φ(-Δ/2): the expected 1 - max p of a code
of either, both being equally likely, and the share of errors of the best classifier between them.
The thesis estimates it by sampling; it has this closed form.

Shapes: K classes. All of it follows from the Gram matrix of the means, in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from scipy.special import ndtr

from ibinn.errors import UnknownClassError
from ibinn.latent import Subspaces
from ibinn.types import NearbyClass

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassPair:
    """Two classes and how alike they are.

    Attributes:
        first: Class that comes first in the model's list.
        second: The other one.
        distance: Δ between their means.
        overlap: Φ(-Δ/2), in (0, 0.5].
    """

    first: str
    second: str
    distance: float
    overlap: float


def mean_distances(subspaces: Subspaces) -> FloatArray:
    """Δ_ij = ‖μ_i - μ_j‖, (K, K), from Δ² = G_ii + G_jj - 2 G_ij."""
    gram: FloatArray = subspaces.gram.cpu().numpy()
    norms = gram.diagonal()
    squared = norms[:, None] + norms[None, :] - 2.0 * gram
    distances: FloatArray = np.sqrt(np.maximum(squared, 0.0))
    np.fill_diagonal(distances, 0.0)
    return distances


def overlaps(distances: FloatArray) -> FloatArray:
    """E[1 - max p] = Φ(-Δ/2) between two equally likely classes (C.5, in closed form).

    A code of the first lies at N(-Δ/2, 1) along the line between them and its log-odds are
    -Δ t, so that E[1 - max p] is the mass of the smaller of both densities, Φ(-Δ/2).

    Args:
        distances: Δ, any shape.

    Returns:
        Values in (0, 0.5], same shape; 0.5 for Δ = 0.
    """
    result: FloatArray = ndtr(-np.asarray(distances, dtype=np.float64) / 2.0)
    return result


def display_order(distances: FloatArray) -> tuple[int, ...]:
    """Classes in an order that puts like beside like: leaves of an average-linkage tree.

    Args:
        distances: Symmetric, zero on the diagonal (K, K).
    """
    if len(distances) < 3:
        return tuple(range(len(distances)))
    tree = linkage(squareform(distances, checks=False), method="average", optimal_ordering=True)
    return tuple(int(leaf) for leaf in leaves_list(tree))


def closest_pairs(
    distances: FloatArray, class_names: Sequence[str], count: int
) -> tuple[ClassPair, ...]:
    """The pairs of classes that overlap most, most alike first.

    Args:
        distances: (K, K).
        class_names: K names.
        count: Number of pairs, at most.
    """
    rows, columns = np.triu_indices(len(class_names), k=1)
    shared = overlaps(distances)
    nearest = np.argsort(distances[rows, columns], kind="stable")[:count]
    return tuple(
        ClassPair(
            first=class_names[i],
            second=class_names[j],
            distance=float(distances[i, j]),
            overlap=float(shared[i, j]),
        )
        for i, j in zip(rows[nearest], columns[nearest], strict=True)
    )


def nearby_classes(
    distances: FloatArray, class_names: Sequence[str], class_name: str, *, count: int = 3
) -> tuple[NearbyClass, ...]:
    """The classes nearest to one, nearest first.

    Args:
        distances: From `mean_distances` (K, K).
        class_names: K names.
        class_name: The class whose neighbours are wanted.
        count: Number of neighbours, at most.

    Raises:
        UnknownClassError: The model has no such class.
    """
    if class_name not in class_names:
        raise UnknownClassError(
            f"class is {class_name!r}; this model has: {', '.join(class_names)}; choose among them"
        )
    own = list(class_names).index(class_name)
    shared = overlaps(distances[own])
    others = [int(k) for k in np.argsort(distances[own], kind="stable") if k != own]
    return tuple(
        NearbyClass(
            class_name=class_names[k],
            distance=float(distances[own, k]),
            overlap=float(shared[k]),
        )
        for k in others[:count]
    )
