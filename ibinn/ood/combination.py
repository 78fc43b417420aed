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
from scipy.special import logsumexp

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
        chosen = list(range(len(self.median)) if columns is None else columns)
        array = np.asarray(values, dtype=np.float64)[:, chosen]
        finite = np.isfinite(array).all(axis=1)
        standard = _standardised(array[finite], self.median[chosen], self.scale[chosen])
        log_densities = np.empty((len(standard), len(self.weights)))
        for index, (mean, covariance) in enumerate(zip(self.means, self.covariances, strict=True)):
            log_densities[:, index] = _log_gaussian(
                standard, mean[chosen], covariance[np.ix_(chosen, chosen)]
            )
        scores = np.full(len(array), np.nan)
        scores[finite] = -logsumexp(log_densities + self.weights, axis=1)
        return scores


def _standardised(values: FloatArray, median: FloatArray, scale: FloatArray) -> FloatArray:
    standard = (values - median) / scale
    beyond = np.maximum(np.abs(standard) / MARGIN, 1.0)
    return np.clip(standard, -MARGIN, MARGIN) * (1.0 + np.log(beyond))


def _log_gaussian(x: FloatArray, mean: FloatArray, covariance: FloatArray) -> FloatArray:
    lower = np.linalg.cholesky(covariance)
    whitened = np.linalg.solve(lower, (x - mean).T)
    log_det = 2.0 * np.log(np.diagonal(lower)).sum()
    result: FloatArray = -0.5 * (
        (whitened**2).sum(axis=0) + log_det + len(mean) * np.log(2 * np.pi)
    )
    return result
