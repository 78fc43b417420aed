"""Figures of the chapter on where images and classes lie; functions of the arrays in its result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from training.plots import COLOURS, FAINT, INK, WIDTH_IN, style

if TYPE_CHECKING:
    from ibinn.explain.receptive_field import ReceptiveField
    from training.chapters.explanations import (
        Corrupted,
        Explanations,
        Layout,
        MapResult,
    )
    from training.chapters.explanations_sheets import Sheet
    from training.chapters.explanations_similarity import Similarity
    from training.chapters.explanations_spaces import Spaces

Array = npt.NDArray[Any]

MORE_COLOURS = (*COLOURS, "#4d4d4d", "#a6761d")
MARKERS = "osD^vP<X>h"
MOST_CLASSES = 30
"""Names are left out of a matrix of more classes."""


def figures(result: Explanations) -> dict[str, Figure]:
    """Every figure that the chapter has data for, by name."""
    drawn = {
        "similarity": similarity(result.similarity),
        "trajectories": trajectories(result.trajectories, result.alpha),
        "samples": sheet(result.samples),
        "interpolations": sheet(result.interpolations),
    }
    if result.layout is not None:
        drawn["layout"] = layout(result.layout)
    if result.maps:
        drawn["maps"] = maps(result.maps)
    if result.spaces is not None:
        drawn["spaces"] = spaces(result.spaces)
    if result.field is not None:
        drawn["field"] = field(result.field)
    return drawn


def similarity(found: Similarity) -> Figure:
    """The overlaps of classes beside what is taken for what, in one order."""
    figure = Figure(figsize=(WIDTH_IN, 4.1), layout="constrained")
    panels = figure.subplots(1, 2)
    off = ~np.eye(len(found.order), dtype=bool)
    for axes, matrix, title, colours in (
        (panels[0], found.overlaps, "overlap of the model's classes, Φ(−Δ/2)", "Blues"),
        (panels[1], found.confusions, "taken for each other, test images", "Oranges"),
    ):
        values = np.where(off, matrix, np.nan)
        low = float(np.nanmin(values)) if colours == "Blues" else 0.0
        drawn = axes.imshow(values, cmap=colours, vmin=0.9 * low, interpolation="none")
        axes.set_title(title, fontsize=9, color=INK, loc="left")
        bar = figure.colorbar(drawn, ax=axes, location="bottom", aspect=30, shrink=0.9)
        bar.ax.tick_params(labelsize=7.5)
        style(axes, grid=False)
        axes.spines[:].set_visible(False)
        if len(found.order) <= MOST_CLASSES:
            axes.set_xticks(range(len(found.order)), found.order, rotation=90, fontsize=7.5)
            axes.set_yticks(range(len(found.order)), found.order, fontsize=7.5)
    return figure


def layout(found: Layout) -> Figure:
    """Test images, their averages and the means in the plane of the means' largest spread."""
    figure = Figure(figsize=(WIDTH_IN, 4.4), layout="constrained")
    axes = figure.subplots()
    _points(axes, found.places, found.labels, len(found.class_names))
    for k, (mean, average) in enumerate(zip(found.means, found.averages, strict=True)):
        if np.isfinite(average).all():
            axes.plot(*np.stack((mean, average)).T, color=_colour(k), linewidth=1, zorder=2)
            _mean(axes, average, k, found.class_names[k])
        axes.plot(*mean, marker="x", markersize=5, color=_colour(k), zorder=3)
    first, second = 100 * found.shares
    axes.set(
        xlabel=f"first direction ({first:.0f} % of the means' spread), standard deviations",
        ylabel=f"second direction ({second:.0f} %)",
        aspect="equal",
    )
    style(axes)
    return figure


def maps(found: Sequence[MapResult]) -> Figure:
    """Decision regions of the rank-2 means with test images on them."""
    figure = Figure(figsize=(WIDTH_IN, 3.9), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, result in zip(panels, found, strict=True):
        low, high = np.percentile(result.places, (0.5, 99.5), axis=0)
        low, high = (
            np.minimum(low, result.means.min(0) - 0.5),
            np.maximum(high, result.means.max(0) + 0.5),
        )
        x, y = (np.linspace(low[axis], high[axis], 140) for axis in (0, 1))
        grid = np.stack(np.meshgrid(x, y), axis=2)
        scores = result.log_weights + grid @ result.means.T - 0.5 * (result.means**2).sum(1)
        palette = ListedColormap([_pale(_colour(k)) for k in range(len(result.class_names))])
        axes.imshow(
            scores.argmax(axis=2),
            cmap=palette,
            vmin=-0.5,
            vmax=len(result.class_names) - 0.5,
            extent=(low[0], high[0], low[1], high[1]),
            origin="lower",
            interpolation="none",
            aspect="auto",
        )
        _points(axes, result.places, result.labels, len(result.class_names))
        for k, (mean, name) in enumerate(zip(result.means, result.class_names, strict=True)):
            _mean(axes, mean, k, name)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        axes.set_title(f"{len(result.class_names)} classes", fontsize=9, color=INK, loc="left")
        style(axes, grid=False)
    return figure


def spaces(found: Spaces) -> Figure:
    """Where images of each group lie between their two most probable classes, on average."""
    figure = Figure(
        figsize=(WIDTH_IN, 2.35 * -(-len(found.groups) // 2) + 0.3), layout="constrained"
    )
    grid = figure.subplots(-(-len(found.groups) // 2), 2, sharex=True, sharey=True, squeeze=False)
    for axes, group in zip(grid.flat, found.groups, strict=False):
        axes.imshow(
            group.density,
            extent=(found.x_edges[0], found.x_edges[-1], found.y_edges[0], found.y_edges[-1]),
            origin="lower",
            cmap="Greys",
            vmax=1.3 * float(group.density.max()) or 1.0,
            interpolation="none",
            aspect="equal",
        )
        axes.axvline(0.0, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        first = group.means[0]
        axes.add_patch(
            Circle(
                (first[0], first[1]), found.first_radius, fill=False, color=COLOURS[0], linewidth=1
            )
        )
        names = ("1st", "2nd", "3rd …" if len(group.means) > 3 else "3rd", "", "")
        for k, mean in enumerate(group.means):
            axes.plot(*mean, marker="o", markersize=4, color=_colour(k), clip_on=False, zorder=3)
            axes.annotate(
                names[k], mean, xytext=(3, 4), textcoords="offset points", fontsize=7.5,
                color=_colour(k),
            )  # fmt: skip
        axes.plot(
            group.median_x, group.median_y, marker="+", markersize=10, color=COLOURS[1],
            markeredgewidth=2,
        )  # fmt: skip
        axes.set_title(f"{group.name} ({group.count:,})", fontsize=9, color=INK, loc="left")
        axes.set_ylim(0, found.y_edges[-1])
        # The most probable class is on the left, and with it nearly every image.
        axes.set_xlim(found.x_edges[0], max(0.45 * found.x_edges[-1], 1.2 * group.means[1][0]))
        style(axes, grid=False)
    for axes in list(grid.flat)[len(found.groups) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("along the line through both means")
    for axes in grid[:, 0]:
        axes.set_ylabel("distance from it")
    return figure


def trajectories(found: Sequence[Corrupted], alpha: float) -> Figure:
    """Above: shares and confidence as corruption grows; below: the ways of single images."""
    figure = Figure(figsize=(WIDTH_IN, 4.4), layout="constrained")
    grid = figure.subplots(2, len(found), sharey="row", squeeze=False)
    lines = (("accuracy", INK), ("mean confidence", COLOURS[0]), ("called unknown", COLOURS[1]))
    for column, (top, bottom, path) in enumerate(zip(*grid, found, strict=True)):
        places = np.arange(len(path.strengths))
        for (label, colour), values in zip(
            lines, (path.accuracy, path.confidence, path.flagged), strict=True
        ):
            top.plot(places, values, color=colour, marker="o", markersize=2.5, linewidth=1.3,
                     label=label)  # fmt: skip
        top.axhline(alpha, color=FAINT, linewidth=0.9, linestyle=":")
        top.set_xticks(places, [f"{s:g}" for s in path.strengths], rotation=60)
        top.set_xlabel(path.unit)
        top.set_title(path.name, fontsize=9, color=INK, loc="left")
        top.set_ylim(-0.02, 1.02)
        for way in path.paths:
            bottom.plot(way[:, 0], way[:, 1], color=COLOURS[0], linewidth=0.8, alpha=0.7)
        for step, face in ((0, "white"), (-1, COLOURS[0])):
            bottom.plot(
                path.paths[:, step, 0], path.paths[:, step, 1], linestyle="", marker="o",
                markersize=3.5, color=COLOURS[0], markerfacecolor=face, zorder=2,
            )  # fmt: skip
        bottom.set_xlabel("bits/dim")
        for axes in (top, bottom):
            style(axes)
            axes.tick_params(labelsize=7)
            axes.xaxis.label.set_size(8)
        if column == 0:
            top.set_ylabel("share of images")
            bottom.set_ylabel("confidence")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8.5, frameon=False)
    return figure


def field(found: ReceptiveField) -> Figure:
    """The sensitivity of the central column, with the grid of cells and the two radii."""
    figure = Figure(figsize=(3.7, 3.4), layout="constrained")
    axes = figure.subplots()
    side = len(found.sensitivity)
    drawn = axes.imshow(
        found.sensitivity / found.sensitivity.max(),
        cmap="magma",
        extent=(0, side, side, 0),
        interpolation="none",
        vmin=0,
    )
    for edge in np.arange(found.cell_px, side - 1e-6, found.cell_px):
        axes.axhline(edge, color="white", linewidth=0.4, alpha=0.6)
        axes.axvline(edge, color="white", linewidth=0.4, alpha=0.6)
    for radius, line in ((found.radius_50_px, "-"), (found.radius_90_px, "--")):
        axes.add_patch(
            Circle((found.column, found.row), radius, fill=False, color="white", linewidth=1.4,
                   linestyle=line)
        )  # fmt: skip
    axes.set(xlabel="pixels", xlim=(0, side), ylim=(side, 0))
    bar = figure.colorbar(drawn, ax=axes, shrink=0.85)
    bar.set_label("sensitivity, 1 = largest", fontsize=8)
    bar.ax.tick_params(labelsize=7.5)
    style(axes, grid=False)
    return figure


def sheet(found: Sheet) -> Figure:
    """A sheet of images with names beside its rows and above its columns."""
    pixels = found.pixels()
    height, width = pixels.shape[:2]
    rows, columns = len(found.rows), len(found.columns)
    top = 0.25 if any(found.columns) else 0.02
    sheet_height = 0.46 * rows
    sheet_width = sheet_height * width / height
    left = 1.5
    figure = Figure(figsize=(left + sheet_width + 0.05, sheet_height + top))
    total_width, total_height = left + sheet_width + 0.05, sheet_height + top
    axes = figure.add_axes(
        (left / total_width, 0.0, sheet_width / total_width, sheet_height / total_height)
    )
    axes.imshow(pixels, interpolation="none", aspect="auto")
    axes.set_axis_off()
    for row, name in enumerate(found.rows):
        axes.text(
            -0.01 * width - 2, (row + 0.5) * (height + found.gap_px) / rows, name,
            ha="right", va="center", fontsize=8.5, color=INK,
        )  # fmt: skip
    for column, name in enumerate(found.columns):
        axes.text(
            (column + 0.5) * (width + found.gap_px) / columns, -3, name, ha="center", va="bottom",
            fontsize=8, color=INK,
        )  # fmt: skip
    return figure


def _points(axes: Axes, places: Array, labels: Array, classes: int) -> None:
    for k in range(classes):
        own = places[labels == k]
        axes.scatter(
            own[:, 0], own[:, 1], s=7, color=_colour(k), marker=_marker(k), alpha=0.55,
            linewidths=0, rasterized=True,
        )  # fmt: skip


def _mean(axes: Axes, mean: Array, k: int, name: str) -> None:
    axes.plot(
        *mean, marker=_marker(k), markersize=8, color=_colour(k), markeredgecolor="white", zorder=3
    )
    axes.annotate(
        name, (float(mean[0]), float(mean[1])), xytext=(6, 5), textcoords="offset points",
        fontsize=8.5, color=INK, zorder=4,
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.75, "linewidth": 0},
    )  # fmt: skip


def _colour(k: int) -> str:
    return MORE_COLOURS[k % len(MORE_COLOURS)]


def _marker(k: int) -> str:
    return MARKERS[k % len(MARKERS)]


def _pale(colour: str) -> tuple[float, float, float]:
    red, green, blue = (0.72 + 0.28 * part for part in to_rgb(colour))
    return red, green, blue
