"""A decision as one self-contained page; it loads nothing."""

from __future__ import annotations

from importlib import resources

from jinja2 import Environment, StrictUndefined

from training.promotion.decision import Decision, State
from training.promotion.judging import Figure, FigureKind, Outcome

TITLES = {
    State.REFUSED: "Refused",
    State.PENDING_APPROVAL: "Waits for a person's approval",
    State.APPROVED_BY_PLAN: "Approved within a signed plan",
}
NAMES = {
    FigureKind.ACCURACY: "accuracy",
    FigureKind.CALIBRATION: "calibration (top-label ECE)",
    FigureKind.FALSE_POSITIVE_RATE: "false-positive rate",
    FigureKind.MISS_RATE: "misses of",
    FigureKind.CLASS_RECALL: "recall of",
    FigureKind.NEW_CLASS_RECALL: "new class",
}
OUTCOMES = {
    Outcome.PASSED: "✓ passed",
    Outcome.INFERIOR: "✗ inferior",
    Outcome.NOT_SHOWN: "✗ not shown",
    Outcome.TOO_FEW: "✗ too few images",
}


def render(decision: Decision) -> str:
    """The page as text."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"share": _share, "points": _points, "title": _title}
    text = resources.files("training.promotion").joinpath("decision.html.j2").read_text("utf-8")
    return environment.from_string(text).render(
        d=decision, titles=TITLES, outcomes=OUTCOMES, REFUSED=State.REFUSED, PASSED=Outcome.PASSED
    )


def _title(figure: Figure) -> str:
    return f"{NAMES[figure.kind]} {figure.subject}".strip()


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def _points(value: float | None) -> str:
    """A difference, in percentage points with its sign."""
    return "–" if value is None else f"{100 * value:+.2f}"
