"""Two-dimensional views of the latent space: the spread of the means, and a map of decisions.

Shapes: N codes, K classes, J <= K chosen ones. A direction in the span of the means is a row of
coefficients c (K,): v = Mᵀ c. Codes enter by their products a = M z and directions by the Gram
matrix G = M Mᵀ alone, in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize

from ibinn.errors import ConfigError, DataError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatentLayout:
    """The plane in which the means lie farthest apart (figure 5.8).

    Attributes:
        coefficients: Two orthonormal directions, rows (2, K).
        centre: Place of the centre of the means before it is moved to (0, 0), (2,).
        means: Places of the K means, (K, 2).
        shares: Share of the means' spread (summed squared distance from their centre) that each
            direction shows, (2,).
    """

    coefficients: FloatArray
    centre: FloatArray
    means: FloatArray
    shares: FloatArray

    def places(self, mean_products: FloatArray) -> FloatArray:
        """Places of codes with products a (N, K), (N, 2); a class's codes spread by 1 each way."""
        return np.asarray(mean_products @ self.coefficients.T - self.centre)


def latent_layout(gram: FloatArray) -> LatentLayout:
    """Principal directions of the means, from G centred on both sides.

    Args:
        gram: G (K, K), K at least 3.

    Raises:
        DataError: Fewer than three classes: their means lie on a line.
    """
    classes = len(gram)
    if classes < 3:
        raise DataError(f"the model has {classes} classes; a plane of means needs at least 3")
    centring = np.eye(classes) - 1.0 / classes
    sizes, vectors = np.linalg.eigh(centring @ gram @ centring)
    sizes, vectors = sizes[::-1], vectors[:, ::-1]
    lengths = np.sqrt(np.maximum(sizes[:2], 1e-300))
    coefficients = (centring @ vectors[:, :2] / lengths).T
    # The sign of an eigenvector is arbitrary: the first class is put to the upper right.
    centre = coefficients @ gram.mean(axis=1)
    signs = np.where(coefficients @ gram[:, 0] - centre < 0, -1.0, 1.0)
    coefficients, centre = signs[:, None] * coefficients, signs * centre
    return LatentLayout(
        coefficients=coefficients,
        centre=centre,
        means=gram @ coefficients.T - centre,
        shares=sizes[:2] / max(float(np.maximum(sizes, 0.0).sum()), 1e-300),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecisionMap:
    """A mixture whose means have rank 2, so that its decisions can be drawn (figure 5.21).

    The network stays as it is; the posterior of a code is that of a generative classifier with
    means μ_y = t_y V, where the rows of V are orthonormal: log_softmax(w_y + s·t_y - ½‖t_y‖²)
    with s = V z.

    Attributes:
        classes: The chosen classes (J,), positions in the model's list.
        coefficients: V as coefficients of the model's means (2, K).
        means: t (J, 2).
        log_weights: w of the chosen classes (J,), normalised over them.
    """

    classes: IntArray
    coefficients: FloatArray
    means: FloatArray
    log_weights: FloatArray

    def places(self, mean_products: FloatArray) -> FloatArray:
        """s = V z of codes with products a (N, K), (N, 2)."""
        return np.asarray(mean_products @ self.coefficients.T)

    def logits(self, places: FloatArray) -> FloatArray:
        """w_y + s·t_y - ½‖t_y‖² at places (N, 2), (N, J)."""
        return np.asarray(
            self.log_weights + places @ self.means.T - 0.5 * (self.means**2).sum(axis=1)
        )

    def decisions(self, places: FloatArray) -> IntArray:
        """The most probable chosen class at places (N, 2), as positions in the model's list."""
        return np.asarray(self.classes[self.logits(places).argmax(axis=1)])


def fit_decision_map(
    mean_products: FloatArray,
    labels: IntArray,
    *,
    gram: FloatArray,
    log_weights: FloatArray,
    classes: Sequence[int],
    steps: int = 500,
) -> DecisionMap:
    """Refit the means of chosen classes as a product of rank 2, the network fixed.

    Minimises the cross-entropy of q(y|x) over coefficients C (2, K) and weights T (J, 2) of the
    means μ_y = t_y C M, with s = C a and ‖μ_y‖² = t_y (C G Cᵀ) t_yᵀ, starting at the plane in
    which the chosen means lie farthest apart.

    Args:
        mean_products: a of images that did not serve the training (N, K).
        labels: Their classes (N,); images of other classes are left out.
        gram: G (K, K).
        log_weights: w (K,).
        classes: At least two positions in the model's list.
        steps: Most iterations.

    Raises:
        ConfigError: Fewer than two classes, or a repeated one.
        DataError: A chosen class has no image.
    """
    chosen = np.asarray(classes, dtype=np.int64)
    if len(chosen) < 2 or len(set(chosen.tolist())) < len(chosen):
        raise ConfigError(f"classes are {list(classes)}; expected two or more different ones")
    counts = [int((labels == label).sum()) for label in chosen]
    if not min(counts):
        raise DataError(f"the chosen classes have {counts} images; expected some of each")
    place = {int(label): row for row, label in enumerate(chosen)}
    kept = np.isin(labels, chosen)
    products = torch.from_numpy(mean_products[kept])
    targets = torch.tensor([place[int(label)] for label in labels[kept]])
    inner = torch.from_numpy(np.asarray(gram))
    weights = torch.log_softmax(torch.from_numpy(np.asarray(log_weights)[chosen]), dim=0)
    start_directions, start_means = _start(np.asarray(gram), chosen)
    shapes = (start_directions.shape, start_means.shape)
    split = start_directions.size

    def loss(flat: FloatArray) -> tuple[float, FloatArray]:
        values = torch.from_numpy(flat.copy()).requires_grad_()
        directions, means = values[:split].view(shapes[0]), values[split:].view(shapes[1])
        norms = torch.einsum("ji,ik,jk->j", means, directions @ inner @ directions.T, means)
        logits = weights + products @ directions.T @ means.T - 0.5 * norms
        total = torch.nn.functional.cross_entropy(logits, targets)
        (gradient,) = torch.autograd.grad(total, values)
        return total.item(), gradient.numpy()

    found = minimize(
        loss,
        np.concatenate((start_directions.ravel(), start_means.ravel())),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": steps},
    ).x
    directions, means = found[:split].reshape(shapes[0]), found[split:].reshape(shapes[1])
    triangle = np.linalg.cholesky(directions @ gram @ directions.T)
    return DecisionMap(
        classes=chosen,
        coefficients=np.linalg.solve(triangle, directions),
        means=means @ triangle,
        log_weights=weights.numpy(),
    )


def _start(gram: FloatArray, chosen: IntArray) -> tuple[FloatArray, FloatArray]:
    """The plane of the chosen means' largest spread, and the means' places in it."""
    inner = gram[np.ix_(chosen, chosen)]
    sizes, vectors = np.linalg.eigh(inner)
    top = vectors[:, ::-1][:, :2] / np.sqrt(np.maximum(sizes[::-1][:2], 1e-12))
    directions = np.zeros((2, len(gram)))
    directions[:, chosen] = top.T
    return directions, gram[chosen] @ directions.T
