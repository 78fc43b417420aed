"""The combined test: Fisher's combination of a joint and of two one-sided views of an image.

The density of states looks at all statistics together and finds what is unusual in any
direction, but spreads its attention over all of them. Some statistics are therefore looked at
alone as well, one-tailed: those that `Statistic.alone` marks. Each view turns its score into
-log p against calibration part A, and the combined score is their sum (Fisher 1932). Views are
not independent, so the sum follows no tabulated law: it is ranked on part B like any other score,
and its p-value is as valid as any other.

The choice of views and of the sum was made on `training.development_sets`.

Shapes: N images, T statistics, n images of part A.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ibinn.ood.combination import DensityOfStates, Marginals
from ibinn.ood.ranking import SortedReferences
from ibinn.types import Group

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

TAIL_SHARE = 0.05
"""Share of part A beyond which a p-value follows an exponential tail instead of ranks."""

JOINT = "density_of_states"
"""Name of the view of all statistics together."""

GROUPS = (Group.PIXEL, Group.STYLE, Group.SEMANTIC)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tail:
    """p-values of a score that is high for unusual images, from its values on part A.

    p = (1 + #{a >= s})/(n + 1) up to the threshold t, which 5 % of part A exceed, and
    0.05 exp(-(s - t)/b) beyond it, b the mean excess: ranks alone could not tell apart images
    that are all more unusual than part A.

    Attributes:
        values: Score of part A's images, ascending (n,).
        threshold: t.
        scale: b.
    """

    values: FloatArray
    threshold: float
    scale: float

    @classmethod
    def fit(cls, values: FloatArray) -> Tail:
        """The tail of the finite values (n,) of part A."""
        ordered = np.sort(np.asarray(values, dtype=np.float64))
        first = min(int((1.0 - TAIL_SHARE) * len(ordered)), len(ordered) - 1)
        threshold = float(ordered[first])
        excess = float((ordered[first:] - threshold).mean())
        spread = float(ordered[-1] - ordered[0])
        return cls(
            values=ordered,
            threshold=threshold,
            scale=max(excess, 1e-6 * spread, 1e-12),
        )

    def surprise(self, scores: FloatArray) -> FloatArray:
        """-log p in nats, at least 0, of scores (N,); NaN where a score is NaN."""
        n = len(self.values)
        ranked = (1 + n - np.searchsorted(self.values, scores)) / (n + 1)
        beyond = (scores - self.threshold) / self.scale
        nats: FloatArray = np.where(beyond > 0, beyond - np.log(TAIL_SHARE), -np.log(ranked))
        return nats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surprises:
    """What each view says, in nats of -log p against part A.

    Attributes:
        views: View -> (N,): `JOINT`, then each statistic that is looked at alone.
        groups: Group -> (N,): the same within one group of statistics.
    """

    views: Mapping[str, FloatArray]
    groups: Mapping[str, FloatArray]

    @property
    def fisher(self) -> FloatArray:
        """The combined score: the sum over the views (N,)."""
        return np.asarray(sum(self.views.values()))

    @property
    def smallest_p(self) -> FloatArray:
        """Min-p, the alternative that is reported beside it: the largest of the views (N,)."""
        return np.asarray(np.max(list(self.views.values()), axis=0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CombinedTest:
    """Views and their tails, fitted on part A.

    Attributes:
        states: Density of states over all statistics, in registry order.
        alone: Position of each statistic that is looked at alone, by name.
        groups: Positions of each group's statistics.
        tails: Per view and, as ``group:view``, per view within a group.
        prepared: What of these can be computed before an image is there; none without tails.
    """

    states: DensityOfStates
    alone: Mapping[str, int]
    groups: Mapping[str, tuple[int, ...]]
    tails: Mapping[str, Tail]
    prepared: Prepared | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prepared", Prepared.of(self) if self.tails else None)

    @classmethod
    def fit(
        cls,
        states: DensityOfStates,
        values: FloatArray,
        *,
        alone: Mapping[str, int],
        groups: Mapping[str, Sequence[int]],
    ) -> CombinedTest:
        """Fit the tails to the statistics (n, T) of part A, which are finite."""
        empty = cls(
            states=states,
            alone=dict(alone),
            groups={name: tuple(columns) for name, columns in groups.items()},
            tails={},
        )
        tails = {name: Tail.fit(scores) for name, scores in empty._scores(values).items()}
        return cls(states=states, alone=empty.alone, groups=empty.groups, tails=tails)

    def surprises(self, values: FloatArray) -> Surprises:
        """What every view says of statistics (N, T); NaN for an image with one not finite."""
        assert self.prepared is not None
        return self.prepared.surprises(values)

    def _scores(self, values: FloatArray) -> dict[str, FloatArray]:
        found = {JOINT: self.states.score(values)}
        for name, column in self.alone.items():
            found[name] = values[:, column]
        for group, columns in self.groups.items():
            if columns:
                found[f"{group}:{JOINT}"] = self.states.score(values, columns=columns)
            for name, column in self.alone.items():
                if column in columns:
                    found[f"{group}:{name}"] = values[:, column]
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A combined test with everything computed that does not depend on the image.

    A statistic that is looked at alone says the same within its group as over all, so it is
    ranked once. V densities come first (the joint one, then those of groups), then A statistics.

    Attributes:
        densities: The V densities.
        alone: Columns of the A statistics.
        names: Of the V + A scores, as in `CombinedTest.tails`.
        references: Their values on part A.
        thresholds: t of `Tail` (V + A,).
        scales: b of `Tail` (V + A,).
        views: Name and position of every view.
        groups: Per group the positions of its scores.
    """

    densities: Marginals
    alone: IntArray
    names: tuple[str, ...]
    references: SortedReferences
    thresholds: FloatArray
    scales: FloatArray
    views: tuple[tuple[str, int], ...]
    groups: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, test: CombinedTest) -> Prepared:
        """From a fitted test."""
        whole = tuple(range(len(test.states.median)))
        filled = {group: columns for group, columns in test.groups.items() if columns}
        names = (JOINT, *(f"{group}:{JOINT}" for group in filled), *test.alone)
        tails = [test.tails[name] for name in names]
        place = {name: position for position, name in enumerate(names)}
        return cls(
            densities=Marginals.of(test.states, (whole, *filled.values())),
            alone=np.array(list(test.alone.values()), dtype=np.int64),
            names=names,
            references=SortedReferences.of([tail.values for tail in tails]),
            thresholds=np.array([tail.threshold for tail in tails]),
            scales=np.array([tail.scale for tail in tails]),
            views=tuple((name, place[name]) for name in (JOINT, *test.alone)),
            groups=tuple(
                (
                    group,
                    (
                        *((place[f"{group}:{JOINT}"],) if columns else ()),
                        *(place[n] for n, column in test.alone.items() if column in columns),
                    ),
                )
                for group, columns in test.groups.items()
            ),
        )

    def surprises(self, values: FloatArray) -> Surprises:
        """See `CombinedTest.surprises`; each score is treated as `Tail.surprise` does."""
        broken = np.asarray(~np.isfinite(values).all(axis=1))
        alone = np.where(broken[:, None], 0.0, values[:, self.alone])
        scores = np.concatenate((self.densities.scores(values), alone), axis=1)
        counts = self.references.counts
        ranked = (1 + counts - self.references.below(scores)) / (counts + 1)
        beyond = (scores - self.thresholds) / self.scales
        nats = np.where(beyond > 0, beyond - np.log(TAIL_SHARE), -np.log(ranked))
        nats[broken] = np.nan
        return Surprises(
            views={name: nats[:, position] for name, position in self.views},
            groups={group: nats[:, list(places)].sum(axis=1) for group, places in self.groups},
        )
