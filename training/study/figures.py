"""The trade-off figures of a study (forms of 5.7 and 5.14): points in, figures out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from training.plots import COLOURS, FAINT, GRID, INK, WIDTH_IN

PANEL_IN = 1.75


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A figure at one γ.

    Attributes:
        gamma: As the axis prints it, such as ``∞``.
        mean: Its mean over seeds; NaN where there is none.
        low: Lower end of what the bar spans.
        high: Its upper end.
    """

    gamma: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One figure against γ: its unit is the title; every point in the order of γ."""

    title: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """One row of panels.

    Attributes:
        label: Data set, or ``published``.
        panels: As many in every band.
        published: Drawn hollow and grey.
    """

    label: str
    panels: tuple[Panel, ...]
    published: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """Error against bits/dim along γ.

    Attributes:
        label: Data set, or ``published``.
        bits: (gammas,), bits/dim.
        error: (gammas,), %.
        gammas: As printed beside the points.
        published: Drawn hollow and grey.
    """

    label: str
    bits: tuple[float, ...]
    error: tuple[float, ...]
    gammas: tuple[str, ...]
    published: bool = False


def trade_off(bands: Sequence[Band]) -> Drawing:
    """Every figure against γ, one row per data set, the published one last (form of 5.7)."""
    columns = max(len(band.panels) for band in bands)
    drawing = Drawing(figsize=(WIDTH_IN, PANEL_IN * len(bands) + 0.3), layout="constrained")
    grid = drawing.subplots(len(bands), columns, squeeze=False)
    for number, (line, band) in enumerate(zip(grid, bands, strict=True)):
        colour = FAINT if band.published else COLOURS[number % len(COLOURS)]
        for axes, panel in zip(line, band.panels, strict=True):
            places = np.arange(len(panel.points), dtype=float)
            mean = np.array([point.mean for point in panel.points])
            spread = np.array([[p.mean - p.low, p.high - p.mean] for p in panel.points]).T
            known = np.isfinite(mean)
            if known.any():
                axes.errorbar(
                    places[known],
                    mean[known],
                    yerr=np.maximum(spread[:, known], 0.0),
                    color=colour,
                    marker="o",
                    markersize=4.5,
                    markerfacecolor="white" if band.published else colour,
                    linewidth=1.3,
                    elinewidth=1,
                )
            else:
                axes.text(0.5, 0.5, "none", color=FAINT, transform=axes.transAxes, ha="center")
                axes.set_yticks([])
            axes.set_xticks(places, [point.gamma for point in panel.points])
            axes.set_xlim(-0.5, len(panel.points) - 0.5)
            if number == 0:
                axes.set_title(panel.title, fontsize=8.5, color=INK, loc="left")
            if number == len(bands) - 1:
                axes.set_xlabel("γ")
            _style(axes)
        line[0].set_ylabel(band.label)
    return drawing


def plane(paths: Sequence[Path]) -> Drawing:
    """Error against bits/dim along γ, one panel per data set (form of 5.14)."""
    drawing = Drawing(figsize=(WIDTH_IN, 2.7), layout="constrained")
    grid = drawing.subplots(1, len(paths), squeeze=False)
    for number, (axes, path) in enumerate(zip(grid[0], paths, strict=True)):
        colour = FAINT if path.published else COLOURS[number % len(COLOURS)]
        axes.plot(
            path.bits,
            path.error,
            color=colour,
            marker="o",
            markersize=4.5,
            markerfacecolor="white" if path.published else colour,
            linewidth=1.3,
        )
        for bits, error, gamma in zip(path.bits, path.error, path.gammas, strict=True):
            axes.annotate(
                gamma,
                (bits, error),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=7.5,
                color=INK,
            )
        axes.margins(0.14)
        axes.set_title(path.label, fontsize=8.5, color=INK, loc="left")
        axes.set_xlabel("bits/dim")
        _style(axes)
    grid[0][0].set_ylabel("error %")
    return drawing


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=7.5, width=0.8)
    axes.xaxis.label.set(color=INK, size=8.5)
    axes.yaxis.label.set(color=INK, size=8.5)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
