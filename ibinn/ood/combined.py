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

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

TAIL_SHARE = 0.05
"""Share of part A beyond which a p-value follows an exponential tail instead of ranks."""

LOG_TAIL_SHARE = float(np.log(TAIL_SHARE))

JOINT = "density_of_states"
"""Name of the view of all statistics together."""


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
        fisher: The combined score: the sum over the views (N,).
        group_names: Names of the G groups of statistics.
        by_group: The sum within each of them (N, G).
    """

    views: Mapping[str, FloatArray]
    fisher: FloatArray
    group_names: tuple[str, ...]
    by_group: FloatArray

    @property
    def groups(self) -> dict[str, FloatArray]:
        """Group -> (N,): the sum within it."""
        return dict(zip(self.group_names, self.by_group.T, strict=True))

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
        view_names: Name of every view.
        views: Its position.
        groups: Names of the G groups.
        membership: 1 where a score counts, for all and then for each group (V + A, 1 + G).
    """

    densities: Marginals
    alone: IntArray
    names: tuple[str, ...]
    references: SortedReferences
    thresholds: FloatArray
    scales: FloatArray
    view_names: tuple[str, ...]
    views: IntArray
    groups: tuple[str, ...]
    membership: FloatArray

    @classmethod
    def of(cls, test: CombinedTest) -> Prepared:
        """From a fitted test."""
        whole = tuple(range(len(test.states.median)))
        filled = {group: columns for group, columns in test.groups.items() if columns}
        names = (JOINT, *(f"{group}:{JOINT}" for group in filled), *test.alone)
        tails = [test.tails[name] for name in names]
        views = (JOINT, *test.alone)
        sums = [
            set(views),
            *(
                {f"{group}:{JOINT}", *(n for n, column in test.alone.items() if column in columns)}
                for group, columns in test.groups.items()
            ),
        ]
        return cls(
            densities=Marginals.of(test.states, (whole, *filled.values())),
            alone=np.array(list(test.alone.values()), dtype=np.int64),
            names=names,
            references=SortedReferences.of([tail.values for tail in tails]),
            thresholds=np.array([tail.threshold for tail in tails]),
            scales=np.array([tail.scale for tail in tails]),
            view_names=views,
            views=np.array([names.index(name) for name in views], dtype=np.int64),
            groups=tuple(test.groups),
            membership=np.array([[float(name in among) for among in sums] for name in names]),
        )

    def surprises(self, values: FloatArray) -> Surprises:
        """See `CombinedTest.surprises`; each score is treated as `Tail.surprise` does."""
        finite = np.isfinite(values)
        known = values if finite.all() else np.where(finite, values, 0.0)
        scores = np.concatenate((self.densities.scores(values), known[:, self.alone]), axis=1)
        counts = self.references.counts
        ranked = (1 + counts - self.references.below(scores)) / (counts + 1)
        beyond = (scores - self.thresholds) / self.scales
        nats = np.where(beyond > 0, beyond - LOG_TAIL_SHARE, -np.log(ranked))
        if known is not values:
            nats[~finite.all(axis=1)] = np.nan
        sums = nats @ self.membership
        return Surprises(
            views=dict(zip(self.view_names, nats.T[self.views], strict=True)),
            fisher=sums[:, 0],
            group_names=self.groups,
            by_group=sums[:, 1:],
        )
