"""Words, numbers and bars that every page uses."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from ibinn.types import Action, Verdict

VERDICT_STYLES = {
    Verdict.NOT_FLAGGED: "bold green",
    Verdict.AMBIGUOUS: "bold yellow",
    Verdict.UNKNOWN: "bold red",
    Verdict.NOT_ASSESSED: "bold magenta",
}
ACTION_STYLES = {
    Action.ACCEPT: "bold green",
    Action.DEFER: "bold yellow",
    Action.REJECT_INPUT: "bold red",
}
_EIGHTHS = " ▏▎▍▌▋▊▉"


def bar(share: float, width: int = 24) -> Text:
    """Horizontal bar of ``share`` in [0, 1], ``width`` cells wide, exact to an eighth of a cell."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    cells = "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
    return Text(cells.ljust(width), style="cyan", no_wrap=True)


def printable(text: str) -> str:
    """``text`` with control characters replaced, so that no answer can steer a terminal."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def verdict_text(verdict: Verdict) -> Text:
    """The verdict in its colour."""
    return Text(verdict.value.replace("_", " "), style=VERDICT_STYLES[verdict], no_wrap=True)


def action_text(action: Action) -> Text:
    """The action in its colour."""
    return Text(action.value.replace("_", " "), style=ACTION_STYLES[action], no_wrap=True)


def facts(rows: list[tuple[str, str]]) -> Table:
    """Labels with what belongs to them, a line each."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column()
    for label, value in rows:
        table.add_row(label, Text(printable(value)))
    return table


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.1f} %"


def p_value(value: float | None) -> str:
    """A p-value with the digits that it has."""
    if value is None:
        return "–"
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.1e}"
