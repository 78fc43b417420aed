"""What a policy will do per 1,000 images, counted on labelled images and from known miss rates.

Of known images everything is counted on held-out images. Of unknown ones a bundle knows only the
share of each kind that its combined test misses; whether a missed one is then accepted depends on
its posterior, so the misses are an upper bound on what is accepted of them.

Intervals are Clopper-Pearson at 95 %. Where the images are those that the policy was fitted on,
the errors are a little too good (the certificate says what holds); the other counts are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ibinn.errors import ConfigError, DataError
from ibinn.metrics import clopper_pearson
from ibinn.policy.decision import Answers, decide_many
from ibinn.policy.values import Policy
from ibinn.types import Group, TestInfo

_NORMAL_95 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of images with its 95 % interval.

    Attributes:
        hits: Images counted.
        count: Of how many.
        value: hits / count.
        low: Lower end of the interval.
        high: Its upper end.
    """

    hits: int
    count: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, hits: int, count: int) -> Share:
        """The share of `hits` among `count` >= 1."""
        low, high = clopper_pearson(hits, count)
        return cls(hits=hits, count=count, value=hits / count, low=low, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What happens to images, as shares of the known and of the unknown ones.

    Attributes:
        unknown_share: Share of unknown images in the mix.
        accepted: ACCEPT among the known images.
        deferred: DEFER among them.
        rejected: REJECT_INPUT among them.
        errors: Accepted with another class than the truth, among them.
        false_alarms: Called unknown or unusual of their class, among them.
        risk: Errors among those accepted, or None where none is accepted.
        mean_cost: Mean cost of a known image.
        mean_cost_low: Lower end of its 95 % interval (normal approximation).
        mean_cost_high: Its upper end.
        missed: (kind of unknown image, share that the combined test does not flag), at the
            policy's α or the next smaller one that is known; empty where none is.
    """

    unknown_share: float
    accepted: Share
    deferred: Share
    rejected: Share
    errors: Share
    false_alarms: Share
    risk: Share | None
    mean_cost: float
    mean_cost_low: float
    mean_cost_high: float
    missed: tuple[tuple[str, float], ...]

    def per_thousand_known(self, share: float) -> float:
        """Number among 1,000 images of the mix, for a share of the known ones."""
        return 1000 * (1 - self.unknown_share) * share

    def per_thousand_unknown(self, share: float) -> float:
        """Number among 1,000 images of the mix, for a share of the unknown ones."""
        return 1000 * self.unknown_share * share

    @property
    def mean_missed(self) -> float | None:
        """Mean of the miss rates over the kinds of unknown images, or None."""
        return math.fsum(m for _, m in self.missed) / len(self.missed) if self.missed else None


def forecast(
    policy: Policy,
    answers: Answers,
    labels: npt.NDArray[np.int64],
    *,
    unknown_share: float = 0.0,
    missed: Sequence[tuple[str, float]] = (),
) -> Forecast:
    """What the policy does with images like these.

    Args:
        policy: The policy.
        answers: The model's answers for known images (n), n >= 1.
        labels: Their classes (n,).
        unknown_share: Share of unknown images in the mix, in [0, 1].
        missed: See `Forecast.missed`, and `known_misses`.

    Raises:
        ConfigError: `unknown_share` is not in [0, 1].
        DataError: No images, or labels that do not fit them.
    """
    if not 0 <= unknown_share <= 1:
        raise ConfigError(f"the share of unknown images is {unknown_share:g}; expected 0 to 1")
    if len(answers) == 0 or labels.shape != (len(answers),):
        raise DataError(
            f"there are {len(answers)} answers and labels of shape {labels.shape}; expected as "
            "many of both, at least 1"
        )
    made = decide_many(policy, answers)
    accepted, wrong = made.accepted, made.classes != labels
    costs = policy.costs
    cost = np.select(
        [accepted, made.rejected],
        [np.array(costs.act)[labels, made.classes], np.full(len(labels), costs.reject)],
        default=costs.defer,
    )
    n = len(labels)
    mean = float(cost.mean())
    spread = _NORMAL_95 * float(cost.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf

    def share(mask: npt.NDArray[np.bool_]) -> Share:
        return Share.of(int(mask.sum()), n)

    return Forecast(
        unknown_share=unknown_share,
        accepted=share(accepted),
        deferred=share(made.deferred),
        rejected=share(made.rejected),
        errors=share(accepted & wrong),
        false_alarms=share(made.flagged),
        risk=Share.of(int((accepted & wrong).sum()), int(accepted.sum()))
        if accepted.any()
        else None,
        mean_cost=mean,
        mean_cost_low=max(0.0, mean - spread),
        mean_cost_high=mean + spread,
        missed=tuple(missed),
    )


def known_misses(tests: Sequence[TestInfo], alpha: float) -> tuple[tuple[str, float], ...]:
    """Miss rate of the combined test per kind of unknown image, at most `alpha` strict.

    Args:
        tests: The model's tests, with the miss rates that its report measured.
        alpha: Significance of the policy. Where it was not measured, the largest smaller one
            stands for it: at that one more is missed, never less.
    """
    rates: dict[str, tuple[float, float]] = {}
    for test in tests:
        if test.group is not Group.COMBINED:
            continue
        for name, measured_at, rate in test.miss_rates:
            if measured_at <= alpha and (name not in rates or measured_at > rates[name][0]):
                rates[name] = (measured_at, rate)
    return tuple((name, rate) for name, (_, rate) in rates.items())
