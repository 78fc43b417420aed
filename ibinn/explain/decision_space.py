"""The decision space of an image: where it lies among its most probable classes (figure 5.20).

Shapes: B batch, K classes, T <= K of them shown. Everything follows from a = M z and G = M Mᵀ in
float64; nothing of dimension D is touched.

A class's codes are z ~ N(μ_i, I). Projected onto the span of T means of rank r they are
N(μ_i, I_r). Along the line through the first two means a code is N(x_i, 1); the distance from
that line is a noncentral chi variable with r - 1 degrees of freedom and noncentrality y_i, the
mean's own distance. So codes of the first two classes, whose means are on the line, lie around
y = sqrt(r - 1): there are r - 1 ways off the line and only one back. A circle around (x_i, 0)
holds what a ball in r dimensions does, 90 % at the chi_r quantile; around a mean off the line it
holds more than that ball, and its radius is found by integration (`radii_of_share`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ive, ndtr
from scipy.stats import chi
from torch import Tensor

from ibinn.latent import Subspaces
from ibinn.types import ClassPoint, DecisionSpace

FloatArray = npt.NDArray[np.float64]

CLASSES = 5
SHARE = 0.9
"""Share of a class's codes inside its circle."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_HALVINGS = 40


class Products(Protocol):
    """What is asked of an image's evidence; `ibinn.classifier.Evidence` has it."""

    @property
    def mean_products(self) -> Tensor: ...
    @property
    def logits(self) -> Tensor: ...


def decision_spaces(
    evidence: Products,
    *,
    subspaces: Subspaces,
    class_names: Sequence[str],
    temperature: float = 1.0,
    count: int = CLASSES,
) -> tuple[DecisionSpace | None, ...]:
    """The decision space of each image of a batch.

    With G_T and a_T for the T most probable classes and m = ½(μ_1 + μ_2), Δ = ‖μ_2 - μ_1‖:

        ‖Pz - m‖² = a_Tᵀ G_T⁺ a_T - (a_1 + a_2) + ‖m‖²
        x = (z - m)·(μ_2 - μ_1)/Δ,   y² = ‖Pz - m‖² - x²

    Args:
        evidence: Of B images: a (B, K) and w_y + a_y - ½‖μ_y‖² (B, K), float64.
        subspaces: Of the mixture.
        class_names: K names.
        temperature: T of the posterior shown.
        count: Number of classes shown, at most.

    Returns:
        One per image; None where the first two means coincide, where there is one class only, or
        where the evidence is not finite.
    """
    classes = len(class_names)
    images = evidence.logits.shape[0]
    log_posterior = torch.log_softmax(evidence.logits / temperature, dim=1)
    if classes < 2:
        return (None,) * images
    shown = log_posterior.topk(min(count, classes), dim=1).indices
    products = evidence.mean_products.gather(1, shown)
    gram = subspaces.gram[shown[:, :, None], shown[:, None, :]]
    finite = torch.isfinite(log_posterior).all(1) & torch.isfinite(products).all(1)
    # Images without finite evidence are left out below; here they must not stop the others.
    places = _places(torch.where(finite[:, None], products, 0.0), gram)
    dims = torch.linalg.matrix_rank(gram, rtol=1e-10, hermitian=True).cpu().numpy()
    x, y = (part.cpu().numpy() for part in places)
    radii = radii_of_share(y[:, 1:], np.broadcast_to(dims[:, None], y[:, 1:].shape))
    distance = x[:, 2] - x[:, 1]
    weights = subspaces.log_weights[shown].cpu().numpy()
    chosen, usable = shown.cpu().numpy(), finite.cpu().numpy() & (distance > 0)
    probabilities = log_posterior.gather(1, shown).exp().cpu().numpy()
    return tuple(
        DecisionSpace(
            x=float(x[i, 0]),
            y=float(y[i, 0]),
            boundary=float((weights[i, 0] - weights[i, 1]) / distance[i]),
            dims=int(dims[i]),
            means=tuple(
                ClassPoint(
                    class_name=class_names[k],
                    x=float(x[i, 1 + j]),
                    y=float(y[i, 1 + j]),
                    radius=float(radii[i, j]),
                    probability=float(probabilities[i, j]),
                )
                for j, k in enumerate(chosen[i])
            ),
        )
        if usable[i]
        else None
        for i in range(images)
    )


def radii_of_share(
    y: FloatArray, dims: npt.NDArray[np.integer], share: float = SHARE
) -> FloatArray:
    """Radius of the circle around a class's mean that holds a share of its codes.

    Solves ∫ f(t) [2Φ(√(ρ² - (t - y)²)) - 1] dt = share for ρ, where f is the density of the
    noncentral chi law with dims - 1 degrees of freedom and noncentrality y. At y = 0 this is the
    quantile of chi with `dims` degrees of freedom; far from the line it falls to that with two.

    Args:
        y: Distance of the means from the line, at least 0, any shape.
        dims: Dimension of the span they are shown in, at least 1, same shape.
        share: In (0, 1).

    Returns:
        Radii in standard deviations, same shape.
    """
    # A mean's distance from the line through two others recurs with every image between them.
    pairs = np.stack((np.round(y, 9).ravel(), np.asarray(dims, dtype=np.float64).ravel()))
    unique, where = np.unique(pairs, axis=1, return_inverse=True)
    return _radii(unique[0], unique[1], share)[where.ravel()].reshape(y.shape)


def _radii(y: FloatArray, dims: FloatArray, share: float) -> FloatArray:
    widest: FloatArray = np.asarray(chi.ppf(share, dims), dtype=np.float64)
    off_line = (y > 1e-6) & (dims > 1)
    centre = np.where(off_line, y, 1.0)[..., None]
    freedom = np.where(off_line, dims - 1, 1)[..., None]
    low, high = np.zeros_like(widest), widest.copy()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = _share_inside(middle[..., None], centre, freedom) >= share
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(off_line, high, widest)


def _places(products: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """x and y of the image and of the T means, (B, 1 + T) each, from a_T and G_T."""
    pinv = torch.linalg.pinv(gram, rtol=1e-10, hermitian=True)
    # Column j of G holds the products of mean j, so that means are placed as images are.
    points = torch.cat((products[:, None], gram), dim=1)
    own = torch.cat(
        (((products[:, None] @ pinv) * products[:, None]).sum(2), gram.diagonal(dim1=1, dim2=2)),
        dim=1,
    )
    first, second = gram[:, 0, 0, None], gram[:, 1, 1, None]
    cross = gram[:, 0, 1, None]
    distance = (first + second - 2.0 * cross).clamp(min=0).sqrt()
    middle = (first + second + 2.0 * cross) / 4.0
    along = points[:, :, 1] - points[:, :, 0] - (second - first) / 2.0
    x = torch.where(distance > 1e-6, along / distance.clamp(min=1e-300), 0.0)
    squared = own - (points[:, :, 0] + points[:, :, 1]) + middle
    y = (squared - x.square()).clamp(min=0).sqrt()
    # The first two are on the line; rounding would put them 1e-7 off.
    y[:, 1:3] = 0.0
    return x, y


def _share_inside(radius: FloatArray, y: FloatArray, freedom: FloatArray) -> FloatArray:
    """Share of codes within `radius` of (x, y) in the plane; arguments end in an axis of 1."""
    low = np.maximum(y - radius, 0.0)
    half = (y + radius - low) / 2
    t = low + half * (1 + _NODES)
    reach = np.sqrt(np.maximum(radius**2 - (t - y) ** 2, 0.0))
    density = (
        t ** (freedom / 2)
        * y ** (1 - freedom / 2)
        * np.exp(-((t - y) ** 2) / 2)
        * ive(freedom / 2 - 1, y * t)
    )
    inside: FloatArray = (half * _WEIGHTS * density * (2 * ndtr(reach) - 1)).sum(-1)
    return inside
