"""Average decision spaces of right, wrong and unknown images (figure 5.20).

Shapes: N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ibinn.explain.decision_space import decision_spaces
from ibinn.latent import Subspaces
from ibinn.types import DecisionSpace, Verdict
from training.chapters.base import Material
from training.evaluation import Rate
from training.ood_sets import choose
from training.scoring import Scored

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SPACE_BINS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Latents:
    """a and logits of images (N, K), float64, with their classes where they have some."""

    mean_products: Tensor
    logits: Tensor

    @classmethod
    def of(cls, scored: Scored, subspaces: Subspaces) -> Latents:
        logits = torch.from_numpy(scored.logits)
        shift = subspaces.log_weights.cpu() - 0.5 * subspaces.mean_norms.cpu()
        return cls(mean_products=logits - shift, logits=logits)

    @property
    def products(self) -> FloatArray:
        result: FloatArray = self.mean_products.numpy()
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceGroup:
    """Decision spaces of a group of images.

    Attributes:
        name: Which images.
        count: How many.
        density: Share of the images per cell, rows along y from 0 (bins, bins).
        means: Average places of the five classes' means (5, 2), most probable first.
        median_x: Of the images.
        median_y: Of the images.
        inside_first: Share within the 90 % circle of the most probable class.
        inside_none: Share outside of all five circles.
    """

    name: str
    count: int
    density: FloatArray
    means: FloatArray
    median_x: float
    median_y: float
    inside_first: Rate
    inside_none: Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Spaces:
    """Average decision spaces.

    Attributes:
        x_edges: Of the cells (bins + 1,).
        y_edges: The same.
        first_radius: Of the circle around the first mean.
        dims: Dimension of the span.
        groups: Of images.
    """

    x_edges: FloatArray
    y_edges: FloatArray
    first_radius: float
    dims: int
    groups: tuple[SpaceGroup, ...]


def spaces(
    material: Material, subspaces: Subspaces, test: Latents, labels: IntArray
) -> Spaces | None:
    """Decision spaces of right, wrong and unknown images, up to `Material.limit` of each."""
    right = test.logits.numpy().argmax(axis=1) == labels
    flagged = material.test_scores.verdicts == Verdict.UNKNOWN.value
    groups = [
        ("right answers", test, np.flatnonzero(right)),
        ("wrong answers", test, np.flatnonzero(~right)),
        ("test images called unknown", test, np.flatnonzero(flagged)),
    ]
    if material.set_scores:
        # Every set counts alike.
        share = max(1, material.limit // len(material.set_scores))
        parts = [
            (Latents.of(scored, subspaces), choose(len(scored), share, seed=0))
            for scored in material.set_scores.values()
        ]
        unknown = Latents(
            mean_products=torch.cat([part.mean_products[some] for part, some in parts]),
            logits=torch.cat([part.logits[some] for part, some in parts]),
        )
        groups.append(("images of unknown kinds", unknown, np.arange(len(unknown.logits))))
    placed = []
    for name, latents, indices in groups:
        if not len(indices):
            continue
        some = indices[choose(len(indices), material.limit, seed=material.seed)]
        part = Latents(mean_products=latents.mean_products[some], logits=latents.logits[some])
        spaces = decision_spaces(
            part,
            subspaces=subspaces,
            class_names=material.classifier.info.classes,
            temperature=material.classifier.info.temperature,
        )
        placed.append((name, [space for space in spaces if space is not None]))
    placed = [(name, spaces) for name, spaces in placed if spaces]
    if not placed:
        return None
    first = placed[0][1][0]
    x = np.array([space.x for _, spaces in placed for space in spaces])
    y = np.array([space.y for _, spaces in placed for space in spaces])
    reach = float(np.percentile(np.abs(x), 99.5))
    x_edges = np.linspace(-reach, reach, SPACE_BINS + 1)
    y_edges = np.linspace(0.0, float(np.percentile(y, 99.5)), SPACE_BINS + 1)
    return Spaces(
        x_edges=np.round(x_edges, 4),
        y_edges=np.round(y_edges, 4),
        first_radius=first.means[0].radius,
        dims=first.dims,
        groups=tuple(_space_group(name, found, x_edges, y_edges) for name, found in placed),
    )


def _space_group(
    name: str, spaces: list[DecisionSpace], x_edges: FloatArray, y_edges: FloatArray
) -> SpaceGroup:
    x = np.array([space.x for space in spaces])
    y = np.array([space.y for space in spaces])
    means = np.array([[(mean.x, mean.y) for mean in space.means] for space in spaces])
    radii = np.array([[mean.radius for mean in space.means] for space in spaces])
    inside = np.hypot(means[:, :, 0] - x[:, None], means[:, :, 1] - y[:, None]) <= radii
    counts, _, _ = np.histogram2d(
        np.clip(y, y_edges[0], y_edges[-1]),
        np.clip(x, x_edges[0], x_edges[-1]),
        bins=(y_edges, x_edges),
    )
    return SpaceGroup(
        name=name,
        count=len(spaces),
        density=np.round(counts / len(spaces), 5),
        means=np.round(means.mean(axis=0), 4),
        median_x=float(np.median(x)),
        median_y=float(np.median(y)),
        inside_first=Rate.of(int(inside[:, 0].sum()), len(spaces)),
        inside_none=Rate.of(int((~inside.any(axis=1)).sum()), len(spaces)),
    )
