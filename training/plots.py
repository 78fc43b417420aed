"""Figures of a report: functions of arrays that return a matplotlib figure.

Nothing is computed here and no global state is used (no pyplot). The in-distribution test images
are always dark grey; every out-of-distribution set keeps its colour over all figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

Array = npt.NDArray[Any]

INK = "#2b2f36"
FAINT = "#8a919c"
GRID = "#e4e7eb"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8c6d31")
"""Told apart with every common form of colour blindness (Okabe and Ito), then two more."""

WIDTH_IN = 7.6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReliabilityCurve:
    """Accuracy against confidence.

    Attributes:
        label: For the legend.
        confidence: Mean confidence per bin (b,).
        accuracy: Share right per bin (b,).
        low: Lower end of its interval (b,).
        high: Its upper end (b,).
        count: Predictions per bin (b,).
    """

    label: str
    confidence: Array
    accuracy: Array
    low: Array
    high: Array
    count: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HistogramPanel:
    """One statistic.

    Attributes:
        title: Name of the statistic.
        edges: Bin edges (bins + 1,).
        shares: Share of images per bin (bins,) by set; ``test`` is drawn filled.
    """

    title: str
    edges: Array
    shares: Mapping[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RocCurve:
    """One ROC curve: (false positive rate, true positive rate), ascending, with its label."""

    name: str
    label: str
    false_positive_rate: Array
    true_positive_rate: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """A line of the training curves: y against epochs, drawn in the panel of its unit."""

    label: str
    epochs: Array
    values: Array
    marked: bool = False


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """A colour for each set, the same for the same order of sets."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def reliability(curves: Sequence[ReliabilityCurve]) -> Figure:
    """Accuracy against confidence with intervals, and below it how many predictions there are."""
    figure = Figure(figsize=(4.6, 4.9), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    top.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    top.text(0.03, 0.955, "too careful", color=FAINT, fontsize=8.5, va="top")
    top.text(0.97, 0.045, "too sure", color=FAINT, fontsize=8.5, ha="right")
    colours = (COLOURS[1], COLOURS[0])
    for curve, colour in zip(curves, colours, strict=False):
        spread = np.stack(
            [
                np.maximum(curve.accuracy - curve.low, 0),
                np.maximum(curve.high - curve.accuracy, 0),
            ]
        )
        top.errorbar(
            curve.confidence,
            curve.accuracy,
            yerr=spread,
            color=colour,
            marker="o",
            markersize=3.5,
            linewidth=1.4,
            elinewidth=1,
            label=curve.label,
        )
        bottom.plot(
            curve.confidence,
            np.maximum(curve.count, 0.8),
            color=colour,
            marker="o",
            markersize=2.5,
            linewidth=1,
        )
    top.set(ylabel="accuracy", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    bottom.set(xlabel="confidence of the top class", ylabel="images", yscale="log")
    for axes in (top, bottom):
        style(axes)
    if curves:
        handles, labels = top.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper center", ncols=2, fontsize=8.5, frameon=False
        )
    return figure


def histograms(
    panels: Sequence[HistogramPanel], colours: Mapping[str, str], *, columns: int = 3
) -> Figure:
    """Small multiples: each statistic on the test images (filled) and on every set (lines)."""
    rows = -(-len(panels) // columns)
    layout = ConstrainedLayoutEngine(h_pad=0.09, w_pad=0.06)
    figure = Figure(figsize=(WIDTH_IN, 1.75 * rows + 0.45), layout=layout)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        for name, shares in panel.shares.items():
            if name == "test":
                axes.stairs(shares, panel.edges, fill=True, color=INK, alpha=0.22, linewidth=0)
                axes.stairs(shares, panel.edges, color=INK, linewidth=1.1, label="test images")
            else:
                axes.stairs(shares, panel.edges, color=colours[name], linewidth=1.1, label=name)
        axes.set_title(panel.title, fontsize=9, color=INK, loc="left")
        # A set that is piled up in one bin must not flatten the test images.
        axes.set_ylim(0, 1.7 * float(np.max(panel.shares["test"])))
        axes.set_yticks([])
        style(axes, grid=False)
        axes.spines["left"].set_visible(False)
        axes.tick_params(labelsize=7.5)
        axes.locator_params(axis="x", nbins=4)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(6, len(labels)), fontsize=8.5,
        frameon=False,
    )  # fmt: skip
    return figure


def roc(curves: Sequence[RocCurve], colours: Mapping[str, str], alphas: Sequence[float]) -> Figure:
    """ROC of the combined test per set, false positive rate on a logarithmic axis."""
    figure = Figure(figsize=(WIDTH_IN, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, scale in ((left, "linear"), (right, "log")):
        chance = np.geomspace(1e-3, 1, 60)
        axes.plot(chance, chance, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        for curve in curves:
            axes.plot(
                curve.false_positive_rate,
                curve.true_positive_rate,
                color=colours[curve.name],
                linewidth=1.5,
                label=curve.label,
            )
        axes.set(
            xlabel="share of test images flagged",
            ylim=(0, 1.01),
            xscale=scale,
            xlim=(1e-3, 1) if scale == "log" else (-0.01, 1),
        )
        style(axes)
    for alpha in alphas:
        right.axvline(alpha, color=INK, linewidth=0.9, linestyle=":")
        right.text(alpha * 1.08, 0.985, f"α = {alpha:g}", fontsize=7.5, color=INK, va="top")
    right.set_xlabel("the same, logarithmic")
    left.set_ylabel("share of the set flagged")
    if curves:
        left.legend(loc="lower right", fontsize=8, frameon=False)
    return figure


def misses(
    names: Sequence[str],
    rates: Mapping[str, tuple[Array, Array, Array]],
    *,
    limit_label: str = "share of the set not flagged",
) -> Figure:
    """Miss rate per set with its interval, one mark per test or significance.

    Args:
        names: Sets, from top to bottom.
        rates: Label -> (rate, low, high), each (sets,).
        limit_label: Label of the axis.
    """
    figure = Figure(figsize=(WIDTH_IN, 0.42 * len(names) + 1.0), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(names))[::-1].astype(float)
    offsets = np.linspace(0.16, -0.16, max(2, len(rates)))
    for (label, (rate, low, high)), offset, colour in zip(
        rates.items(), offsets, COLOURS, strict=False
    ):
        spread = np.stack([np.maximum(rate - low, 0), np.maximum(high - rate, 0)])
        axes.errorbar(
            rate, places + offset, xerr=spread, fmt="o", markersize=4.5, color=colour, label=label
        )
    axes.set(yticks=places, yticklabels=names, xlim=(-0.02, 1.02), xlabel=limit_label)
    axes.set_ylim(-0.6, len(names) - 0.4)
    style(axes)
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside upper right", ncols=max(1, len(rates)), fontsize=8.5, frameon=False)
    return figure


def training_curves(panels: Mapping[str, Sequence[Series]]) -> Figure:
    """One panel per unit (its name is the y label), epochs on the x axis."""
    figure = Figure(figsize=(WIDTH_IN, 2.5), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)
    for axes, (unit, series) in zip(grid.flat, panels.items(), strict=True):
        for line, colour in zip(series, (FAINT, COLOURS[0], COLOURS[1]), strict=False):
            axes.plot(
                line.epochs,
                line.values,
                color=colour,
                linewidth=1.3,
                marker="o" if line.marked else "",
                markersize=3,
                label=line.label,
            )
        axes.set_title(unit, fontsize=9, color=INK, loc="left")
        axes.set_xlabel("epochs")
        style(axes)
        if len(series) > 1:
            axes.legend(fontsize=7.5, frameon=False)
    return figure


def sample_grid(images: Array, row_names: Sequence[str]) -> Figure:
    """Images (rows, columns, S, S, 3) as one sheet with a name beside each row."""
    rows, columns, side = images.shape[:3]
    cell = 0.56
    figure = Figure(figsize=(min(WIDTH_IN, cell * columns + 1.1), cell * rows + 0.1))
    left = 1.1 / float(figure.get_figwidth())
    axes = figure.add_axes((left, 0.0, 1.0 - left, 1.0))
    gap = max(1, side // 16)
    sheet = np.full(
        (rows * (side + gap) - gap, columns * (side + gap) - gap, 3), 255, dtype=np.uint8
    )
    for row in range(rows):
        for column in range(columns):
            y, x = row * (side + gap), column * (side + gap)
            sheet[y : y + side, x : x + side] = images[row, column]
    axes.imshow(sheet, interpolation="nearest")
    axes.set_axis_off()
    for row, name in enumerate(row_names):
        axes.text(
            -gap * 2, row * (side + gap) + side / 2, name, ha="right", va="center",
            fontsize=9, color=INK,
        )  # fmt: skip
    return figure


def heatmaps(images: Array, maps: Array, titles: Sequence[str]) -> Figure:
    """Images (n, S, S, 3) over their heatmaps (n, H, W) in nats; blue speaks against the class."""
    count = len(images)
    figure = Figure(figsize=(min(WIDTH_IN, 1.45 * count), 3.3), layout="constrained")
    grid = figure.subplots(2, count, squeeze=False)
    limit = float(np.max(np.abs(maps))) or 1.0
    drawn = None
    for column in range(count):
        grid[0, column].imshow(images[column], interpolation="nearest")
        grid[0, column].set_title(titles[column], fontsize=8.5, color=INK)
        drawn = grid[1, column].imshow(
            maps[column], cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
        )
        for row in range(2):
            grid[row, column].set_axis_off()
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=list(grid[1]), location="bottom", aspect=40)
        bar.ax.tick_params(labelsize=7.5)
        bar.set_label("nats", fontsize=8)
    return figure


def style(axes: Axes, *, grid: bool = True) -> None:
    """Give axes the look of every figure here: quiet spines and, unless told, a grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8, width=0.8)
    axes.xaxis.label.set(color=INK, size=9)
    axes.yaxis.label.set(color=INK, size=9)
    if grid:
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
