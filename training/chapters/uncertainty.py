"""How sure answers are: prediction sets of two kinds, ten crops, entropy, a confident threshold.

Shapes: N test images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from scipy.special import softmax

from ibinn.assessment import COMBINED
from ibinn.conformal import CoverageReport, coverage_report
from ibinn.errors import AlphaTooSmallError
from ibinn.metrics import nll
from ibinn.ood.p_values import beta_binomial_interval
from ibinn.ood.tolerance import CONFIDENCE, confident_alpha
from ibinn.raps import RapsFit, raps_report
from ibinn.reliability import top_label_ece
from ibinn.selective import Estimate
from ibinn.ten_crop import VIEWS, ten_crop_probabilities
from ibinn.types import SetMethod, Verdict
from training import plots
from training.calibrate import draws_of, fit_adaptive_sets
from training.chapters.base import Material, NotMeasured
from training.evaluation import Rate
from training.ood_sets import choose
from training.scoring import Scored, fitted

FloatArray = npt.NDArray[np.float64]

TARGETS = (0.9, 0.95)
ALPHAS = (0.01, 0.05)
_CROPS_AT_A_TIME = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Sets:
    """Prediction sets of one kind and target on the test images.

    Attributes:
        method: How they are made.
        quantile: Largest score of a member.
        k_reg: RAPS: last rank without penalty; None for plain sets.
        penalty: RAPS: λ; None for plain sets.
        report: Coverage overall, by class, by size, and of images that are not flagged.
    """

    method: SetMethod
    quantile: float
    k_reg: int | None
    penalty: float | None
    report: CoverageReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Crops:
    """One view against ten, on the same images.

    Attributes:
        count: Number of images.
        views: Views of an image, and the factor of the cost.
        single: (figure, value) of top-1, top-label ECE and NLL in nats, of one view.
        ten: The same of the mean posterior over ten views.
        difference: Ten minus one, paired.
    """

    count: int
    views: int
    single: tuple[tuple[str, Estimate], ...]
    ten: tuple[tuple[str, Estimate], ...]
    difference: tuple[tuple[str, Estimate], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyIncrease:
    """Mean H(y|x) on a set minus on the test images, at T = 1, in nats (Eq. 5.28)."""

    name: str
    increase: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A significance that holds on average, and the one that holds with confidence.

    Attributes:
        alpha: False-positive rate that is wanted.
        needed: Calibration images that the confident one needs.
        applied: The p-value up to which it flags; None where there are too few images.
        plain: Test images flagged at `alpha`.
        plain_low: Lower end of the central 99.9 % interval of their number.
        plain_high: Its upper end.
        confident: Test images flagged at `applied`, or None.
        misses: (set, share missed at `alpha`, share missed at `applied`).
    """

    alpha: float
    needed: int | None
    applied: float | None
    plain: Rate
    plain_low: int
    plain_high: int
    confident: Rate | None
    misses: tuple[tuple[str, float, float | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """The chapter.

    Attributes:
        class_names: Of the per-class coverages.
        calibration_count: Number n of calibration images.
        confidence: Of the confident threshold, over calibration sets.
        sets: Per target, plain and RAPS.
        adaptive_note: Why there is no RAPS, or where its fit is from; empty if in the bundle.
        crops: One view against ten.
        entropy: Per set.
        thresholds: Per significance.
    """

    class_names: tuple[str, ...]
    calibration_count: int
    confidence: float
    sets: tuple[Sets, ...]
    adaptive_note: str
    crops: Crops
    entropy: tuple[EntropyIncrease, ...]
    thresholds: tuple[Threshold, ...]


def measure(material: Material) -> Uncertainty | NotMeasured:
    """Measure the chapter; the ten crops look at `Material.limit` images."""
    reference = material.classifier.reference
    if reference is None:
        return NotMeasured(reason="the bundle is not calibrated")
    scores, labels = material.test_scores, material.test.labels
    fits, note = _adaptive_fits(material)
    not_flagged = scores.verdicts != Verdict.UNKNOWN.value
    n = reference.count_b
    sets: list[Sets] = []
    for target in TARGETS:
        quantile = reference.quantile(target)
        if quantile is not None:
            report = coverage_report(
                scores.probabilities,
                labels,
                quantile=quantile,
                target=target,
                calibration_count=n,
                not_flagged=not_flagged,
            )
            sets.append(
                Sets(
                    method=SetMethod.PLAIN,
                    quantile=quantile,
                    k_reg=None,
                    penalty=None,
                    report=report,
                )
            )
        fit = fits.get(target)
        if fit is not None:
            report = raps_report(
                scores.probabilities,
                labels,
                draws_of(material.test),
                fit=fit,
                calibration_count=n,
                not_flagged=not_flagged,
            )
            sets.append(
                Sets(
                    method=SetMethod.RAPS,
                    quantile=fit.quantile,
                    k_reg=fit.config.k_reg,
                    penalty=fit.config.penalty,
                    report=report,
                )
            )
    return Uncertainty(
        class_names=material.classifier.info.classes,
        calibration_count=n,
        confidence=CONFIDENCE,
        sets=tuple(sets),
        adaptive_note=note,
        crops=_crops(material),
        entropy=entropy_increases(
            scores, material.set_scores, draws=material.draws, seed=material.seed
        ),
        thresholds=thresholds(
            scores.p[COMBINED], {name: s.p[COMBINED] for name, s in material.set_scores.items()}, n
        ),
    )


def entropy_increases(
    test: Scored, sets: Mapping[str, Scored], *, draws: int, seed: int = 0
) -> tuple[EntropyIncrease, ...]:
    """Eq. 5.28 with bootstrap intervals over the images of both sides."""
    rng = np.random.default_rng(seed)
    own = entropies(test)
    drawn_own = _bootstrap_means(own, draws, rng)
    found = []
    for name, scored in sets.items():
        values = entropies(scored)
        drawn = _bootstrap_means(values, draws, rng) - drawn_own
        found.append(
            EntropyIncrease(name=name, increase=_estimate(values.mean() - own.mean(), drawn))
        )
    return tuple(found)


def thresholds(
    test_p: FloatArray,
    set_p: Mapping[str, FloatArray],
    calibration_count: int,
    *,
    alphas: Sequence[float] = ALPHAS,
    confidence: float = CONFIDENCE,
) -> tuple[Threshold, ...]:
    """The significance as it is and with confidence: false flags, and the misses that it costs.

    Args:
        test_p: p-values of the combined test on test images (N,), NaN where not assessed.
        set_p: The same of each set.
        calibration_count: Number n of calibration images.
        alphas: False-positive rates that are wanted.
        confidence: Over calibration sets.
    """
    assessed = test_p[~np.isnan(test_p)]
    found = []
    for alpha in alphas:
        applied, needed = None, None
        try:
            applied = confident_alpha(alpha, calibration_count, confidence=confidence)
        except AlphaTooSmallError as error:
            needed = error.needed
        low, high = beta_binomial_interval(alpha, calibration_count, len(assessed))
        found.append(
            Threshold(
                alpha=alpha,
                needed=needed,
                applied=applied,
                plain=Rate.of(int((assessed <= alpha).sum()), len(assessed)),
                plain_low=low,
                plain_high=high,
                confident=None
                if applied is None
                else Rate.of(int((assessed <= applied).sum()), len(assessed)),
                misses=tuple(
                    (
                        name,
                        float(np.mean(p > alpha)),
                        None if applied is None else float(np.mean(p > applied)),
                    )
                    for name, p in set_p.items()
                ),
            )
        )
    return tuple(found)


def compare_crops(
    single: FloatArray,
    ten: FloatArray,
    labels: npt.NDArray[np.int64],
    *,
    draws: int,
    seed: int = 0,
) -> Crops:
    """Top-1, ECE and NLL of two posteriors (N, K) on the same images, with paired intervals."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(labels), (draws, len(labels)))
    values, drawn = [], []
    for p in (single, ten):
        values.append(np.array(_figures_of(p, labels)))
        drawn.append(np.array([_figures_of(p[i], labels[i]) for i in chosen]))
    names = ("top-1", "top-label ECE", "NLL in nats")

    def named(value: FloatArray, rows: FloatArray) -> tuple[tuple[str, Estimate], ...]:
        return tuple((n, _estimate(value[i], rows[:, i])) for i, n in enumerate(names))

    return Crops(
        count=len(labels),
        views=VIEWS,
        single=named(values[0], drawn[0]),
        ten=named(values[1], drawn[1]),
        difference=named(values[1] - values[0], drawn[1] - drawn[0]),
    )


def headline(result: Uncertainty) -> dict[str, float]:
    """Coverage and size of every kind of set, for the manifest."""
    found: dict[str, float] = {}
    for sets in result.sets:
        at = f"@{sets.report.target:g}"
        overall, spared = sets.report.overall, sets.report.not_flagged
        name = f"{sets.method.value}_coverage{at}"
        figures = {
            name: overall.rate,
            f"{name}_low": overall.low,
            f"{name}_high": overall.high,
            f"{name}_count": float(overall.count),
            f"{sets.method.value}_set_size{at}": overall.mean_size,
            f"{sets.method.value}_coverage_not_flagged{at}": spared.rate if spared else None,
        }
        found |= {key: value for key, value in figures.items() if value is not None}
    return found


def figures(result: Uncertainty) -> dict[str, Figure]:
    """Coverage by class of both kinds of sets."""
    if not result.sets:
        return {}
    targets = sorted({sets.report.target for sets in result.sets})
    names = result.class_names
    if len(names) > 30:
        return {}
    figure = Figure(figsize=(plots.WIDTH_IN, 0.27 * len(names) + 1.1), layout="constrained")
    grid = figure.subplots(1, len(targets), sharey=True, squeeze=False)[0]
    places = np.arange(len(names))[::-1].astype(float)
    for axes, target in zip(grid, targets, strict=True):
        own = [sets for sets in result.sets if sets.report.target == target]
        for sets, colour, offset in zip(own, plots.COLOURS, (0.14, -0.14), strict=False):
            known = [c for c in sets.report.per_class if c.rate is not None]
            if len(known) != len(names):
                continue
            rate, low, high = (
                np.array([getattr(c, field) for c in known]) for field in ("rate", "low", "high")
            )
            axes.errorbar(
                rate, places + offset, xerr=np.stack([rate - low, high - rate]), fmt="o",
                markersize=4, color=colour, label=sets.method.value,
            )  # fmt: skip
        axes.axvline(target, color=plots.INK, linewidth=0.9, linestyle=":")
        axes.set(xlabel=f"coverage, target {target:g}", yticks=places, yticklabels=names)
        plots.style(axes)
        axes.grid(axis="y", visible=False)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, fontsize=8.5, frameon=False)
    return {"coverage": figure}


def entropies(scored: Scored) -> FloatArray:
    """H(y|x) at T = 1 in nats, (N,)."""
    p = softmax(scored.logits, axis=1)
    found: FloatArray = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1)
    return found


def _adaptive_fits(material: Material) -> tuple[dict[float, RapsFit], str]:
    """RAPS of the bundle, or else fitted here on the calibration images."""
    reference = material.classifier.reference
    assert reference is not None
    stored = {target: fit for target in TARGETS if (fit := reference.raps_fit(target))}
    if stored:
        return stored, ""
    a, b = material.calibration_a, material.calibration_b
    if a is None or b is None:
        return {}, (
            "the bundle was calibrated without adaptive sets, and its calibration images are not "
            "at hand"
        )
    steps = material.classifier.preprocessing
    part_a, part_b = (
        material.scorer.images(fitted(images, steps), f"calibration part {name}", finish=True)
        for name, images in (("A", a), ("B", b))
    )
    fits = {
        target: fit_adaptive_sets(
            part_a.probabilities, a, part_b.probabilities, b, coverage=target, seed=material.seed
        )
        for target in TARGETS
    }
    return fits, "fitted for this report: the bundle was calibrated without adaptive sets"


def _crops(material: Material) -> Crops:
    test = material.test
    chosen = choose(len(test), material.limit, seed=material.seed)
    steps = material.classifier.preprocessing
    # Where the shorter side is resized, the views lie in the original.
    at_size = fitted(test, steps)
    load = test.load if steps.config.shorter_side is not None else at_size.__getitem__
    parts = []
    for start in range(0, len(chosen), _CROPS_AT_A_TIME):
        indices = chosen[start : start + _CROPS_AT_A_TIME]
        parts.append(ten_crop_probabilities(material.classifier, [load(int(i)) for i in indices]))
        if material.progress is not None:
            material.progress("ten crops", start + len(indices), len(chosen))
    return compare_crops(
        material.test_scores.probabilities[chosen],
        np.concatenate(parts),
        test.labels[chosen],
        draws=material.draws,
        seed=material.seed,
    )


def _figures_of(p: FloatArray, labels: npt.NDArray[np.int64]) -> tuple[float, float, float]:
    return float(np.mean(p.argmax(axis=1) == labels)), top_label_ece(p, labels), nll(p, labels)


def _bootstrap_means(values: FloatArray, draws: int, rng: np.random.Generator) -> FloatArray:
    return np.array(
        [values[rng.integers(0, len(values), len(values))].mean() for _ in range(draws)]
    )


def _estimate(value: float, drawn: FloatArray) -> Estimate:
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Estimate(value=float(value), low=float(low), high=float(high))
