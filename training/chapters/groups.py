"""The worst groups: false alarms, accuracy, coverage and misses where they are worst.

What is promised holds over all images; here every group is looked at, and the worst is named with
an interval that knows how many groups were looked at (Bonferroni).

Shapes: N test images, n calibration images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ibinn.assessment import COMBINED
from ibinn.conformal import prediction_set
from ibinn.metrics import clopper_pearson
from ibinn.ood.class_wise import class_alphas, class_references, class_wise_p_values
from ibinn.reference import Reference
from ibinn.types import ModelInfo
from training import plots
from training.chapters.base import Material, NotMeasured
from training.scoring import Scored

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

ALPHAS = (0.01, 0.05)
SMALLEST = 50
"""Groups with fewer images are shown, but not named as the worst."""

LEVEL = 0.95
DETAIL = "encoded_bits_per_dim"
"""Statistic that tells how much detail an image has; groups are left out without it."""

TERCILES = ("lowest third", "middle third", "highest third")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRate:
    """A share in one group.

    Attributes:
        kind: How the images were grouped, such as ``true class``.
        group: The group's name.
        count: Images in it.
        hits: How many have the property.
        value: hits / count.
        low: Lower end of the Clopper-Pearson interval that holds for all groups of the table
            together with 95 % (Bonferroni).
        high: Its upper end.
    """

    kind: str
    group: str
    count: int
    hits: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """One property over all groups.

    Attributes:
        name: ``false_alarms``, ``accuracy``, ``coverage`` or ``misses``.
        overall: The same over all images, or None for misses, which have no common total.
        groups: Every group with an image.
        compared: Number of groups that the intervals are adjusted for.
        worst: The worst group of at least `SMALLEST` images, or None.
        shown: Whether the worst is shown to be worse than all images together: its interval
            excludes `overall`; None like it.
    """

    name: str
    overall: float | None
    groups: tuple[GroupRate, ...]
    compared: int
    worst: GroupRate | None
    shown: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassThreshold:
    """The combined test within one predicted class.

    Attributes:
        class_name: The predicted class.
        alpha: Significance.
        calibration_count: Calibration images n of it.
        needed: Calibration images that `alpha` needs; with fewer it is refused.
        count: Test images of it.
        common: False-alarm rate of the common threshold on them.
        own: That of the class's own threshold; None where it is refused.
    """

    class_name: str
    alpha: float
    calibration_count: int
    needed: int
    count: int
    common: float | None
    own: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """The chapter.

    Attributes:
        alpha: Significance of the verdict, at which false alarms and misses are counted.
        coverage_target: Of the plain prediction sets, or None where there are none.
        test_count: Test images.
        smallest: Fewest images of a group that is named as the worst.
        properties: False alarms, accuracy, coverage, misses.
        class_wise: Per significance and predicted class.
    """

    alpha: float
    coverage_target: float | None
    test_count: int
    smallest: int
    properties: tuple[Property, ...]
    class_wise: tuple[ClassThreshold, ...]

    def named(self, name: str) -> Property | None:
        """One property by its name."""
        return next((p for p in self.properties if p.name == name), None)


def measure(material: Material) -> Groups | NotMeasured:
    """Group the test images in every way and find the worst group of each property."""
    reference = material.classifier.reference
    if reference is None:
        return NotMeasured(reason="the bundle is not calibrated")
    brightness = material.test.thumbnails.reshape(len(material.test), -1).mean(axis=1)
    return compare(
        material.test_scores,
        material.test.labels,
        material.set_scores,
        info=material.classifier.info,
        reference=reference,
        brightness=brightness,
    )


def compare(
    test: Scored,
    labels: IntArray,
    sets: Mapping[str, Scored],
    *,
    info: ModelInfo,
    reference: Reference,
    brightness: FloatArray,
) -> Groups:
    """The chapter's figures.

    Args:
        test: Scores of the test images.
        labels: Their classes (N,).
        sets: Scores of the out-of-distribution sets.
        info: Of the model.
        reference: Its calibration.
        brightness: Mean pixel value of the test images (N,).
    """
    predicted = test.probabilities.argmax(axis=1)
    groupings = {
        "true class": _by_class(labels, info.classes),
        "predicted class": _by_class(predicted, info.classes),
        "brightness": _terciles(brightness),
        "confidence": _terciles(test.probabilities.max(axis=1)),
    }
    if DETAIL in test.statistics:
        groupings["detail"] = _terciles(test.statistics[DETAIL])
    flagged = test.p[COMBINED] <= info.alpha
    properties = [
        property_of("false_alarms", flagged, groupings, worst_is_high=True),
        property_of(
            "accuracy", predicted == labels, groupings, worst_is_high=False, unnamed=("confidence",)
        ),
    ]
    quantile = reference.quantile(info.conformal_coverage)
    if quantile is not None:
        held = prediction_set(test.probabilities, quantile)[np.arange(len(labels)), labels]
        properties.append(property_of("coverage", held, groupings, worst_is_high=False))
    if sets:
        properties.append(_misses(sets, info))
    return Groups(
        alpha=info.alpha,
        coverage_target=None if quantile is None else info.conformal_coverage,
        test_count=len(labels),
        smallest=SMALLEST,
        properties=tuple(properties),
        class_wise=class_wise(test, info.classes, reference),
    )


def property_of(
    name: str,
    has_it: BoolArray,
    groupings: Mapping[str, Mapping[str, BoolArray]],
    *,
    worst_is_high: bool,
    unnamed: Sequence[str] = (),
) -> Property:
    """A property over all groups, with intervals that hold for all of them together.

    Args:
        name: Of the property.
        has_it: Which images have it (N,).
        groupings: Kind of grouping -> group -> its images (N,).
        worst_is_high: Whether a large share is bad.
        unnamed: Kinds of grouping that are shown but never named as the worst, because they
            differ by their making.
    """
    cells = [
        (kind, group, has_it[mask])
        for kind, groups in groupings.items()
        for group, mask in groups.items()
        if mask.any()
    ]
    return _property(
        name, cells, overall=float(has_it.mean()), worst_is_high=worst_is_high, unnamed=unnamed
    )


def class_wise(
    test: Scored, class_names: Sequence[str], reference: Reference
) -> tuple[ClassThreshold, ...]:
    """The combined test with a threshold for each predicted class; empty in older bundles."""
    if reference.held_out is None:
        return ()
    own_classes = reference.held_out.logits.argmax(axis=1)
    references = class_references(_part_b_scores(reference), own_classes, count=len(class_names))
    predicted = test.probabilities.argmax(axis=1)
    own_p = class_wise_p_values(test.unusual[COMBINED], predicted, references)
    common_p = test.p[COMBINED]
    found = []
    for alpha in ALPHAS:
        for allowed in class_alphas(alpha, references):
            mask = predicted == allowed.class_index
            count = int(mask.sum())
            found.append(
                ClassThreshold(
                    class_name=class_names[allowed.class_index],
                    alpha=alpha,
                    calibration_count=allowed.calibration_count,
                    needed=allowed.needed,
                    count=count,
                    common=float(np.mean(common_p[mask] <= alpha)) if count else None,
                    own=float(np.mean(own_p[mask] <= alpha)) if count and allowed.allowed else None,
                )
            )
    return tuple(found)


def headline(result: Groups) -> dict[str, float]:
    """The worst group of each property, for the manifest."""
    names = {"accuracy": "accuracy", "false_alarms": "false_alarm_rate", "misses": "miss_rate"}
    if result.coverage_target is not None:
        names["coverage"] = f"plain_coverage@{result.coverage_target:g}"
    found: dict[str, float] = {}
    for measured in result.properties:
        worst = measured.worst
        if worst is not None and measured.name in names:
            key = f"{names[measured.name]}:{worst.kind} {worst.group}"
            found |= {
                key: worst.value,
                f"{key}_low": worst.low,
                f"{key}_high": worst.high,
                f"{key}_count": float(worst.count),
            }
    return found


def figures(result: Groups) -> dict[str, Figure]:
    """False alarms, accuracy and coverage of every group with their intervals."""
    shown = [p for p in result.properties if p.overall is not None]
    if not shown or len(shown[0].groups) > 60:
        return {}
    rows = [(g.kind, g.group) for g in shown[0].groups]
    figure = Figure(figsize=(plots.WIDTH_IN, 0.21 * len(rows) + 0.9), layout="constrained")
    grid = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    places = np.arange(len(rows))[::-1].astype(float)
    kinds = list(dict.fromkeys(kind for kind, _ in rows))
    for axes, measured in zip(grid, shown, strict=True):
        value, low, high = (
            np.array([getattr(g, field) for g in measured.groups])
            for field in ("value", "low", "high")
        )
        for kind, colour in zip(kinds, plots.COLOURS, strict=False):
            own = np.array([k == kind for k, _ in rows])
            axes.errorbar(
                value[own], places[own], xerr=np.stack([(value - low)[own], (high - value)[own]]),
                fmt="o", markersize=3.5, elinewidth=1, color=colour,
            )  # fmt: skip
        axes.axvline(measured.overall, color=plots.INK, linewidth=0.9, linestyle=":")
        axes.set(
            xlabel=measured.name.replace("_", " "),
            yticks=places,
            yticklabels=[f"{kind}: {group}" for kind, group in rows],
        )
        plots.style(axes)
        axes.grid(axis="y", visible=False)
    return {"groups": figure}


def _misses(sets: Mapping[str, Scored], info: ModelInfo) -> Property:
    cells = []
    for name, scored in sets.items():
        predicted = scored.probabilities.argmax(axis=1)
        missed = scored.p[COMBINED] > info.alpha
        cells += [
            (name, f"answered {group}", missed[mask])
            for group, mask in _by_class(predicted, info.classes).items()
            if mask.any()
        ]
    return _property("misses", cells, overall=None, worst_is_high=True)


def _property(
    name: str,
    cells: Sequence[tuple[str, str, BoolArray]],
    *,
    overall: float | None,
    worst_is_high: bool,
    unnamed: Sequence[str] = (),
) -> Property:
    level = 1.0 - (1.0 - LEVEL) / max(1, len(cells))
    rates = []
    for kind, group, values in cells:
        hits, count = int(values.sum()), len(values)
        low, high = clopper_pearson(hits, count, level=level)
        rates.append(
            GroupRate(
                kind=kind, group=group, count=count, hits=hits, value=hits / count, low=low,
                high=high,
            )
        )  # fmt: skip
    large = [rate for rate in rates if rate.count >= SMALLEST and rate.kind not in unnamed]
    sign = 1 if worst_is_high else -1
    worst = max(large, key=lambda rate: sign * rate.value, default=None)
    shown = None
    if worst is not None and overall is not None:
        shown = worst.low > overall if worst_is_high else worst.high < overall
    return Property(
        name=name,
        overall=overall,
        groups=tuple(rates),
        compared=len(cells),
        worst=worst,
        shown=shown,
    )


def _part_b_scores(reference: Reference) -> FloatArray:
    """Combined scores of part B in the order of `Reference.held_out`, from their ranks.

    The held-out p-value of an image of part B is (1 + #{others >= s})/n, which is its place in
    the sorted scores.
    """
    assert reference.held_out is not None
    n = len(reference.combined)
    others = np.rint(reference.held_out.combined_p * n).astype(np.int64) - 1
    return reference.combined[np.clip(n - 1 - others, 0, n - 1)]


def _by_class(classes: IntArray, names: Sequence[str]) -> dict[str, BoolArray]:
    return {name: classes == index for index, name in enumerate(names)}


def _terciles(values: FloatArray) -> dict[str, BoolArray]:
    """Thirds of the images by a value; ties go to the lower third."""
    place = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    third = 3 * place // len(values)
    return {name: third == index for index, name in enumerate(TERCILES)}
