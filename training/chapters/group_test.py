"""Judging many images together: false alarms of usual groups, and what unusual groups need.

Groups are drawn from the test images, or mixed from them and a set of unknown images, and judged
as `ibinn.ood.group_test` judges an hour's traffic.

Shapes: G groups, M images each, n calibration images, N images of a set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ibinn.assessment import COMBINED
from ibinn.ood.group_test import LIKELIHOOD, GroupReference, GroupScores, group_p_values
from ibinn.ood.multiple import benjamini_hochberg, fewest_found
from ibinn.ood.p_values import holm
from training import plots
from training.chapters.base import Material, NotMeasured
from training.evaluation import Rate
from training.scoring import Progress, Scored

FloatArray = npt.NDArray[np.float64]

SIZES = (10, 50, 200, 1_000)
"""Images per group."""

SHARES = (1.0, 0.2, 0.05)
"""Shares of unknown images in a group."""

ALPHAS = (0.01, 0.05)
GROUPS = 100
DRAWS = 999
LIST_SIZE = 1_000
FALSE_DISCOVERY_RATE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Usual groups that were flagged.

    Attributes:
        size: Images per group M.
        alpha: Significance.
        flagged: By the verdict, which is on the Holm-adjusted p-values.
        single: (test, share of groups with a raw p <= alpha).
    """

    size: int
    alpha: float
    flagged: Rate
    single: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Groups with unknown images that were flagged at α = 0.01.

    Attributes:
        name: Of the set.
        share: Share of unknown images in each group.
        size: Images per group M.
        unknown: Unknown images in each group.
        flagged: By the verdict.
        single: (test, share of groups with a raw p <= alpha).
    """

    name: str
    share: float
    size: int
    unknown: int
    flagged: Rate
    single: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Lists of images judged one by one with Benjamini and Hochberg.

    Attributes:
        name: Of the set.
        unknown: Unknown images in each list.
        found: Mean share of them that is named.
        false_share: Mean share of usual images among those named, none named counting as 0.
    """

    name: str
    unknown: int
    found: float
    false_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPower:
    """The chapter.

    Attributes:
        calibration_count: Number n of calibration images.
        groups: Groups per row.
        alpha: Significance of `powers`.
        levels: Usual groups.
        powers: Groups with unknown images.
        list_size: Images per list.
        false_discovery_rate: q of the lists.
        fewest_found: Fewer unknown images cannot be named in a list of that length.
        lists: Lists with unknown images.
    """

    calibration_count: int
    groups: int
    alpha: float
    levels: tuple[Level, ...]
    powers: tuple[Power, ...]
    list_size: int
    false_discovery_rate: float
    fewest_found: int
    lists: tuple[Listed, ...]


def measure(material: Material) -> GroupPower | NotMeasured:
    """Draw groups from the scores that there are; no image is scored again."""
    reference = material.classifier.reference
    if reference is None:
        return NotMeasured(reason="the bundle is not calibrated")
    held_against = GroupReference.of(reference.combined, reference.ranks, reference.centres)
    return simulate(
        material.test_scores,
        material.set_scores,
        held_against,
        seed=material.seed,
        progress=material.progress,
    )


def simulate(
    test: Scored,
    sets: Mapping[str, Scored],
    reference: GroupReference,
    *,
    sizes: Sequence[int] = SIZES,
    shares: Sequence[float] = SHARES,
    groups: int = GROUPS,
    draws: int = DRAWS,
    list_size: int = LIST_SIZE,
    seed: int = 0,
    progress: Progress | None = None,
) -> GroupPower:
    """Level and power of the group test, and what lists find.

    Args:
        test: Scores of usual images.
        sets: Scores of unknown images by set.
        reference: What groups are held against.
        sizes: Images per group; those above a third of the test images are left out.
        shares: Shares of unknown images.
        groups: Groups per row.
        draws: Behind each p-value.
        list_size: Images per list, at most half of the test images.
        seed: Of the groups and the draws.
        progress: Called as it goes on.
    """
    rng = np.random.default_rng(seed)
    usual = _finite(test)
    unknown = {name: _finite(scored) for name, scored in sets.items()}
    fitting = [size for size in sizes if 3 * size <= usual.shape[1]]
    levels: list[Level] = []
    powers: list[Power] = []
    done, total = 0, len(fitting) * (1 + len(unknown) * len(shares))

    def judged(chosen: FloatArray) -> dict[str, FloatArray]:
        nonlocal done
        found = group_p_values(_scores(chosen), reference, draws=draws, seed=seed)
        done += 1
        if progress is not None:
            progress("groups of images", done, total)
        return found

    for size in fitting:
        p = judged(_groups(usual, unknown=None, size=size, odd=0, groups=groups, rng=rng))
        for alpha in ALPHAS:
            flagged, single = _flagged(p, alpha)
            levels.append(Level(size=size, alpha=alpha, flagged=flagged, single=single))
        for name, values in unknown.items():
            for share in shares:
                odd = round(share * size)
                if not odd:
                    continue
                chosen = _groups(usual, unknown=values, size=size, odd=odd, groups=groups, rng=rng)
                flagged, single = _flagged(judged(chosen), ALPHAS[0])
                powers.append(
                    Power(
                        name=name,
                        share=share,
                        size=size,
                        unknown=odd,
                        flagged=flagged,
                        single=single,
                    )
                )
    length = min(list_size, usual.shape[1] // 2)
    n = len(reference.combined)
    return GroupPower(
        calibration_count=n,
        groups=groups,
        alpha=ALPHAS[0],
        levels=tuple(levels),
        powers=tuple(powers),
        list_size=length,
        false_discovery_rate=FALSE_DISCOVERY_RATE,
        fewest_found=fewest_found(length, n, q=FALSE_DISCOVERY_RATE),
        lists=tuple(
            _listed(name, usual, values, length=length, odd=round(share * length),
                    groups=groups, rng=rng)
            for name, values in unknown.items()
            for share in (0.2, 0.05)
        ),
    )  # fmt: skip


def figures(result: GroupPower) -> dict[str, Figure]:
    """Share of groups flagged against their size, a panel per share of unknown images."""
    shares = sorted({p.share for p in result.powers}, reverse=True)
    names = list(dict.fromkeys(p.name for p in result.powers))
    if not shares:
        return {}
    colours = plots.colours_of(names)
    figure = Figure(figsize=(plots.WIDTH_IN, 2.9), layout="constrained")
    grid = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
    for axes, share in zip(grid, shares, strict=True):
        for name in names:
            own = [p for p in result.powers if p.share == share and p.name == name]
            values = [p.flagged.value for p in own]
            axes.plot(
                [p.size for p in own], values, color=colours[name], marker="o", markersize=3.5,
                linewidth=1.3, label=name,
            )  # fmt: skip
        axes.axhline(result.alpha, color=plots.INK, linewidth=0.9, linestyle=":")
        axes.set(xscale="log", xlabel="images per group", ylim=(-0.02, 1.02))
        axes.set_title(f"{share:.0%} unknown", fontsize=9, color=plots.INK, loc="left")
        plots.style(axes)
    grid[0].set_ylabel("share of groups flagged")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(5, len(names)), fontsize=8.5,
        frameon=False,
    )  # fmt: skip
    return {"power": figure}


def _finite(scored: Scored) -> FloatArray:
    """Combined score, its p-value and log q(x) of the images that were assessed, (3, N)."""
    likelihood = scored.statistics.get(LIKELIHOOD, np.zeros(len(scored)))
    values = np.stack([scored.unusual[COMBINED], scored.p[COMBINED], likelihood])
    kept: FloatArray = values[:, np.isfinite(values).all(axis=0)]
    return kept


def _groups(
    usual: FloatArray,
    *,
    unknown: FloatArray | None,
    size: int,
    odd: int,
    groups: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Groups (3, G, M) without an image twice in one group, `odd` of each unknown."""
    odd = 0 if unknown is None else min(odd, unknown.shape[1])
    parts = [usual[:, _chosen(usual.shape[1], size - odd, groups, rng)]]
    if unknown is not None and odd:
        parts.append(unknown[:, _chosen(unknown.shape[1], odd, groups, rng)])
    return np.concatenate(parts, axis=2)


def _chosen(
    available: int, count: int, groups: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    return np.stack([rng.permutation(available)[:count] for _ in range(groups)])


def _scores(chosen: FloatArray) -> GroupScores:
    return GroupScores(combined_score=chosen[0], combined_p=chosen[1], likelihood=chosen[2])


def _flagged(
    p: Mapping[str, FloatArray], alpha: float
) -> tuple[Rate, tuple[tuple[str, float], ...]]:
    adjusted = holm(np.stack(list(p.values()), axis=1))
    hits = np.count_nonzero(adjusted.min(axis=1) <= alpha)
    single = tuple((name, float(np.mean(values <= alpha))) for name, values in p.items())
    return Rate.of(int(hits), len(adjusted)), single


def _listed(
    name: str,
    usual: FloatArray,
    unknown: FloatArray,
    *,
    length: int,
    odd: int,
    groups: int,
    rng: np.random.Generator,
) -> Listed:
    odd = min(odd, unknown.shape[1])
    chosen = _groups(usual, unknown=unknown, size=length, odd=odd, groups=groups, rng=rng)[1]
    found, false = [], []
    for p in chosen:
        named = benjamini_hochberg(p, q=FALSE_DISCOVERY_RATE)
        right = int(named[length - odd :].sum())
        found.append(right / max(1, odd))
        false.append((int(named.sum()) - right) / max(1, int(named.sum())))
    return Listed(
        name=name,
        unknown=odd,
        found=float(np.mean(found)),
        false_share=float(np.mean(false)),
    )
