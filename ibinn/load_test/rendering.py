"""A load test's result on a terminal."""

from __future__ import annotations

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ibinn.load_test.report import OK, LoadReport, Quantiles, Second
from ibinn.rendering.words import facts, percent

_LEVELS = "▁▂▃▄▅▆▇█"
_STYLES = {OK: "green"}


def report_block(report: LoadReport) -> RenderableType:
    """The whole result: statuses with latencies, goodput, its course, and the generator's lag."""
    head = Text.assemble(
        (f"{report.target}", "bold"),
        f"  {report.method.rpartition('/')[2]}  ",
        (_load(report), "dim"),
    )
    rows = [
        ("sent", f"{report.sent:,} images, {report.sent_per_s:,.1f} per second"),
        (
            "goodput",
            f"{report.goodput:,.1f} per second answered within {_ms(report.deadline_s)} "
            f"({percent(report.good_share)} of those sent)",
        ),
        ("late", f"{report.late:,} ({percent(report.late_share)})"),
        ("rejected", f"{report.rejected:,} ({percent(report.rejected_share)})"),
        ("course", f"{_course(report.seconds)}  good answers in each second"),
        ("sent late by", _quantiles(report.lag)),
    ]
    lines: list[RenderableType] = [head, Padding(_statuses(report), (0, 2)), facts(rows)]
    if not report.kept_up:
        lines.append(
            Text(
                "The generator did not keep up: calls left later than planned, so latencies are "
                "in part its own. Use a lower rate, or more machines.",
                style="bold yellow",
            )
        )
    return Lines(*lines)


def _load(report: LoadReport) -> str:
    over = f"{report.connections} connection{'s' * (report.connections > 1)}"
    if report.offered_per_s is None:
        return f"{report.concurrency} calls at a time for {report.duration_s:g} s, {over}"
    return f"{report.offered_per_s:g} images/s for {report.duration_s:g} s, {over}"


def _statuses(report: LoadReport) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("status")
    for name in ("images", "share", "p50", "p90", "p99", "p99.9", "max"):
        table.add_column(name, justify="right")
    for figures in report.codes:
        found = figures.latency
        table.add_row(
            Text(figures.code, style=_STYLES.get(figures.code, "yellow")),
            f"{found.count:,}",
            percent(figures.share),
            *map(_ms, (found.p50_s, found.p90_s, found.p99_s, found.p999_s, found.max_s)),
        )
    return table


def _quantiles(found: Quantiles) -> str:
    return f"p50 {_ms(found.p50_s)}, p99 {_ms(found.p99_s)}, max {_ms(found.max_s)}"


def _course(seconds: tuple[Second, ...]) -> str:
    most = max((second.good for second in seconds), default=0)
    if most == 0:
        return "–"
    return "".join(_LEVELS[round((len(_LEVELS) - 1) * s.good / most)] for s in seconds)


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{1000 * seconds:.1f} ms" if seconds < 0.1 else f"{1000 * seconds:.0f} ms"
