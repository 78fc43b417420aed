"""What a server holds and does, and what became of its candidates."""

from __future__ import annotations

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ibinn.rendering.words import facts, percent, printable
from ibinn.serving import (
    AcceptanceFigure,
    Candidate,
    Detector,
    Drift,
    Mode,
    RecordsState,
    ServedModel,
    ServerState,
    Shadow,
)
from ibinn.types import Guarantee

_DIGITS = 12


def state_block(state: ServerState) -> RenderableType:
    """Models, mode, shadow, drift, records and the last candidates of a server."""
    models = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for title in ("role", "model", "weights", "bundle"):
        models.add_column(title, no_wrap=True)
    for served in state.served:
        models.add_row(
            served.role.value,
            Text(printable(served.name), style="bold"),
            printable(served.versions.weights[:_DIGITS]),
            printable(served.bundle),
        )
    rows = [("generation", str(state.generation)), ("workers", _workers(state))]
    if state.shadow is not None:
        rows.append(("shadow", _shadow_line(state.shadow)))
    rows.append(("records", _records_line(state.records)))
    parts: list[RenderableType] = [_mode_line(state), _guarantee_line(state.drift)]
    parts += ["", models, "", facts(rows)]
    if state.drift.detectors:
        parts += ["", _detectors(state.drift.detectors)]
    for candidate in state.candidates:
        parts += ["", candidate_block(candidate)]
    return Lines(*parts)


def candidate_block(candidate: Candidate) -> RenderableType:
    """Whether a candidate passed, why not, and its figures."""
    found = candidate.versions
    outcome = (
        Text("accepted", style="bold green")
        if candidate.accepted
        else Text("refused", style="bold red")
    )
    head = Text.assemble(
        (printable(candidate.bundle), "bold"),
        f"  {found.weights[:_DIGITS] if found else 'not readable'}  ",
        outcome,
        (f"  {candidate.time:%Y-%m-%d %H:%M:%S} UTC", "dim"),
    )
    lines: list[RenderableType] = [Text(f"- {printable(why)}") for why in candidate.reasons]
    if candidate.figures:
        lines.append(_figures(candidate.figures))
    return Lines(head, *(Padding(line, (0, 0, 0, 2), expand=False) for line in lines))


def _mode_line(state: ServerState) -> Text:
    if state.mode is Mode.NORMAL:
        return Text("answers as its policy says", style="bold green")
    why = f": {printable(state.mode_reason)}" if state.mode_reason else ""
    return Text.assemble(("ABSTAINS: every decision is left to people", "bold red"), why)


def _guarantee_line(drift: Drift) -> Text:
    since = "" if drift.since is None else f" since {drift.since:%Y-%m-%d %H:%M:%S} UTC"
    match drift.guarantee:
        case None:
            return Text("nothing watches for drift", style="dim")
        case Guarantee.HELD:
            return Text.assemble(("guarantee held", "bold green"), since)
        case Guarantee.SUSPENDED:
            return Text.assemble(
                ("GUARANTEE SUSPENDED", "bold red"), f"{since}: {printable(drift.reason)}"
            )


def _detectors(detectors: tuple[Detector, ...]) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("drift detector", no_wrap=True)
    for title in ("images", "log-evidence", "alarm at"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("")
    for detector in detectors:
        table.add_row(
            printable(detector.name),
            f"{detector.count:,}",
            f"{detector.log_evidence:.2f}",
            f"{detector.log_threshold:.2f}",
            Text("alarm", style="bold red") if detector.alarmed else "",
        )
    return table


def _records_line(records: RecordsState) -> str:
    if not records.audit:
        return "none are kept"
    told = f"{records.audit.replace('_', ' ')}, {records.database}, {records.waiting:,} waiting"
    if records.dropped:
        told += f", {records.dropped:,} DROPPED"
    return told if records.reachable else f"{told}; NOT REACHABLE"


def _workers(state: ServerState) -> str:
    behind = state.workers - state.workers_agreeing
    return f"{state.workers}" + (f", {behind} not yet at this generation" if behind else "")


def _shadow_line(shadow: Shadow) -> str:
    compared = shadow.compared
    told = f"{_name(shadow.model)}, {percent(shadow.share)} of calls, {compared:,} compared"
    if compared:
        told += (
            f": class differs {percent(shadow.class_differs / compared)}, "
            f"verdict differs {percent(shadow.verdict_differs / compared)}, "
            f"mean difference of confidence {shadow.mean_confidence_difference:.4f}"
        )
    return told + (f"; {shadow.skipped:,} skipped" if shadow.skipped else "")


def _name(served: ServedModel) -> str:
    return f"{served.name} {served.versions.weights[:_DIGITS]}"


def _figures(figures: tuple[AcceptanceFigure, ...]) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("figure", no_wrap=True)
    for title in ("candidate", "present", "limit", "images"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("")
    for figure in figures:
        table.add_row(
            printable(figure.name),
            f"{figure.candidate:.4f}",
            "–" if figure.present is None else f"{figure.present:.4f}",
            f"{figure.limit:.4f}",
            f"{figure.count:,}",
            Text("passed", style="green") if figure.passed else Text("failed", style="bold red"),
        )
    return table
