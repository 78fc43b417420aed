"""Membership inference: whether the model tells its training images from others.

Two questions have one answer. For privacy: can someone with an image find out, from what the
model says of it, whether it was trained on? For calibration: if training images score like
others, they could have served as calibration images; if not, p-values ranked against them lie.

Shapes: N training images, M held-out test images (as many), K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from scipy.special import log_softmax

from ibinn.assessment import COMBINED
from ibinn.metrics import auroc
from ibinn.ood.p_values import beta_binomial_interval, p_values, reference
from ibinn.selective import Estimate, estimate
from ibinn.types import TestKind
from training import plots
from training.chapters.base import Material, NotMeasured
from training.ood_sets import choose
from training.scoring import Scored, fitted

FloatArray = npt.NDArray[np.float64]

SETS_OF_LIMIT = 3
"""Images per side, in units of `Material.limit`: an AUROC near 0.5 needs more than a picture."""

FALSE_POSITIVE_RATE = 0.01
ALPHAS = (0.01, 0.05)
CURVE_POINTS = 101


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One number by which members are guessed.

    Attributes:
        name: Of the number, in words.
        needs_label: Whether the attacker must know the image's class.
        auroc: P(a training image looks more like a member than a held-out one); 0.5 is chance.
        true_positive_rate: Training images found where 1 % of held-out images are taken for
            training images; 0.01 is chance.
        finds_members: Whether the AUROC's interval lies above 0.5.
    """

    name: str
    needs_label: bool
    auroc: Estimate
    true_positive_rate: Estimate
    finds_members: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCalibration:
    """What would have happened had training images been the calibration images.

    Attributes:
        alpha: Significance.
        count: Held-out test images.
        flags: Test images flagged by the combined test ranked against training images.
        rate: flags / count.
        low: Lower end of the central 99.9 % beta-binomial interval of `flags`.
        high: Its upper end.
        right: low <= flags <= high.
    """

    alpha: float
    count: int
    flags: int
    rate: float
    low: int
    high: int
    right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RocLine:
    """Share of training images found against share of held-out images taken for such."""

    name: str
    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """Training images against held-out ones.

    Attributes:
        count: Images of each kind.
        draws: Bootstrap draws behind every interval.
        accuracy_train: Top-1 on the training images looked at, without augmentation.
        accuracy_test: Top-1 on the held-out images.
        attacks: The strongest first.
        statistics: Number of single statistics that were tried.
        strongest_statistic: The statistic whose AUROC is farthest from 0.5.
        strongest_auroc: max(AUROC, 1 - AUROC) of it: the best of `statistics` looks at the same
            images, and so too high.
        calibration: p-values ranked against training images, at each significance.
        lines: For the figure.
    """

    count: int
    draws: int
    accuracy_train: float
    accuracy_test: float
    attacks: tuple[Attack, ...]
    statistics: int
    strongest_statistic: str
    strongest_auroc: float
    calibration: tuple[TrainingCalibration, ...]
    lines: tuple[RocLine, ...]


def measure(material: Material) -> Membership | NotMeasured:
    """Score training images as test images were scored, and compare."""
    if material.train is None:
        return NotMeasured(
            reason="the training images are not at hand: the split of the run cannot be made again"
        )
    count = min(len(material.train), len(material.test), SETS_OF_LIMIT * material.limit)
    members = material.train.subset(choose(len(material.train), count, seed=material.seed))
    others = choose(len(material.test), count, seed=material.seed + 1)
    scored = material.scorer.images(
        fitted(members, material.classifier.preprocessing), "training images", finish=True
    )
    return compare(
        scored,
        members.labels,
        taken(material.test_scores, others),
        material.test.labels[others],
        draws=material.draws,
        seed=material.seed,
    )


def taken(scored: Scored, indices: list[int]) -> Scored:
    """The scores of some of the images."""

    def of(values: Any) -> Any:
        if isinstance(values, Mapping):
            return {name: array[indices] for name, array in values.items()}
        return values[indices]

    return Scored(**{field.name: of(getattr(scored, field.name)) for field in fields(scored)})


def compare(
    train: Scored,
    train_labels: npt.NDArray[np.int64],
    test: Scored,
    test_labels: npt.NDArray[np.int64],
    *,
    draws: int,
    seed: int,
) -> Membership:
    """Every figure of the chapter.

    Args:
        train: Scores of training images.
        train_labels: Their classes.
        test: Scores of held-out images.
        test_labels: Their classes.
        draws: Bootstrap draws.
        seed: Of the draws.
    """
    inside, outside = _guesses(train, train_labels), _guesses(test, test_labels)
    attacks = [
        attack(name, inside[name], outside[name], needs_label=label, draws=draws, seed=seed)
        for name, label in _GUESSES
    ]
    attacks.sort(key=lambda found: -found.auroc.value)
    areas = {
        name: auroc(_finite(test.statistics[name]), _finite(train.statistics[name]))
        for name in train.statistics
    }
    strongest = max(areas, key=lambda name: abs(areas[name] - 0.5))
    return Membership(
        count=len(train),
        draws=draws,
        accuracy_train=_accuracy(train, train_labels),
        accuracy_test=_accuracy(test, test_labels),
        attacks=tuple(attacks),
        statistics=len(areas),
        strongest_statistic=strongest,
        strongest_auroc=max(areas[strongest], 1.0 - areas[strongest]),
        calibration=_calibrated_on(train.unusual[COMBINED], test.unusual[COMBINED]),
        lines=tuple(_line(name, inside[name], outside[name]) for name, _ in _GUESSES),
    )


def attack(
    name: str,
    members: FloatArray,
    others: FloatArray,
    *,
    needs_label: bool,
    draws: int,
    seed: int,
) -> Attack:
    """AUROC and true positive rate at 1 % false positives, with bootstrap intervals.

    Args:
        name: For the table.
        members: Guess for each training image, high: a member (N,).
        others: Guess for each held-out image (M,).
        needs_label: For the table.
        draws: Bootstrap draws over both sets.
        seed: Of the draws.
    """
    found = _finite(members), _finite(others)
    rng = np.random.default_rng(seed)
    areas, rates = np.empty(draws), np.empty(draws)
    for draw in range(draws):
        inside, outside = (rng.choice(values, size=len(values)) for values in found)
        areas[draw] = auroc(outside, inside)
        rates[draw] = true_positive_rate(inside, outside)
    area = estimate(auroc(found[1], found[0]), areas)
    return Attack(
        name=name,
        needs_label=needs_label,
        auroc=area,
        true_positive_rate=estimate(true_positive_rate(*found), rates),
        finds_members=area.low > 0.5,
    )


def true_positive_rate(
    members: FloatArray, others: FloatArray, *, false_positive_rate: float = FALSE_POSITIVE_RATE
) -> float:
    """Share of members above the threshold that this share of the others is above.

    Args:
        members: Guesses, high: a member (N,).
        others: Guesses (M,).
        false_positive_rate: In (0, 1). Members *on* the threshold do not count: with many equal
            guesses the false positive rate stays below.
    """
    threshold = np.quantile(others, 1.0 - false_positive_rate, method="higher")
    return float(np.mean(members > threshold))


def figures(result: Membership) -> dict[str, Figure]:
    """ROC of every attack, both axes logarithmic: what counts is the corner of few mistakes."""
    figure = Figure(figsize=(5.4, 3.9), layout="constrained")
    axes = figure.subplots()
    low = 1e-3
    chance = np.geomspace(low, 1, 50)
    axes.plot(chance, chance, color=plots.FAINT, linewidth=1, linestyle=(0, (4, 3)), label="chance")
    for line, colour in zip(result.lines, plots.COLOURS, strict=False):
        axes.plot(
            line.false_positive_rate, line.true_positive_rate, color=colour, linewidth=1.4,
            label=line.name,
        )  # fmt: skip
    axes.axvline(FALSE_POSITIVE_RATE, color=plots.INK, linewidth=0.9, linestyle=":")
    axes.set(
        xscale="log", yscale="log", xlim=(low, 1), ylim=(low, 1),
        xlabel="share of held-out images taken for training images",
        ylabel="share of training images found",
    )  # fmt: skip
    plots.style(axes)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    return {"roc": figure}


_GUESSES = (
    ("likelihood log q(x)", False),
    ("p-value of the combined test", False),
    ("score of the combined test", False),
    ("largest posterior", False),
    ("loss −log q(y|x) of the label", True),
)
"""(name, whether the label is needed); `_guesses` gives their values."""


def _guesses(scored: Scored, labels: npt.NDArray[np.int64]) -> dict[str, FloatArray]:
    log_posterior = log_softmax(scored.logits, axis=1)
    values = (
        -scored.bits_per_dim,
        scored.p[COMBINED],
        -scored.unusual[COMBINED],
        scored.probabilities.max(axis=1),
        log_posterior[np.arange(len(labels)), labels],
    )
    return {name: column for (name, _), column in zip(_GUESSES, values, strict=True)}


def _calibrated_on(train: FloatArray, test: FloatArray) -> tuple[TrainingCalibration, ...]:
    ranks, kind = reference(_finite(train), TestKind.HIGH_IS_UNUSUAL), TestKind.HIGH_IS_UNUSUAL
    p = p_values(_finite(test), ranks, kind)

    def at(alpha: float) -> TrainingCalibration:
        flags = int((p <= alpha).sum())
        low, high = beta_binomial_interval(alpha, len(ranks), len(p), kind=kind)
        return TrainingCalibration(
            alpha=alpha, count=len(p), flags=flags, rate=flags / len(p), low=low, high=high,
            right=low <= flags <= high,
        )  # fmt: skip

    return tuple(at(alpha) for alpha in ALPHAS)


def _line(name: str, members: FloatArray, others: FloatArray) -> RocLine:
    inside, outside = np.sort(_finite(members)), np.sort(_finite(others))
    at = np.geomspace(1e-3, 1.0, CURVE_POINTS)
    thresholds = np.quantile(outside, 1.0 - at, method="higher")
    return RocLine(
        name=name,
        false_positive_rate=tuple(at.tolist()),
        true_positive_rate=tuple(
            (1.0 - np.searchsorted(inside, thresholds, side="right") / len(inside)).tolist()
        ),
    )


def _accuracy(scored: Scored, labels: npt.NDArray[np.int64]) -> float:
    return float(np.mean(scored.probabilities.argmax(axis=1) == labels))


def _finite(values: FloatArray) -> FloatArray:
    return values[np.isfinite(values)]
