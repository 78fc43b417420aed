"""From an evaluation to the figures of its report, as SVG text for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ibinn.assessment import COMBINED
from ibinn.metrics import clopper_pearson
from ibinn.reliability import ReliabilityBin
from training import plots
from training.evaluation import Evaluation, Histogram
from training.ood_sets import Pixels

TYPICALITY = "log_q_x.typicality"
"""The thesis's single test, shown beside the combined one."""

FIRST_PANELS = 9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """Images that the model itself made of each class.

    Attributes:
        class_names: One per row.
        images: uint8 (classes, columns, S, S, 3).
        note: How they were drawn, such as the temperature and the seed.
    """

    class_names: tuple[str, ...]
    images: Pixels
    note: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeatmapExamples:
    """Heatmaps of chosen images; give only images that may be shown to the report's readers.

    Attributes:
        titles: One per image: class explained and its probability.
        images: uint8 (n, S, S, 3).
        maps: Q(k, l, y) in nats (n, H, W).
    """

    titles: tuple[str, ...]
    images: Pixels
    maps: npt.NDArray[np.float64]


def figures(
    evaluation: Evaluation,
    *,
    samples: Samples | None = None,
    heatmap_examples: HeatmapExamples | None = None,
) -> dict[str, Figure]:
    """Every figure that the evaluation has data for, by name."""
    colours = plots.colours_of([s.name for s in evaluation.sets])
    drawn: dict[str, Figure] = {
        "reliability": plots.reliability(
            [
                _reliability("at T = 1", evaluation.raw.top_label_bins),
                _reliability(
                    f"at T = {evaluation.model.temperature:.3f}",
                    evaluation.calibrated.top_label_bins,
                ),
            ]
        )
    }
    panels = [_panel(histogram) for histogram in evaluation.histograms]
    if panels:
        drawn["histograms"] = plots.histograms(panels[:FIRST_PANELS], colours)
    if len(panels) > FIRST_PANELS:
        drawn["more_histograms"] = plots.histograms(panels[FIRST_PANELS:], colours)
    if evaluation.sets:
        drawn["roc"] = plots.roc(_rocs(evaluation), colours, evaluation.alphas)
        drawn["misses"] = plots.misses([s.name for s in evaluation.sets], _misses(evaluation))
    if evaluation.curve:
        drawn["curves"] = plots.training_curves(_curve_panels(evaluation))
    if samples is not None:
        drawn["samples"] = plots.sample_grid(samples.images, samples.class_names)
    if heatmap_examples is not None:
        drawn["heatmaps"] = plots.heatmaps(
            heatmap_examples.images, heatmap_examples.maps, heatmap_examples.titles
        )
    return drawn


def _reliability(label: str, bins: Sequence[ReliabilityBin]) -> plots.ReliabilityCurve:
    ends = [clopper_pearson(round(b.accuracy * b.count), b.count) for b in bins]
    return plots.ReliabilityCurve(
        label=label,
        confidence=np.array([b.mean_confidence for b in bins]),
        accuracy=np.array([b.accuracy for b in bins]),
        low=np.array([low for low, _ in ends]),
        high=np.array([high for _, high in ends]),
        count=np.array([b.count for b in bins]),
    )


def _panel(histogram: Histogram) -> plots.HistogramPanel:
    name = histogram.statistic
    return plots.HistogramPanel(
        title=f"{name} (combined)" if name == COMBINED else name,
        edges=np.array(histogram.edges),
        shares={key: np.array(shares) for key, shares in histogram.shares},
    )


def _rocs(evaluation: Evaluation) -> list[plots.RocCurve]:
    aurocs = {s.name: r.auroc for s in evaluation.sets if (r := s.test(COMBINED)) is not None}
    return [
        plots.RocCurve(
            name=curve.name,
            label=f"{curve.name} ({100 * aurocs[curve.name]:.1f})",
            false_positive_rate=np.array(curve.false_positive_rate),
            true_positive_rate=np.array(curve.true_positive_rate),
        )
        for curve in evaluation.rocs
        if curve.name in aurocs
    ]


def _misses(evaluation: Evaluation) -> Mapping[str, tuple[Any, Any, Any]]:
    alpha = evaluation.model.alpha
    rates = {}
    for test, label in ((COMBINED, "combined test"), (TYPICALITY, "typicality of log q(x) alone")):
        found = [
            at
            for s in evaluation.sets
            if (report := s.test(test)) is not None
            for at in report.at
            if at.alpha == alpha
        ]
        if len(found) == len(evaluation.sets):
            rates[label] = (
                np.array([at.miss_rate for at in found]),
                np.array([at.miss_low for at in found]),
                np.array([at.miss_high for at in found]),
            )
    return rates


def _curve_panels(evaluation: Evaluation) -> dict[str, list[plots.Series]]:
    points = evaluation.curve
    epochs = np.array([point.epoch for point in points])

    def line(label: str, field: str) -> plots.Series:
        values = np.array([getattr(point, field) for point in points], dtype=np.float64)
        known = np.isfinite(values)
        return plots.Series(
            label=label,
            epochs=epochs[known],
            values=values[known],
            marked=field.startswith("validation"),
        )

    panels = {
        "loss": [line("training", "loss")],
        "accuracy": [line("training", "accuracy"), line("validation", "validation_accuracy")],
        "bits/dim, validation": [line("validation", "validation_bits_per_dim")],
        "learning rate": [line("learning rate", "learning_rate")],
    }
    kept = {unit: [s for s in series if len(s.values)] for unit, series in panels.items()}
    return {unit: series for unit, series in kept.items() if series}
