"""What a benchmark found: figures by dotted names, as JSON, as a table, and as Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from tests.benchmarks.imagenet.blocks import Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured value.

    Attributes:
        name: Dotted, such as ``cpu.b1.ratio_to_resnet50``.
        value: The figure, or text where it is a name or a version.
        unit: Its unit; empty for a ratio or text.
        low: Lower end of its 95 % interval, or None where there is none.
        high: Upper end of it.
        how: How it was measured.
    """

    name: str
    value: float | str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    how: str

    def __post_init__(self) -> None:
        for number in (self.value, self.low, self.high):
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{self.name} is {number}; expected a finite number")

    @classmethod
    def of(cls, name: str, spread: Spread, unit: str = "", *, how: str) -> Figure:
        """From repeated measurements."""
        return cls(
            name=name, value=spread.median, unit=unit, low=spread.low, high=spread.high, how=how
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What a figure must keep.

    Attributes:
        most: Largest value accepted, or None.
        least: Smallest one, or None.
    """

    most: float | None = None
    least: float | None = None

    def kept(self, value: float) -> bool:
        """Whether the value keeps it."""
        return (self.most is None or value <= self.most) and (
            self.least is None or value >= self.least
        )

    def __str__(self) -> str:
        return f"≤ {self.most:g}" if self.most is not None else f"≥ {self.least:g}"


BARS: Mapping[str, Bar] = {
    "cpu.b1.ratio_to_resnet50": Bar(most=2.0),
    "cpu.b8.ratio_to_resnet50": Bar(most=2.0),
    "cpu.b8.share_of_matmul_peak": Bar(least=0.6),
    "gpu.b64.ratio_to_resnet50": Bar(most=2.0),
    "gpu.b256.ratio_to_resnet50": Bar(most=2.0),
    "agreement.ib_inn_50.log_posterior": Bar(most=1e-3),
    "agreement.ib_inn_50.bits_per_dim": Bar(most=1e-5),
    "agreement.embedded.log_posterior": Bar(most=1e-3),
    "agreement.embedded.bits_per_dim": Bar(most=1e-5),
    "agreement.embedded.p_value_steps": Bar(most=2.0),
    "memory.ib_inn_50.above_bound": Bar(most=0.0),
    "load.ib_inn_50.seconds": Bar(most=3.0),
    "explain.ib_inn_50.completeness_error": Bar(most=1e-2),
}
"""What is accepted, by name; every other figure only informs."""


class Figures:
    """Figures in the order found, each name once."""

    def __init__(self) -> None:
        self._found: dict[str, Figure] = {}

    def add(self, *figures: Figure) -> None:
        """Take figures on.

        Raises:
            ValueError: A name is there already.
        """
        for figure in figures:
            if figure.name in self._found:
                raise ValueError(f"{figure.name} is measured twice; expected each name once")
            self._found[figure.name] = figure

    def __iter__(self) -> Iterator[Figure]:
        return iter(self._found.values())

    def __len__(self) -> int:
        return len(self._found)

    def value(self, name: str) -> float:
        """The number of that name."""
        found = self._found[name].value
        assert not isinstance(found, str)
        return found

    def missed(self) -> list[str]:
        """A sentence for each figure outside of its bar."""
        return [
            f"{figure.name} is {_number(figure.value)}, accepted is {BARS[figure.name]}"
            for figure in self
            if not _kept(figure)
        ]

    def to_json(self) -> str:
        """Flat: name -> value, unit, low, high, how."""
        content = {
            figure.name: {
                "value": figure.value,
                "unit": figure.unit,
                "low": figure.low,
                "high": figure.high,
                "how": figure.how,
            }
            for figure in self
        }
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Figures:
        """What `to_json` wrote."""
        found = cls()
        content: dict[str, dict[str, Any]] = json.loads(text)
        found.add(*(Figure(name=name, **entry) for name, entry in content.items()))
        return found

    def table(self, *, how: bool = False) -> Table:
        """For a terminal.

        Args:
            how: Whether a column says how each figure was measured.
        """
        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in ("figure", "value", "95 % interval", "unit", "accepted"):
            right = heading in ("value", "95 % interval")
            table.add_column(heading, justify="right" if right else "left", no_wrap=True)
        if how:
            table.add_column("how")
        last = ""
        for figure in self:
            group = figure.name.partition(".")[0]
            if last and group != last:
                table.add_section()
            last = group
            style = None if _kept(figure) else "bold red"
            cells = _cells(figure)
            table.add_row(*(cells if how else cells[:-1]), style=style)
        return table

    def markdown(self, *, chosen: Callable[[Figure], bool] = lambda figure: True) -> str:
        """A table for a README."""
        lines = ["| figure | value | 95 % interval | accepted | how |", "|---|---|---|---|---|"]
        for figure in self:
            if not chosen(figure):
                continue
            name, value, interval, unit, accepted, how = _cells(figure)
            shown = f"{value} {unit}".strip()
            lines.append(_row((f"`{name}`", shown, interval, accepted, how.replace("|", "\\|"))))
        return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _kept(figure: Figure) -> bool:
    bar = BARS.get(figure.name)
    return bar is None or (not isinstance(figure.value, str) and bar.kept(figure.value))


def _cells(figure: Figure) -> tuple[str, str, str, str, str, str]:
    interval = ""
    if figure.low is not None and figure.high is not None:
        interval = f"{_number(figure.low)} to {_number(figure.high)}"
    accepted = ""
    if (bar := BARS.get(figure.name)) is not None:
        accepted = f"{bar}{'' if _kept(figure) else '  MISSED'}"
    return (figure.name, _number(figure.value), interval, figure.unit, accepted, figure.how)


def _number(value: float | str) -> str:
    """Three digits that count, whole numbers in full, very small ones with an exponent."""
    if isinstance(value, str):
        return value
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    if size < 1e-3:
        return f"{value:.1e}"
    return f"{value:.{2 - math.floor(math.log10(size))}f}"
