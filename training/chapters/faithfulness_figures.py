"""Figures of the chapter on heatmaps."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from training import plots
from training.attributions import HEATMAP, LABELS
from training.chapters.faithfulness_results import Faithfulness

COLOURS = plots.colours_of(tuple(LABELS))
DASHES = {"centre": (0, (1, 1.5)), "random": (0, (4, 2))}
"""Methods that know nothing are dashed: they are bars to clear, not rivals."""


def figures(result: Faithfulness) -> dict[str, Figure]:
    """Curves, hits and rank correlations, by name."""
    found = {"curves": _curves(result), "forgetting": _forgetting(result)}
    if any(group.count for group in result.patches):
        found["patches"] = _patches(result)
    return found


def _curves(result: Faithfulness) -> Figure:
    figure = Figure(figsize=(plots.WIDTH_IN, 3.7), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for method in result.curves:
        for axes, values in ((left, method.insertion_curve), (right, method.deletion_curve)):
            axes.plot(
                result.fractions,
                values,
                color=COLOURS[method.name],
                linewidth=2.4 if method.name == HEATMAP else 1.3,
                linestyle=DASHES.get(method.name, "-"),
                label=method.label,
            )
    left.set(xlabel="share of the pixels restored", ylabel="mean q(y|x)", ylim=(0, 1.02))
    left.set_title("insertion: high is good", fontsize=9, color=plots.INK, loc="left")
    right.set(xlabel="share of the pixels blurred")
    right.set_title("deletion: low is good", fontsize=9, color=plots.INK, loc="left")
    for axes in (left, right):
        plots.style(axes)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _patches(result: Faithfulness) -> Figure:
    groups = [group for group in result.patches if group.count]
    figure = Figure(figsize=(plots.WIDTH_IN, 3.1), layout="constrained")
    grid = figure.subplots(1, len(groups), sharey=True, squeeze=False)
    for axes, group in zip(grid.flat, groups, strict=True):
        places = np.arange(len(group.methods))[::-1].astype(float)
        for place, method in zip(places, group.methods, strict=True):
            axes.errorbar(
                method.rate,
                place,
                xerr=[[method.rate - method.low], [method.high - method.rate]],
                fmt="o",
                markersize=5,
                color=COLOURS[method.name],
            )
            axes.plot(method.mass.value, place - 0.27, marker="|", markersize=7, color=plots.FAINT)
        axes.axvline(result.area, color=plots.INK, linewidth=0.9, linestyle=":")
        axes.set(
            yticks=places,
            yticklabels=[method.label for method in group.methods],
            xlim=(-0.02, 1.02),
            xlabel="share that points at the patch",
        )
        axes.set_title(f"in {group.hosts}", fontsize=9, color=plots.INK, loc="left")
        plots.style(axes)
        axes.grid(axis="y", visible=False)
    return figure


def _forgetting(result: Faithfulness) -> Figure:
    figure = Figure(figsize=(plots.WIDTH_IN, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    steps = np.arange(len(result.stages) + 1)
    for method in result.forgetting:
        for axes, values in ((left, method.absolute), (right, method.signed)):
            axes.plot(
                steps,
                (1.0, *values),
                color=COLOURS[method.name],
                linewidth=2.4 if method.name == HEATMAP else 1.3,
                marker="o",
                markersize=3,
                label=method.label,
            )
    for axes, title in ((left, "absolute maps"), (right, "signed maps")):
        axes.axhline(0, color=plots.INK, linewidth=0.9, linestyle=":")
        axes.set_xticks(steps, ["trained", *(f"+ {stage}" for stage in result.stages)])
        axes.set_title(title, fontsize=9, color=plots.INK, loc="left")
        axes.set_ylim(-0.3, 1.02)
        plots.style(axes)
        axes.tick_params(axis="x", labelrotation=25)
    left.set_ylabel("rank correlation with the map before")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure
