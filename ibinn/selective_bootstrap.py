"""Figures of selective classification with intervals: a paired bootstrap over a mix of images.

The images of a mix come in parts with fixed shares, and some are made of others. What is drawn
with replacement are the originals, so that an image and what was made of it stay together; every
ranking of every classifier is judged on the same draws.

Shapes: N images, P parts of a mix, R rankings, C coverages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ibinn.errors import ConfigError, DataError
from ibinn.selective import (
    BoolArray,
    Estimate,
    FloatArray,
    IntArray,
    Ranked,
    check_coverage,
    estimate,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranking:
    """A classifier with the confidence that it accepts by.

    Attributes:
        name: Short name.
        confidence: High is accepted first (N,).
        failures: Where accepting the image would be an error (N,).
    """

    name: str
    confidence: npt.NDArray[np.floating[Any]]
    failures: BoolArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Figures:
    """Figures of several rankings on one mix, with bootstrap draws shared by all of them.

    Draw i of every ranking is over the same images, so differences are paired.

    Attributes:
        names: Of the rankings (R).
        coverages: Where the selective risk is taken (C).
        selective_risk: On the images as they are (R, C).
        augrc: (R,).
        drawn_selective_risk: (draws, R, C).
        drawn_augrc: (draws, R).
    """

    names: tuple[str, ...]
    coverages: tuple[float, ...]
    selective_risk: FloatArray
    augrc: FloatArray
    drawn_selective_risk: FloatArray
    drawn_augrc: FloatArray

    def risk_of(self, name: str, coverage: float) -> Estimate:
        """Selective risk of one ranking."""
        r, c = self.names.index(name), self.coverages.index(coverage)
        return estimate(self.selective_risk[r, c], self.drawn_selective_risk[:, r, c])

    def augrc_of(self, name: str) -> Estimate:
        """AUGRC of one ranking."""
        r = self.names.index(name)
        return estimate(self.augrc[r], self.drawn_augrc[:, r])

    def risk_difference(self, name: str, other: str, coverage: float) -> Estimate:
        """Selective risk of `name` minus that of `other`, paired; negative: `name` is better."""
        a, b = self.names.index(name), self.names.index(other)
        c = self.coverages.index(coverage)
        drawn = self.drawn_selective_risk[:, a, c] - self.drawn_selective_risk[:, b, c]
        return estimate(self.selective_risk[a, c] - self.selective_risk[b, c], drawn)

    def augrc_difference(self, name: str, other: str) -> Estimate:
        """AUGRC of `name` minus that of `other`, paired; negative: `name` is better."""
        a, b = self.names.index(name), self.names.index(other)
        return estimate(
            self.augrc[a] - self.augrc[b], self.drawn_augrc[:, a] - self.drawn_augrc[:, b]
        )


def part_weights(
    parts: IntArray, shares: npt.NDArray[np.floating[Any]], counts: IntArray | None = None
) -> FloatArray:
    """Weights by which every part of a mix has its share, however many images it holds.

    w_i = share of its part · count_i / Σ counts of its part; they add up to 1.

    Args:
        parts: Part of each image, 0 ... P - 1 (N,).
        shares: Share of each part (P,), 0 or more, adding up to 1.
        counts: How often each image was drawn (N,); None: once.

    Raises:
        DataError: A part with a share has no image.
    """
    number = np.ones(len(parts)) if counts is None else np.asarray(counts, dtype=np.float64)
    totals = np.bincount(parts, weights=number, minlength=len(shares))
    if (empty := (totals == 0) & (np.asarray(shares) > 0)).any():
        raise DataError(
            f"parts {np.flatnonzero(empty).tolist()} of the mix have a share and no image; "
            "give them images or the share 0"
        )
    per_image: FloatArray = np.asarray(shares) / np.maximum(totals, 1e-300)
    result: FloatArray = per_image[parts] * number
    return result


def bootstrap(
    rankings: Sequence[Ranking],
    *,
    parts: IntArray,
    shares: npt.NDArray[np.floating[Any]],
    sources: IntArray,
    coverages: Sequence[float],
    draws: int,
    seed: int,
) -> Figures:
    """Figures of several rankings on a mix of parts, with a paired, stratified bootstrap.

    A draw resamples *sources* with replacement: an image and whatever was made of it are drawn
    together. Sources are drawn within strata, the first part that each one is in, and every part
    keeps its share. All rankings see the same draws.

    Args:
        rankings: At least one, all of the same N images.
        parts: Part of each image, 0 ... P - 1 (N,).
        shares: Share of each part (P,).
        sources: Number of the original that each image was made of, 0 or more (N,).
        coverages: In (0, 1].
        draws: Number of draws, at least 1.
        seed: Of the draws.

    Raises:
        ConfigError: No ranking, no draw, or a coverage out of range.
        DataError: As `risk_coverage` and `part_weights`.
    """
    if not rankings or draws < 1:
        raise ConfigError(f"{len(rankings)} rankings, {draws} draws; expected at least 1 of both")
    for coverage in coverages:
        check_coverage(coverage)
    ranked = [Ranked.of(r.confidence, r.failures) for r in rankings]

    def of(weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        risks, areas = np.empty((len(rankings), len(coverages))), np.empty(len(rankings))
        for r, images in enumerate(ranked):
            curve = images.curve(weights)
            risks[r] = np.interp(coverages, curve.coverage, curve.generalised_risk) / coverages
            areas[r] = curve.augrc
        return risks, areas

    risks, areas = of(part_weights(parts, shares))
    drawn_risks = np.empty((draws, *risks.shape))
    drawn_areas = np.empty((draws, *areas.shape))
    strata = _strata(parts, sources)
    rng = np.random.default_rng(seed)
    for draw in range(draws):
        counts = np.zeros(int(sources.max()) + 1, dtype=np.int64)
        for members in strata:
            taken = members[rng.integers(0, len(members), size=len(members))]
            counts += np.bincount(taken, minlength=len(counts))
        drawn_risks[draw], drawn_areas[draw] = of(part_weights(parts, shares, counts[sources]))
    return Figures(
        names=tuple(r.name for r in rankings),
        coverages=tuple(coverages),
        selective_risk=risks,
        augrc=areas,
        drawn_selective_risk=drawn_risks,
        drawn_augrc=drawn_areas,
    )


def _strata(parts: IntArray, sources: IntArray) -> list[IntArray]:
    """Sources (distinct numbers) by the first part that each is in."""
    first = np.full(int(sources.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, sources, parts)
    return [np.flatnonzero(first == part) for part in np.unique(first[sources])]
