"""What common corruptions do to accuracy, calibration and verdicts.

Fifteen corruptions at five severities (`training.corruptions`) of the same test images, taken at
the model's input size and then through the rest of its preprocessing like every other image.

The full-spectrum view (Yang et al. 2023): a mildly corrupted image still shows its class. A test
that calls it unknown should do so where the classifier goes wrong, and not more often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training import plots
from training.chapters.base import Material, NotMeasured
from training.chapters.conditions import Condition, Judged, joined, judge, share, wrong_auroc
from training.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from training.discriminative import softmax_logits
from training.evaluation import Rate
from training.image_set import ImageSet
from training.ood_sets import OodSet, Pixels, choose
from training.scoring import FloatArray, fitted

PER_CONDITION = 500
"""Most images per corruption and severity: there are 75 conditions."""

MILD = (1, 2)
"""Severities of the full-spectrum view."""

CLEAN = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptionSummary:
    """One corruption, averaged over its severities.

    Attributes:
        corruption: Name.
        accuracy: Mean accuracy.
        top_label_ece: Mean ECE.
        nll_nats: Mean NLL.
        unknown: Mean share UNKNOWN.
        ambiguous: Mean share AMBIGUOUS.
        accepted_error: Errors over all NOT_FLAGGED images of all severities.
        wrong_auroc: Of all severities' images together.
        comparator_accuracy: Mean of the comparator's, or None.
        relative_error: Own summed error over the comparator's (the corruption error of the
            paper, with our comparator in the place of AlexNet), or None.
    """

    corruption: str
    accuracy: float
    top_label_ece: float
    nll_nats: float
    unknown: float
    ambiguous: float
    accepted_error: Rate
    wrong_auroc: float | None
    comparator_accuracy: float | None
    relative_error: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Corruptions:
    """The chapter.

    Attributes:
        images: Test images per condition, the same for all.
        alpha: Of the verdict.
        clean: The same images undamaged.
        conditions: In the order of the paper, severities ascending.
        summaries: One per corruption.
        mean_error: Mean error rate over all conditions.
        comparator_mean_error: The comparator's, or None.
        mean_relative_error: Mean of `CorruptionSummary.relative_error` (mCE), or None.
        wrong_auroc: Of all damaged images together, or None.
        mild: Severities of the full-spectrum view.
        offenders: Mild conditions flagged more often than wrongly answered: the whole interval
            of `flags_over_errors` lies above 0.
        undecided: Mild conditions whose interval holds 0 while the mean lies above it.
        added_offenders: The stricter view: the interval of `flags_over_added_errors` lies above 0.
    """

    images: int
    alpha: float
    clean: Condition
    conditions: tuple[Condition, ...]
    summaries: tuple[CorruptionSummary, ...]
    mean_error: float
    comparator_mean_error: float | None
    mean_relative_error: float | None
    wrong_auroc: float | None
    mild: tuple[int, ...]
    offenders: tuple[str, ...]
    undecided: tuple[str, ...]
    added_offenders: tuple[str, ...]


def measure(material: Material) -> Corruptions | NotMeasured:
    """Damage test images in every way, score them, and compare with the undamaged ones."""
    if len(material.test) == 0:
        return NotMeasured(reason="there are no test images to damage")
    count = min(material.limit, PER_CONDITION)
    test = material.test.subset(choose(len(material.test), count, seed=material.seed))
    images = fitted(test, material.classifier.preprocessing)
    sized = [np.asarray(images[index]) for index in range(len(images))]
    clean = _judged(material, test, sized, CLEAN, 0, None)
    found = []
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            damaged = [corrupt(image, name, severity, seed=material.seed) for image in sized]
            found.append(_judged(material, test, damaged, name, severity, clean))
            if material.progress is not None:
                done = len(found)
                material.progress("corruptions", done, len(CORRUPTIONS) * len(SEVERITIES))
    return summarise(
        alpha=material.classifier.significance.alpha, count=len(test), clean=clean, found=found
    )


def summarise(*, alpha: float, count: int, clean: Judged, found: Sequence[Judged]) -> Corruptions:
    """The chapter from all its conditions."""
    conditions = [m.condition for m in found]
    summaries = tuple(
        _summary(name, [m for m in found if m.condition.corruption == name])
        for name in dict.fromkeys(c.corruption for c in conditions)
    )
    comparator = [1 - s.comparator_accuracy for s in summaries if s.comparator_accuracy is not None]
    relative = [s.relative_error for s in summaries if s.relative_error is not None]
    mild = [c for c in conditions if c.severity in MILD]
    return Corruptions(
        images=count,
        alpha=alpha,
        clean=clean.condition,
        conditions=tuple(conditions),
        summaries=summaries,
        mean_error=1 - _mean([s.accuracy for s in summaries]),
        comparator_mean_error=_mean(comparator) if comparator else None,
        mean_relative_error=_mean(relative) if relative else None,
        wrong_auroc=wrong_auroc(*joined(found)[:2]),
        mild=MILD,
        offenders=tuple(_title(c) for c in mild if c.flags_over_errors.low > 0),
        undecided=tuple(
            _title(c) for c in mild if c.flags_over_errors.low <= 0 < c.flags_over_errors.value
        ),
        added_offenders=tuple(
            _title(c)
            for c in mild
            if c.flags_over_added_errors is not None and c.flags_over_added_errors.low > 0
        ),
    )


def headline(result: Corruptions) -> dict[str, float]:
    """Accuracy over all damaged images and the number of offenders, for the manifest."""
    return {
        "corrupted_accuracy": 1 - result.mean_error,
        "mild_corruptions_flagged_too_often": float(len(result.offenders)),
    }


def figures(result: Corruptions) -> dict[str, Figure]:
    """Tables in colour of accuracy and of verdicts, and flags against errors."""
    names = [s.corruption for s in result.summaries]
    severities = sorted({c.severity for c in result.conditions})
    shape = (len(names), len(severities))
    accuracy = np.array([c.accuracy.value for c in result.conditions], dtype=float).reshape(shape)
    unknown = np.array([c.unknown.value for c in result.conditions], dtype=float).reshape(shape)
    table = Figure(figsize=(plots.WIDTH_IN, 0.27 * len(names) + 0.9), layout="constrained")
    left, right = table.subplots(1, 2, sharey=True)
    _heat_table(left, accuracy, "right answers, %", "Blues")
    _heat_table(right, unknown, "called unknown, %", "Oranges")
    left.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    for axes in (left, right):
        axes.set_xticks(range(len(severities)), [str(severity) for severity in severities])
        axes.set_xlabel("severity")
    return {"table": table, "flags": _flags_against_errors(result)}


def _heat_table(axes: Axes, values: FloatArray, title: str, colours: str) -> None:
    axes.imshow(values, cmap=colours, vmin=0.0, vmax=1.15, aspect="auto")
    for row, column in np.ndindex(*values.shape):
        value = values[row, column]
        axes.text(
            column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7.5,
            color="white" if value > 0.75 else plots.INK,
        )  # fmt: skip
    axes.set_title(title, fontsize=9, color=plots.INK, loc="left")
    axes.tick_params(colors=plots.INK, labelsize=8, length=0)
    axes.xaxis.label.set(color=plots.INK, size=9)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _flags_against_errors(result: Corruptions) -> Figure:
    figure = Figure(figsize=(4.8, 3.9), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [result.alpha, 1 + result.alpha], color=plots.FAINT, linestyle=(0, (4, 3)))
    for mild, colour, marker in ((True, plots.COLOURS[0], "o"), (False, plots.COLOURS[1], "^")):
        chosen = [c for c in result.conditions if (c.severity in result.mild) is mild]
        axes.plot(
            [1 - (c.accuracy.value or 0.0) for c in chosen],
            [c.unknown.value or 0.0 for c in chosen],
            marker, color=colour, markersize=4.5, alpha=0.8,
            label="severity 1 and 2" if mild else "severity 3 to 5",
        )  # fmt: skip
    axes.set(
        xlabel="share of wrong answers", ylabel="share called unknown",
        xlim=(0, 1), ylim=(-0.02, 1.02),
    )  # fmt: skip
    plots.style(axes)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return figure


def _judged(
    material: Material,
    test: ImageSet,
    sized: Sequence[Pixels],
    name: str,
    severity: int,
    clean: Judged | None,
) -> Judged:
    preprocessing = material.classifier.preprocessing
    finished = np.stack([preprocessing.finish(image) for image in sized])
    what = f"{name} {severity}" if severity else "undamaged images"
    scored = material.scorer.ood(
        OodSet(name=what, description=what, images=finished, finished=True), finish=False
    )
    comparator = None
    if material.comparator is not None:
        logits = softmax_logits(material.comparator, finished, preprocessing)
        comparator = share(logits.argmax(axis=1) == test.labels)
    return judge(
        scored,
        test.labels,
        corruption=name,
        severity=severity,
        alpha=material.classifier.significance.alpha,
        clean=clean,
        comparator=comparator,
    )


def _summary(name: str, parts: Sequence[Judged]) -> CorruptionSummary:
    conditions = [part.condition for part in parts]
    unusual, right, accepted = joined(parts)
    own = [_value(c.accuracy) for c in conditions]
    other = [_value(c.comparator_accuracy) for c in conditions if c.comparator_accuracy]
    compared = len(other) == len(own)
    other_error = sum(1 - value for value in other)
    return CorruptionSummary(
        corruption=name,
        accuracy=_mean(own),
        top_label_ece=_mean([c.top_label_ece for c in conditions]),
        nll_nats=_mean([c.nll_nats for c in conditions]),
        unknown=_mean([_value(c.unknown) for c in conditions]),
        ambiguous=_mean([_value(c.ambiguous) for c in conditions]),
        accepted_error=share(~right[accepted]),
        wrong_auroc=wrong_auroc(unusual, right),
        comparator_accuracy=_mean(other) if compared else None,
        relative_error=sum(1 - value for value in own) / other_error
        if compared and other_error > 0
        else None,
    )


def _title(condition: Condition) -> str:
    return f"{condition.corruption.replace('_', ' ')} {condition.severity}"


def _value(rate: Rate) -> float:
    return rate.value if rate.value is not None else float("nan")


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
