"""Figures of the page: functions of values, nothing is computed or asked for inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from ibinn.types import DecisionSpace

_COLOURS = ("#0b6e99", "#b3541e", "#2d7a46", "#8a3f9c", "#8a6d00", "#a3223c", "#465a73", "#0f766e")
_MARKERS = "osD^vPXh"
_INK, _DIM = "#1c2026", "#5b636d"
_ALARM = "#be2428"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A curve with a name.

    Attributes:
        name: What it is of.
        x: Places.
        y: Values; None leaves a gap.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]


def decision_space_figure(space: DecisionSpace) -> Figure:
    """The image among its most probable classes (figure 5.20), in standard deviations."""
    figure, axes = _axes(6.0, 4.4)
    for number, point in enumerate(space.means):
        colour = _COLOURS[number % len(_COLOURS)]
        axes.add_patch(
            Circle((point.x, point.y), point.radius, fill=False, color=colour, alpha=0.55)
        )
        axes.plot(
            point.x,
            point.y,
            _MARKERS[number % len(_MARKERS)],
            color=colour,
            label=f"{point.class_name} ({point.probability:.0%})",
        )
    axes.axvline(space.boundary, color=_DIM, linestyle="--", linewidth=1)
    axes.plot(space.x, space.y, "*", color=_INK, markersize=16, label="this image")
    reach = max(point.radius + abs(point.x) for point in space.means)
    width = 1.08 * max(reach, abs(space.x) + 0.5)
    top = 1.08 * max(*(point.y + point.radius for point in space.means), space.y + 0.5)
    axes.set(
        xlim=(-width, width),
        ylim=(-0.04 * top, top),
        xlabel="along the line between the two most probable classes",
        ylabel="away from it",
    )
    axes.set_aspect("equal", adjustable="box")
    axes.legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def trade_off_figure(
    measured: Sequence[Line], estimated: Sequence[Line], *, alpha: float, p_value: float | None
) -> Figure:
    """Misses per 1,000 over false alarms per 1,000.

    Args:
        measured: A line per kind of images, its points those of the report.
        estimated: The same kinds in the same order, interpolated.
        alpha: The significance chosen.
        p_value: Of the image shown; None without one.
    """
    figure, axes = _axes(6.0, 3.8)
    for number, (points, guess) in enumerate(zip(measured, estimated, strict=True)):
        colour = _COLOURS[number % len(_COLOURS)]
        axes.plot(guess.x, _numbers(guess.y), "--", color=colour, linewidth=1, alpha=0.8)
        marker = _MARKERS[number % len(_MARKERS)]
        axes.plot(points.x, _numbers(points.y), marker, color=colour, label=points.name)
    axes.axvline(1000 * alpha, color=_INK, linewidth=1.5, label="α chosen")
    if p_value is not None:
        axes.axvline(
            1000 * p_value, color=_ALARM, linestyle=":", linewidth=1.5, label="p of this image"
        )
    axes.set(
        xscale="log",
        ylim=(-20, 1020),
        xlabel="false alarms per 1,000 images of known kinds (1,000·α)",
        ylabel="misses per 1,000 unknown images",
    )
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def severity_figure(lines: Sequence[Line], *, alpha: float, severity: int) -> Figure:
    """p-values over the severity of the damage; the first line is the one that decides."""
    figure, axes = _axes(6.0, 3.4)
    for number, line in enumerate(lines):
        axes.plot(
            line.x,
            _numbers(line.y),
            marker=_MARKERS[number % len(_MARKERS)],
            color=_COLOURS[number % len(_COLOURS)],
            linewidth=2.4 if number == 0 else 1.1,
            label=line.name,
        )
    axes.axhline(alpha, color=_ALARM, linestyle="--", linewidth=1.2, label=f"α = {alpha:g}")
    axes.axvspan(severity - 0.12, severity + 0.12, color=_DIM, alpha=0.18)
    axes.set(yscale="log", xlabel="severity", ylabel="p-value", ylim=(None, 1.4))
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    # Not of pyplot, which keeps every figure: many people may look at one page.
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]
