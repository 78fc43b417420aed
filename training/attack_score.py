"""The combined test as a differentiable function, for attackers who know it.

`ibinn.ood.combined` ranks numpy arrays. Here is the same score on torch tensors: equal in value,
and with a gradient where ranks have none. Statistics are torch functions already, except for the
size of the lossless encoding, which an attacker can only take as given.

Shapes: B images, T statistics, n images of calibration part A, K classes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ibinn.classifier import Evidence, gather_evidence
from ibinn.errors import NotCalibratedError
from ibinn.images import Pixels, png_size
from ibinn.latent import Subspaces
from ibinn.ood.combination import MARGIN, DensityOfStates
from ibinn.ood.combined import JOINT, TAIL_SHARE, CombinedTest, Tail
from ibinn.ood.p_values import attainable_count
from ibinn.ood.statistics import StatisticContext
from ibinn.trusted import TrustedClassifier
from ibinn.types import TestKind

FloatArray = npt.NDArray[np.float64]


def density_score(values: Tensor, states: DensityOfStates) -> Tensor:
    """`DensityOfStates.score` of statistics (B, T), shape (B,); high is unusual."""
    median, scale, weights = (
        _like(a, values) for a in (states.median, states.scale, states.weights)
    )
    standard = (values - median) / scale
    beyond = (standard.abs() / MARGIN).clamp_min(1.0)
    compressed = standard.clamp(-MARGIN, MARGIN) * (1.0 + beyond.log())
    log_densities = []
    for mean, covariance in zip(states.means, states.covariances, strict=True):
        lower = torch.linalg.cholesky(_like(covariance, values))
        whitened = torch.linalg.solve_triangular(
            lower, (compressed - _like(mean, values)).T, upper=False
        )
        log_det = 2.0 * lower.diagonal().log().sum()
        constant = log_det + len(mean) * math.log(2 * math.pi)
        log_densities.append(-0.5 * (whitened.square().sum(0) + constant))
    return -torch.logsumexp(torch.stack(log_densities, dim=1) + weights, dim=1)


def surprise(scores: Tensor, tail: Tail) -> Tensor:
    """`Tail.surprise` of scores (B,) in nats; below the threshold the gradient of its polyline.

    Ranks are steps. Their value is kept, and their gradient is that of -log p drawn as straight
    lines between neighbouring images of part A.
    """
    n = len(tail.values)
    reference = _like(tail.values, scores)
    place = torch.searchsorted(reference, scores.detach().contiguous())
    ranked = -((1.0 + n - place.to(scores.dtype)) / (n + 1)).log()
    left, right = (place - 1).clamp(0, n - 1), place.clamp(0, n - 1)
    width = (reference[right] - reference[left]).clamp_min(1e-12)
    step = ((2.0 + n - place) / (1.0 + n - place)).log()
    inside = (place > 0) & (place < n)
    slope = torch.where(inside, step / width, torch.zeros_like(width))
    polyline = ranked + slope.detach() * (scores - scores.detach())
    beyond = (scores - tail.threshold) / tail.scale
    return torch.where(beyond > 0, beyond - math.log(TAIL_SHARE), polyline)


def combined_score(values: Tensor, test: CombinedTest) -> Tensor:
    """`Surprises.fisher` of statistics (B, T): the score of the verdict's test, (B,)."""
    total = surprise(density_score(values, test.states), test.tails[JOINT])
    for name, column in test.alone.items():
        total = total + surprise(values[:, column], test.tails[name])
    return total


class OpenBook:
    """A calibrated classifier with everything that its answers rest on open to gradients.

    Args:
        classifier: Calibrated.

    Raises:
        NotCalibratedError: There is no combined test to attack.
    """

    def __init__(self, classifier: TrustedClassifier) -> None:
        reference = classifier.reference
        if reference is None:
            raise NotCalibratedError(
                "the bundle is not calibrated; an attack on its test needs one: calibrate it first"
            )
        self.classifier = classifier
        self.test = reference.combined_test
        self.subspaces = Subspaces.of(classifier.model.mixture)
        self.context = StatisticContext.of(
            classifier.model.mixture,
            self.subspaces,
            classifier.network.heatmap_shape,
            reference.fitted,
        )
        self.threshold = flag_threshold(
            reference.combined, classifier.significance.alpha, reference.count_b
        )

    def tensor(self, pixels: Pixels) -> Tensor:
        """Finished pixels, uint8 (B, S, S, 3), as the network's input (B, 3, S, S)."""
        on_device = torch.from_numpy(pixels).to(self.classifier.device)
        return self.classifier.preprocessing.to_tensor(on_device)

    def evidence(self, x: Tensor, pixels: Pixels) -> Evidence:
        """Evidence of x (B, 3, S, S) with gradients; `pixels` give the encoded sizes."""
        sizes = [png_size(image) for image in pixels]
        return gather_evidence(
            self.classifier.network.observe(x),
            subspaces=self.subspaces,
            preprocessing_log_det=self.classifier.preprocessing.log_det,
            encoded_bytes=torch.tensor(sizes, dtype=torch.float64, device=x.device),
        )

    def score(self, evidence: Evidence) -> Tensor:
        """The combined score (B,), equal to `Scores.combined_score`, with gradients."""
        values = [s.compute(evidence, self.context) for s in self.classifier.statistics]
        return combined_score(torch.stack(values, dim=1), self.test)


def flag_threshold(reference_sorted: FloatArray, alpha: float, count: int) -> float:
    """The largest combined score whose verdict is not UNKNOWN; scores above it are flagged.

    p(s) = (1 + #{ref >= s})/(n + 1) <= α holds exactly for s above the k-th largest reference
    value, k = ⌊α(n + 1)⌋; -inf if every score is flagged, +inf if none can be.
    """
    k = attainable_count(alpha, count, TestKind.HIGH_IS_UNUSUAL)
    if k < 1:
        return math.inf
    return float(reference_sorted[count - k]) if k <= count else -math.inf


def _like(values: FloatArray, other: Tensor) -> Tensor:
    return torch.as_tensor(np.asarray(values), dtype=other.dtype, device=other.device)
