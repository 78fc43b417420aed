"""How far a map of an image says what decided: curves, hits, rank correlations, intervals.

Pure functions of arrays; nothing here knows a model or a method. A map gives every pixel a
relevance, high = speaks for the class. Shapes: N images, C channels, S side, P = S*S pixels,
F + 1 points of a curve.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata

from ibinn.errors import DataError
from ibinn.selective import Estimate, estimate

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Images = npt.NDArray[np.float32]
Probability = Callable[[Images, IntArray], FloatArray]
"""(images (M, C, S, S), classes (M,)) -> q(class|image) (M,)."""

BLUR = 1 / 8
"""Standard deviation of the blur that removes pixels, in sides of the image."""

IMAGES_AT_ONCE = 8
"""Images whose whole curves are put into one call of the model."""


class Perturbation(Enum):
    """Which end a curve starts from."""

    DELETION = "deletion"
    """From the image: the most relevant pixels are removed first; low areas are good."""
    INSERTION = "insertion"
    """From the blurred image: the most relevant pixels are restored first; high is good."""


def blurred(images: Images) -> Images:
    """Images (N, C, S, S) under a Gaussian blur of `BLUR` sides: what removed pixels become.

    Black or grey would be a colour like any other: a generative model scores every pixel, and
    an image with black holes is an unusual image, not one about which less is known. A blur
    keeps colours and light and takes the detail away.
    """
    sigma = BLUR * images.shape[-1]
    result: Images = gaussian_filter(images, sigma=(0, 0, sigma, sigma), mode="reflect")
    return result


def removal_order(maps: FloatArray, *, seed: int = 0) -> IntArray:
    """Pixels by falling relevance, (N, S, S) -> (N, P); ties in a seeded random order.

    Raises:
        DataError: A map is not finite.
    """
    flat = maps.reshape(len(maps), -1)
    if not np.isfinite(flat).all():
        bad = int((~np.isfinite(flat).all(axis=1)).sum())
        raise DataError(f"{bad} of {len(flat)} maps are not finite; no order of pixels follows")
    shuffle = np.random.default_rng(seed).permutation(flat.shape[1])
    order: IntArray = shuffle[np.argsort(-flat[:, shuffle], axis=1, kind="stable")]
    return order


def perturbed(
    images: Images, references: Images, order: IntArray, kind: Perturbation, *, steps: int
) -> Images:
    """Every image with 0, 1/F, ..., 1 of its pixels removed or restored (Petsiuk et al. 2018).

    Args:
        images: (N, C, S, S).
        references: What removed pixels become, (N, C, S, S).
        order: From `removal_order`, (N, P).
        kind: Where to start.
        steps: F.

    Returns:
        (N, F + 1, C, S, S).
    """
    count, _, height, width = images.shape
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(order.shape[1])[None, :], axis=1)
    amounts = np.rint(np.linspace(0, order.shape[1], steps + 1))
    reached = ranks[:, None, :] < amounts[None, :, None]
    mask = reached.reshape(count, steps + 1, 1, height, width)
    kept = ~mask if kind is Perturbation.DELETION else mask
    result: Images = np.where(kept, images[:, None], references[:, None])
    return result


def curves(
    probability: Probability,
    images: Images,
    maps: FloatArray,
    classes: IntArray,
    kind: Perturbation,
    *,
    steps: int,
    seed: int = 0,
) -> FloatArray:
    """q(class|image) while the pixels are removed or restored in the map's order.

    Args:
        probability: The model.
        images: Preprocessed images (N, C, S, S).
        maps: One per image (N, S, S).
        classes: The class explained (N,).
        kind: Deletion or insertion.
        steps: F.
        seed: Of the order of ties.

    Returns:
        (N, F + 1).
    """
    order, references = removal_order(maps, seed=seed), blurred(images)
    rows = []
    for start in range(0, len(images), IMAGES_AT_ONCE):
        part = slice(start, start + IMAGES_AT_ONCE)
        sequence = perturbed(images[part], references[part], order[part], kind, steps=steps)
        repeated = np.repeat(classes[part], steps + 1)
        values = probability(sequence.reshape(-1, *images.shape[1:]), repeated)
        rows.append(values.reshape(-1, steps + 1))
    return np.concatenate(rows)


def areas(values: FloatArray) -> FloatArray:
    """Area under curves (N, F + 1) over [0, 1] by the trapezoid rule, (N,).

    >>> areas(np.array([[0.0, 1.0], [1.0, 1.0]]))
    array([0.5, 1. ])
    """
    inner = values[:, 1:-1].sum(axis=1) + 0.5 * (values[:, 0] + values[:, -1])
    result: FloatArray = inner / (values.shape[1] - 1)
    return result


def mean_estimate(values: npt.NDArray[Any], *, draws: int, seed: int = 0) -> Estimate:
    """Mean of values (N,) with the 95 % percentile interval over resampled images.

    For a paired comparison give the differences per image.
    """
    array = np.asarray(values, dtype=np.float64)
    chosen = np.random.default_rng(seed).integers(0, len(array), (draws, len(array)))
    return estimate(float(array.mean()), array[chosen].mean(axis=1))


def rank_correlations(first: FloatArray, second: FloatArray) -> FloatArray:
    """Spearman's correlation of each pair of maps, (N, S, S) twice -> (N,).

    It is 0 where a map is constant: a constant map agrees with nothing.
    """
    one, two = (
        rankdata(maps.reshape(len(maps), -1), axis=1) - (maps[0].size + 1) / 2
        for maps in (first, second)
    )
    norms = np.sqrt((one**2).sum(axis=1) * (two**2).sum(axis=1))
    result: FloatArray = (one * two).sum(axis=1) / np.where(norms > 0, norms, 1.0)
    return result


def hits(maps: FloatArray, patches: BoolArray) -> BoolArray:
    """Whether every largest value of a map (N, S, S) lies in its patch (N, S, S), (N,).

    A constant map hits nothing.
    """
    flat, inside = maps.reshape(len(maps), -1), patches.reshape(len(patches), -1)
    largest = flat == flat.max(axis=1, keepdims=True)
    result: BoolArray = ~(largest & ~inside).any(axis=1)
    return result


def mass_inside(maps: FloatArray, patches: BoolArray) -> FloatArray:
    """Share of the positive part of a map that lies in its patch, (N,); 0 where there is none."""
    positive = np.maximum(maps, 0.0)
    total = positive.sum(axis=(1, 2))
    inside = (positive * patches).sum(axis=(1, 2))
    result: FloatArray = inside / np.where(total > 0, total, 1.0)
    return result
