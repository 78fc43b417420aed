"""Which images are the same picture again: exact copies and near-duplicates.

Two images are near-duplicates when their standardised thumbnails t (mean 0, variance 1 over
all values, so that brightness and contrast do not matter) are close at two resolutions:
rms(t8_a - t8_b) <= 0.15 at 8 x 8 x 3 and rms(t16_a - t16_b) <= 0.2 at 16 x 16 x 3. That is a
correlation of at least 0.98. It finds re-encoded, rescaled and re-lit copies, and pictures
taken twice; it does not find mirrored, shifted or recoloured ones.

Shapes: N images, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from training.image_set import THUMBNAIL_SIDE, Pixels

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

COARSE_SIDE = THUMBNAIL_SIDE // 2
COARSE_DISTANCE = 0.15
FINE_DISTANCE = 0.2
MIN_CONTRAST = 4.0
"""Thumbnails with a smaller standard deviation (of 255) are flat: only exact copies count."""

_NEIGHBOURS = 8
_DIRECTIONS = 12
_FITTED = 2_000
_BLOCK = 256
_ROWS = 16_384
"""Thumbnails that are floating-point numbers at one time: a million would take 4 GB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Near-duplicates of a set of images.

    Attributes:
        cluster: int64 (N,); images with the same number are kept together.
        pairs: int64 (P, 2), near-duplicate pairs with first < second, exact copies included.
        distance: float32 (P,), fine distance of each pair, 0 for exact copies.
        loosened: Images that are near-duplicates of others but are not kept with them,
            because the chain they are in was too long (see `find_duplicates`).
    """

    cluster: Indices
    pairs: Indices
    distance: Floats
    loosened: int


def find_duplicates(ids: Sequence[str], thumbnails: Pixels) -> Duplicates:
    """Find exact copies and near-duplicates, and bound the clusters they form.

    Candidates come from a k-d tree over the 12 leading principal directions of the coarse
    thumbnails: a projection never lengthens a distance, so no pair is lost, and each image is
    compared with its 8 nearest only, so time and memory grow as N log N.

    Clusters are chains: a is like b, b is like c. In sets of very simple images (thin digits)
    chains could swallow a class, so a chain of more than max(10, N / 50) images is linked
    again at half the fine distance, then at a quarter, and then only its exact copies stay
    together. No cluster is larger than that bound but for exact copies.

    Args:
        ids: N content ids.
        thumbnails: uint8 (N, 16, 16, 3), see `training.image_set.thumbnail`.
    """
    count = len(ids)
    copies = _copies(ids)
    near, distance = _near_pairs(thumbnails)
    exact = np.zeros(len(copies), np.float32)
    keys, first = np.unique(np.concatenate([copies, near]), axis=0, return_index=True)
    distance = np.concatenate([exact, distance])[first]

    limit = max(10, count // 50)
    linked = distance <= FINE_DISTANCE
    cluster = _components(count, keys[linked])
    loosened = np.zeros(count, bool)
    for bound in (FINE_DISTANCE / 2, FINE_DISTANCE / 4, 0.0):
        sizes = np.bincount(cluster, minlength=1)
        too_long = sizes[cluster] > limit
        if not too_long.any():
            break
        dropped = linked & too_long[keys[:, 0]] & (distance > bound)
        loosened[keys[dropped].ravel()] = True
        linked &= ~dropped
        cluster = _components(count, keys[linked])
    apart = cluster[keys[:, 0]] != cluster[keys[:, 1]]
    loosened &= np.isin(np.arange(count), keys[apart].ravel())
    return Duplicates(cluster=cluster, pairs=keys, distance=distance, loosened=int(loosened.sum()))


def nearest_copies(thumbnails: Pixels, references: Pixels) -> tuple[Indices, Floats]:
    """The nearest near-duplicate of each image among others: positions and fine distances (N,).

    -1 and infinity where there is none. Every reference within reach is compared, however many
    there are: whoever must not meet any of them relies on it. Exact copies of textured images are
    among the near ones; those of flat images are found by their ids alone.

    Args:
        thumbnails: uint8 (N, 16, 16, 3), see `training.image_set.thumbnail`.
        references: uint8 (M, 16, 16, 3).
    """
    nearest = np.full(len(thumbnails), -1, np.int64)
    distances = np.full(len(thumbnails), np.inf, np.float32)
    if not len(thumbnails) or not len(references):
        return nearest, distances
    coarse, contrast, fine = _both(thumbnails)
    coarse_of, contrast_of, fine_of = _both(references)
    textured = np.flatnonzero(contrast >= MIN_CONTRAST)
    known = np.flatnonzero(contrast_of >= MIN_CONTRAST)
    if not len(textured) or not len(known):
        return nearest, distances
    directions = _directions(coarse_of[known])
    tree = KDTree(coarse_of[known] @ directions)
    radius = COARSE_DISTANCE * float(np.sqrt(coarse.shape[1]))
    for start in range(0, len(textured), _BLOCK):
        rows = textured[start : start + _BLOCK]
        within = tree.query_ball_point(coarse[rows] @ directions, radius)
        for row, found in zip(rows, within, strict=True):
            columns = known[np.asarray(found, np.int64)]
            columns = columns[_rms_to(coarse[row], coarse_of[columns]) <= COARSE_DISTANCE]
            if not len(columns):
                continue
            apart = _rms_to(fine[row], fine_of[columns])
            best = int(apart.argmin())
            if apart[best] <= FINE_DISTANCE:
                nearest[row], distances[row] = columns[best], apart[best]
    return nearest, distances


def _both(thumbnails: Pixels) -> tuple[Floats, Floats, Floats]:
    """Standardised coarse thumbnails, their contrast, and standardised fine ones."""
    values = thumbnails.astype(np.float32)
    coarse, contrast = _standardised(_blocks(values))
    fine, _ = _standardised(values.reshape(len(values), -1))
    return coarse, contrast, fine


def _blocks(values: Floats) -> Floats:
    blocks = values.reshape(len(values), COARSE_SIDE, 2, COARSE_SIDE, 2, 3).mean(axis=(2, 4))
    means: Floats = blocks.reshape(len(values), -1)
    return means


def _directions(coarse: Floats) -> Floats:
    """Leading principal directions of coarse thumbnails, in columns."""
    fitted = coarse[:: max(1, len(coarse) // _FITTED)]
    _, directions = np.linalg.eigh(np.cov(fitted.T) if len(fitted) > 1 else np.eye(fitted.size))
    leading: Floats = directions[:, -_DIRECTIONS:].astype(np.float32)
    return leading


def _rms_to(value: Floats, others: Floats) -> Floats:
    apart: Floats = np.sqrt(np.square(others - value).mean(axis=1))
    return apart


def _components(count: int, pairs: Indices) -> Indices:
    graph = coo_matrix((np.ones(len(pairs), np.int8), pairs.T), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _copies(ids: Sequence[str]) -> Indices:
    """Each repeated id's images, paired with the first of them: (P, 2)."""
    first: dict[str, int] = {}
    pairs = [
        (first[key], index)
        for index, key in enumerate(ids)
        if first.setdefault(key, index) != index
    ]
    return np.asarray(pairs, np.int64).reshape(-1, 2)


def _standardised(values: npt.NDArray[np.float32]) -> tuple[Floats, Floats]:
    contrast = values.std(axis=1)
    centred = values - values.mean(axis=1, keepdims=True)
    return centred / np.maximum(contrast, 1e-6)[:, None], contrast


def _near_pairs(thumbnails: Pixels) -> tuple[Indices, Floats]:
    none = np.empty((0, 2), np.int64), np.empty(0, np.float32)
    count = len(thumbnails)
    if count < 2:
        return none
    coarse, contrast = _coarse(thumbnails)
    textured = np.flatnonzero(contrast >= MIN_CONTRAST)
    if len(textured) < 2:
        return none
    if len(textured) < count:
        coarse = coarse[textured]

    projected = coarse @ _directions(coarse)
    radius = COARSE_DISTANCE * float(np.sqrt(coarse.shape[1]))
    _, neighbours = KDTree(projected).query(
        projected, k=min(_NEIGHBOURS + 1, len(coarse)), distance_upper_bound=radius, workers=-1
    )
    # A missing neighbour has the number N; an image finds itself, but not always first.
    rows = np.repeat(np.arange(len(coarse)), neighbours.shape[1])
    columns = neighbours.ravel()
    found = (columns < len(coarse)) & (columns != rows)
    pairs = np.sort(np.stack([rows[found], columns[found]], axis=1), axis=1)
    pairs = np.unique(pairs, axis=0).astype(np.int64)

    pairs = pairs[_rms(coarse, pairs) <= COARSE_DISTANCE]
    if len(pairs) == 0:
        return none
    pairs = textured[pairs]
    distance = _fine_distances(thumbnails, pairs)
    near = distance <= FINE_DISTANCE
    return pairs[near], distance[near]


def _coarse(thumbnails: Pixels) -> tuple[Floats, Floats]:
    """Standardised coarse thumbnails (N, 192) and their contrast (N,), in blocks of rows."""
    coarse = np.empty((len(thumbnails), 3 * COARSE_SIDE**2), np.float32)
    contrast = np.empty(len(thumbnails), np.float32)
    for start in range(0, len(thumbnails), _ROWS):
        rows = slice(start, start + _ROWS)
        coarse[rows], contrast[rows] = _standardised(_blocks(thumbnails[rows].astype(np.float32)))
    return coarse, contrast


def _fine_distances(thumbnails: Pixels, pairs: Indices) -> Floats:
    """rms(t16_a - t16_b) of each pair, (P,), in blocks of pairs."""
    out = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _ROWS):
        block = pairs[start : start + _ROWS]
        first, second = (
            _standardised(thumbnails[side].astype(np.float32).reshape(len(block), -1))[0]
            for side in block.T
        )
        out[start : start + len(block)] = np.sqrt(np.square(first - second).mean(axis=1))
    return out


def _rms(values: Floats, pairs: Indices) -> Floats:
    """Root mean square difference of each pair of rows, in blocks to bound the memory."""
    out = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), 65_536):
        block = pairs[start : start + 65_536]
        difference = values[block[:, 0]] - values[block[:, 1]]
        out[start : start + len(block)] = np.sqrt(np.square(difference).mean(axis=1))
    return out
