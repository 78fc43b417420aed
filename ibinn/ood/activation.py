"""Energies of the network's feature maps, and how far an image's lie from the usual ones.

Invertible networks hide the traces of unusual input from the latent density, which is trained to
look the same for everything; the strength of the activations on the way still shows them.

Shapes: N images, E observed channels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

FOLDS = 10
"""Parts for distances that no image's own energies helped to fit."""


def fit_whitening(activations: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Centre c and matrix W with ‖(a - c) W‖² the squared Mahalanobis distance of a.

    The covariance of the standardised energies is shrunk towards a multiple of the identity
    (Ledoit and Wolf 2004), since E may be as large as N.

    Args:
        activations: `Evidence.activations` of calibration part A (N, E), N at least 2.

    Returns:
        (c (E,), W (E, E)), rounded to float32.
    """
    from sklearn.covariance import LedoitWolf

    if activations.shape[1] == 0:
        return np.zeros(0), np.zeros((0, 0))
    centre = np.median(activations, axis=0)
    low, high = np.percentile(activations, (25, 75), axis=0)
    scale = np.where(high > low, (high - low) / 1.349, 1.0)
    fit = LedoitWolf().fit((activations - centre) / scale)
    # Covariance S = L Lᵀ: whitening by L⁻ᵀ.
    inverse = np.linalg.inv(np.linalg.cholesky(fit.covariance_))
    whitening = inverse.T / scale[:, None]
    return _rounded(centre + scale * fit.location_), _rounded(whitening)


def squared_distances(
    activations: FloatArray, centre: FloatArray, whitening: FloatArray
) -> FloatArray:
    """‖(a - c) W‖² of each image (N,)."""
    result: FloatArray = np.square((activations - centre) @ whitening).sum(axis=1)
    return result


def out_of_fold_distances(activations: FloatArray, *, seed: int = 0) -> FloatArray:
    """Squared distances of the images of part A, each by a fit without its own tenth (N,).

    Distances by a fit to the very same images would be too small, and with them everything that
    is fitted to part A's statistics.
    """
    count = len(activations)
    order = np.random.default_rng(seed).permutation(count)
    distances = np.empty(count)
    for fold in np.array_split(order, min(FOLDS, count)):
        rest = np.setdiff1d(order, fold)
        distances[fold] = squared_distances(activations[fold], *fit_whitening(activations[rest]))
    return distances


def _rounded(values: FloatArray) -> FloatArray:
    return values.astype(np.float32).astype(np.float64)
