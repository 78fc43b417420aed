"""The combined test: a density of states over the standardised statistics (Morningstar 2021).

A Gaussian mixture is fitted to the statistics of calibration part A; minus its log-density is
the score, ranked on part B. The verdict uses this one test, so that its false-positive rate is
the verdict's.

Shapes: N images, T statistics, M mixture components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ibinn.errors import DataError

FloatArray = npt.NDArray[np.float64]

COMPONENTS = (1, 2, 3, 4, 6)
"""Numbers of components that are tried; the Bayesian information criterion chooses."""

RIDGE = 1e-3
"""Added to every variance of a standardised statistic: nearly collinear ones stay well-posed."""

MARGIN = 6.0
"""Standardised values beyond this are compressed logarithmically, which keeps them ordered."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DensityOfStates:
    """A Gaussian mixture over standardised statistics.

    Attributes:
        median: Of each statistic on part A (T,).
        scale: Its interquartile range over 1.349, or its standard deviation if that is 0 (T,).
        weights: log of the component weights (M,).
        means: Component means (M, T).
        covariances: Component covariances (M, T, T).
    """

    median: FloatArray
    scale: FloatArray
    weights: FloatArray
    means: FloatArray
    covariances: FloatArray

    @classmethod
    def fit(cls, values: npt.NDArray[np.floating[Any]], *, seed: int = 0) -> DensityOfStates:
        """Fit to the statistics (N, T) of calibration part A.

        Raises:
            DataError: A value is not finite, or there are fewer images than statistics.
        """
        from sklearn.mixture import GaussianMixture

        array = np.asarray(values, dtype=np.float64)
        if array.ndim != 2 or not np.isfinite(array).all():
            raise DataError(
                f"statistics have shape {array.shape} with "
                f"{int((~np.isfinite(array)).sum())} values that are not finite; expected finite "
                "(N, T)"
            )
        count, statistics = array.shape
        if count <= statistics:
            raise DataError(
                f"{count} images in calibration part A; the combined test of {statistics} "
                f"statistics needs at least {statistics + 1}; raise split.calibration_a or add "
                "images"
            )
        quartiles = np.percentile(array, (25, 50, 75), axis=0)
        scale = (quartiles[2] - quartiles[0]) / 1.349
        scale = np.where(scale > 0, scale, array.std(axis=0))
        scale = np.where(scale > 0, scale, 1.0)
        standard = _standardised(array, quartiles[1], scale)
        parameters = statistics + statistics * (statistics + 1) // 2
        fits = [
            GaussianMixture(
                components, reg_covar=RIDGE, random_state=seed, n_init=1, max_iter=300
            ).fit(standard)
            for components in COMPONENTS
            # Each component should rest on several images per parameter of its mean.
            if components == 1 or count >= 2 * components * parameters / 3
        ]
        best = min(fits, key=lambda fit: fit.bic(standard))
        return cls(
            median=quartiles[1],
            scale=scale,
            weights=np.log(best.weights_),
            means=best.means_,
            covariances=best.covariances_,
        )

    def score(
        self, values: npt.NDArray[np.floating[Any]], *, columns: Sequence[int] | None = None
    ) -> FloatArray:
        """Minus the log-density of statistics (N, T), shape (N,); high is unusual.

        Args:
            values: Statistics; a row with a value that is not finite scores NaN.
            columns: Score the marginal density of these statistics only.
        """
        chosen = tuple(range(len(self.median)) if columns is None else columns)
        array = np.asarray(values, dtype=np.float64)
        finite = np.isfinite(array[:, chosen]).all(axis=1)
        scores = np.full(len(array), np.nan)
        scores[finite] = Marginals.of(self, (chosen,)).scores(array[finite])[:, 0]
        return scores


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Marginals:
    """Several marginal densities of one density of states, ready to score many times.

    With Σ = L Lᵀ of a component's chosen statistics, log N(x; m, Σ) = -½‖L⁻¹(x - m)‖² - log|L|
    - (T/2) log 2π. All L⁻¹ stand side by side in one matrix, zero for statistics that are not
    chosen, so that all densities take one product.

    Attributes:
        median: Of `DensityOfStates` (T,).
        scale: Of `DensityOfStates` (T,).
        whitening: Every L⁻ᵀ (T, W), W the sum over marginals and components.
        offsets: Every L⁻¹m (W,).
        starts: First column of each marginal and component (V * M,).
        constants: log weight - log|L| - (T/2) log 2π of each (V, M).
    """

    median: FloatArray
    scale: FloatArray
    whitening: FloatArray
    offsets: FloatArray
    starts: npt.NDArray[np.int64]
    constants: FloatArray

    @classmethod
    def of(cls, states: DensityOfStates, chosen: Sequence[Sequence[int]]) -> Marginals:
        """Of the statistics in these columns, at least one for each marginal."""
        blocks, offsets, constants = [], [], []
        for columns in (list(columns) for columns in chosen):
            for weight, mean, covariance in zip(
                states.weights, states.means, states.covariances, strict=True
            ):
                lower = np.linalg.cholesky(covariance[np.ix_(columns, columns)])
                inverse = np.linalg.solve(lower, np.eye(len(columns)))
                block = np.zeros((len(states.median), len(columns)))
                block[columns] = inverse.T
                blocks.append(block)
                offsets.append(inverse @ mean[columns])
                log_det = np.log(np.diagonal(lower)).sum()
                constants.append(weight - log_det - 0.5 * len(columns) * np.log(2 * np.pi))
        lengths = np.array([len(offset) for offset in offsets], dtype=np.int64)
        return cls(
            median=states.median,
            scale=states.scale,
            whitening=np.concatenate(blocks, axis=1),
            offsets=np.concatenate(offsets),
            starts=np.cumsum(lengths) - lengths,
            constants=np.array(constants).reshape(len(chosen), -1),
        )

    def scores(self, values: FloatArray) -> FloatArray:
        """Minus the log-densities of statistics (N, T), shape (N, V).

        A value that is not finite and not chosen counts as the median.
        """
        finite = np.isfinite(values)
        known = values if finite.all() else np.where(finite, values, self.median)
        standard = _standardised(known, self.median, self.scale)
        whitened = standard @ self.whitening - self.offsets
        whitened *= whitened
        squares = np.add.reduceat(whitened, self.starts, axis=1)
        logs = self.constants - 0.5 * squares.reshape(-1, *self.constants.shape)
        largest = logs.max(axis=2)
        found: FloatArray = -largest - np.log(np.exp(logs - largest[:, :, None]).sum(axis=2))
        return found


def _standardised(values: FloatArray, median: FloatArray, scale: FloatArray) -> FloatArray:
    standard = (values - median) / scale
    beyond = np.abs(standard) / MARGIN
    if not (beyond > 1.0).any():
        return standard
    compressed: FloatArray = np.minimum(np.maximum(standard, -MARGIN), MARGIN)
    compressed *= 1.0 + np.log(np.maximum(beyond, 1.0))
    return compressed
