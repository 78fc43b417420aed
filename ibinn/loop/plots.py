"""Plots of the loop: functions of numbers that return a figure as SVG text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from ibinn.loop.figures import Curve, FloatArray

_WIDTH, _HEIGHT = 10.0, 3.2
_SHADES = ("#e8f3e8", "#fbe9dd", "#fdf0c9", "#e3ecf7")
_GREY = "#555555"
_GAP_S = 8.0
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ibinn-loop",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A stretch of time with a name: a background behind curves.

    Attributes:
        name: What happened then.
        begin_s: From when.
        end_s: Until when.
    """

    name: str
    begin_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A moment with a name: a line across curves.

    Attributes:
        name: What happened.
        at_s: When.
    """

    name: str
    at_s: float


def curves(
    title: str,
    found: Sequence[Curve],
    *,
    stretches: Sequence[Stretch],
    marks: Sequence[Mark],
    percent: bool = True,
    top: float | None = None,
    bottom: float | None = 0.0,
    line_at: float | None = None,
) -> str:
    """Curves over time.

    Args:
        title: Above.
        found: What to draw; a curve without points stands in the legend alone.
        stretches: Phases.
        marks: Events.
        percent: Whether values are shares.
        top: Upper end of the axis; None: what the values need.
        bottom: Its lower end, likewise.
        line_at: A level to mark; None: none.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for shade, stretch in zip(_SHADES, stretches, strict=False):
            axes.axvspan(stretch.begin_s, stretch.end_s, color=shade, lw=0, zorder=0)
            axes.annotate(
                stretch.name,
                ((stretch.begin_s + stretch.end_s) / 2, 1.0),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="bottom",
                color=_GREY,
                fontsize=8,
            )
        for curve in found:
            axes.plot(*_with_gaps(curve), lw=1.4, label=curve.name)
        for mark in marks:
            axes.axvline(mark.at_s, color="#b00020", lw=0.9, ls="--")
            axes.annotate(
                mark.name,
                (mark.at_s, 0.97),
                xycoords=("data", "axes fraction"),
                rotation=90,
                ha="right",
                va="top",
                fontsize=7,
                color="#b00020",
            )
        if line_at is not None:
            axes.axhline(line_at, color=_GREY, lw=0.8, ls=":")
        if percent:
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_ylim(bottom=bottom, top=top)
        axes.set_xlabel("seconds since the loop began")
        axes.set_title(title, loc="left", pad=16, fontweight="bold")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)

    return _svg(draw)


def bars(title: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Groups of bars with their values.

    Args:
        title: Above.
        groups: Group -> bar -> share.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        names = list(next(iter(groups.values())))
        width = 0.8 / len(names)
        for number, name in enumerate(names):
            at = [position + (number - (len(names) - 1) / 2) * width for position in
                  range(len(groups))]  # fmt: skip
            drawn = axes.bar(at, [group[name] for group in groups.values()], width, label=name)
            axes.bar_label(drawn, fmt=lambda value: f"{value:.1%}", fontsize=7)
        axes.set_xticks(range(len(groups)), list(groups))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_title(title, loc="left", fontweight="bold")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)

    return _svg(draw)


def _with_gaps(curve: Curve) -> tuple[FloatArray, FloatArray]:
    """A curve's points with a break wherever nothing was measured for some seconds."""
    breaks = np.flatnonzero(np.diff(curve.at_s) > _GAP_S) + 1
    return np.insert(curve.at_s, breaks, np.nan), np.insert(curve.value, breaks, np.nan)


def _svg(draw: Callable[[Figure], None]) -> str:
    style: dict[str, Any] = dict(_STYLE)
    with rc_context(style):  # type: ignore[arg-type]
        figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
        draw(figure)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    # Inside a page: without the XML declaration and the document type.
    found = text.getvalue()
    return found[found.index("<svg") :]
