"""Writes a study down: ``study.html``, ``study.json`` and one CSV per table.

The page loads nothing: style and figures are inside it, and its content policy forbids the rest.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from training import published
from training.evaluation import _plain
from training.study import figures as drawings
from training.study.conduct import Conducted
from training.study.figures import Band, Panel, Point
from training.study.findings import Finding, Trend, findings_of, trends_of
from training.study.record import State, write_text
from training.study.summary import (
    Column,
    Figure,
    Results,
    Spread,
    Table,
    average_auroc,
    bits_per_dim,
    calibration,
    error,
    published_average,
    results_of,
)
from training.study.tables import tables_of, to_csv
from training.svg import svg

HTML_FILE = "study.html"
JSON_FILE = "study.json"
FORMAT = 1
NONE = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a study got.

    Attributes:
        runs: Runs in all.
        finished: Runs measured.
        failed: Runs that ended with a reason.
        open: Runs not finished and not failed.
        train_seconds: Training time of all of them together.
        measure_seconds: Time of calibration and measurement.
    """

    runs: int
    finished: int
    failed: int
    open: int
    train_seconds: float
    measure_seconds: float

    @classmethod
    def of(cls, conducted: Conducted) -> Progress:
        """Counts over the records."""
        known = [record for record in conducted.records if record is not None]
        finished = sum(record.state is State.FINISHED for record in known)
        failed = sum(record.state is State.FAILED for record in known)
        return cls(
            runs=len(conducted.runs),
            finished=finished,
            failed=failed,
            open=len(conducted.runs) - finished - failed,
            train_seconds=sum(record.train_seconds for record in known),
            measure_seconds=sum(record.measure_seconds for record in known),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a study says.

    Attributes:
        progress: How far it got.
        findings: Whether the published effects are in our runs.
        trends: Rank correlations with γ.
        tables: In the form of the published ones.
    """

    progress: Progress
    findings: tuple[Finding, ...]
    trends: tuple[Trend, ...]
    tables: tuple[Table, ...]


def write_study(
    conducted: Conducted, out: Path, *, facts: Sequence[tuple[str, str]] = ()
) -> Summary:
    """Write everything that there is into the folder of a study.

    Args:
        conducted: The study, finished or not.
        out: Its folder.
        facts: (name, value) to print: command, machine, libraries.
    """
    results = results_of(conducted)
    summary = Summary(
        progress=Progress.of(conducted),
        findings=findings_of(results),
        trends=trends_of(results),
        tables=tables_of(results),
    )
    for table in summary.tables:
        write_text(out / f"{table.name}.csv", to_csv(table))
    write_text(out / JSON_FILE, _json(conducted, summary, facts))
    write_text(out / HTML_FILE, _html(conducted, results, summary, facts))
    return summary


def _json(conducted: Conducted, summary: Summary, facts: Sequence[tuple[str, str]]) -> str:
    content = {
        "format": FORMAT,
        "study": conducted.study.name,
        "complete": conducted.complete,
        "facts": facts,
        "summary": summary,
        "records": [record for record in conducted.records if record is not None],
    }
    return json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _html(
    conducted: Conducted,
    results: Sequence[Results],
    summary: Summary,
    facts: Sequence[tuple[str, str]],
) -> str:
    drawn = {
        "trade_off": drawings.trade_off(_bands(results)),
        "plane": drawings.plane(_paths(results)),
    }
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        spread=spread_text, minutes=minutes_text, num=number, headings=headings
    )
    template = resources.files("training.study").joinpath("study.html.j2").read_text("utf-8")
    return environment.from_string(template).render(
        study=conducted.study,
        complete=conducted.complete,
        results=results,
        summary=summary,
        # matplotlib made these elements; everything else is escaped.
        figures={name: Markup(svg(figure, name=name)) for name, figure in drawn.items()},
        cifar100=published.CIFAR100,
        facts=facts,
    )


def _bands(results: Sequence[Results]) -> list[Band]:
    bands = [
        Band(
            label=part.block.name,
            panels=tuple(_panel(title, part, figure) for title, figure in _panels(part)),
        )
        for part in results
    ]
    return [*bands, _published_band()]


def _panels(results: Results) -> tuple[tuple[str, Figure], ...]:
    return (
        ("error %", error),
        ("bits/dim", bits_per_dim),
        ("calibration GM %", calibration),
        ("OoD AUROC %", average_auroc(results.block, combined=False)),
    )


def _panel(title: str, results: Results, figure: Figure) -> Panel:
    points = []
    for gamma, name in _series(results):
        found = results.spread(name, figure)
        # An untrained posterior would flatten the others.
        posterior = figure in (error, calibration)
        hidden = found is None or (gamma == 0.0 and posterior)
        points.append(_point(gamma, None if hidden else found))
    return Panel(title=title, points=tuple(points))


def _series(results: Results) -> list[tuple[float, str]]:
    return sorted((e.gamma, e.name) for e in results.entries if e.gamma is not None)


def _point(gamma: float, found: Spread | None) -> Point:
    if found is None:
        return Point(gamma=_gamma(gamma), mean=math.nan, low=math.nan, high=math.nan)
    deviation = found.deviation or 0.0
    return Point(
        gamma=_gamma(gamma),
        mean=found.mean,
        low=found.mean - deviation,
        high=found.mean + deviation,
    )


def _published_band() -> Band:
    rows = {0.0: "γ = 0", 1.0: "IB-INN γ = 1", math.inf: "γ → ∞"}
    quoted = {gamma: _published(name) for gamma, name in rows.items()}

    def panel(title: str, values: dict[float, float | None]) -> Panel:
        return Panel(
            title=title,
            points=tuple(
                _point(gamma, None if value is None else Spread(count=1, mean=value))
                for gamma, value in values.items()
            ),
        )

    return Band(
        label="published",
        published=True,
        panels=(
            panel("error %", {g: q.error for g, q in quoted.items()}),
            panel("bits/dim", {g: q.bits_per_dim for g, q in quoted.items()}),
            panel("calibration GM %", {g: q.geometric_mean for g, q in quoted.items()}),
            panel("OoD AUROC %", {g: published_average(q) for g, q in quoted.items()}),
        ),
    )


def _published(name: str) -> published.PublishedRow:
    return next(row for row in published.CIFAR10 if row.model == name)


def _paths(results: Sequence[Results]) -> list[drawings.Path]:
    paths = []
    for part in results:
        points = []
        for gamma, name in _series(part):
            bits, wrong = part.spread(name, bits_per_dim), part.spread(name, error)
            if gamma > 0.0 and bits is not None and wrong is not None:
                points.append((bits.mean, wrong.mean, _gamma(gamma)))
        paths.append(_path(part.block.name, points))
    quoted = [
        (row.bits_per_dim, 100 - row.top1, _gamma(row.gamma))
        for row in published.IMAGENET
        if row.gamma is not None and row.top1 is not None and row.bits_per_dim is not None
    ]
    return [*paths, _path("published, ImageNet", quoted, from_paper=True)]


def _path(
    label: str, points: Sequence[tuple[float, float, str]], *, from_paper: bool = False
) -> drawings.Path:
    return drawings.Path(
        label=label,
        bits=tuple(bits for bits, _, _ in points),
        error=tuple(wrong for _, wrong, _ in points),
        gammas=tuple(gamma for _, _, gamma in points),
        published=from_paper,
    )


def _gamma(gamma: float) -> str:
    return "∞" if math.isinf(gamma) else f"{gamma:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """A heading over neighbouring columns of one group."""

    title: str
    span: int


def headings(columns: Sequence[Column]) -> list[Heading]:
    """Headings over the columns, left to right."""
    return [
        Heading(title=title, span=len(list(group)))
        for title, group in itertools.groupby(columns, key=lambda column: column.group)
    ]


def spread_text(cell: Spread | None, digits: int = 2) -> str:
    """A cell: mean ± standard deviation.

    >>> spread_text(Spread.of([1.0, 2.0, 3.0])), spread_text(None)
    ('2.00 ± 1.00', '–')
    """
    if cell is None:
        return NONE
    text = f"{cell.mean:,.{digits}f}"
    return text if cell.deviation is None else f"{text} ± {cell.deviation:,.{digits}f}"


def minutes_text(seconds: float) -> str:
    """A duration.

    >>> minutes_text(750.0)
    '12.5 min'
    """
    return f"{seconds / 60:.1f} min"


def number(value: float | None, digits: int = 2) -> str:
    """A number with a fixed number of digits, or a dash."""
    return NONE if value is None else f"{value:,.{digits}f}"
