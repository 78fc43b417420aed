"""The page that the loop leaves: its timeline, its plots and its figures, in one file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ibinn.loop import plots
from ibinn.loop.figures import (
    Curve,
    PhaseFigures,
    evidence,
    flag_rate,
    gauge,
    over_time,
    suspended,
    truths_of_accepted,
)
from ibinn.loop.judging import Judged
from ibinn.loop.plots import Mark, Stretch
from ibinn.loop.story import Outcome
from ibinn.loop.timeline import Event

Drawer = Callable[..., str]
"""`ibinn.loop.plots.curves` with the phases and marks of this run."""

_MARKS = frozenset({"suspended", "retraining", "reloaded"})
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d1d1f; max-width: 66rem; margin: 2rem auto;
       padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2rem .7rem; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; min-width: 12rem; }
svg { width: 100%; height: auto; }
.alarm { color: #b00020; font-weight: 600; } .good { color: #1b7a3a; } .step { font-weight: 600; }
.note { color: #777; } td.time { color: #777; white-space: nowrap; }
.timeline td { text-align: left; border: 0; padding: .05rem .7rem; vertical-align: top; }
.failed { background: #fde7ea; padding: .6rem 1rem; } .ok { background: #e8f3e8; padding: .6rem 1rem; }
"""  # noqa: E501


def write_page(
    outcome: Outcome, events: Sequence[Event], missing: Sequence[str], path: Path
) -> Path:
    """Write the page; it loads nothing.

    Args:
        outcome: What came of the loop.
        events: The timeline.
        missing: What did not come out as it must.
        path: Of the file.

    Returns:
        The path.
    """
    stretches = [
        Stretch(name=figures.name, begin_s=figures.begin_s, end_s=figures.end_s)
        for figures in outcome.phases
    ]
    marks = [Mark(name=event.name, at_s=event.at_s) for event in events if event.name in _MARKS]
    samples = outcome.samples

    def drawn(title: str, curves: Sequence[Curve], **how: Any) -> str:
        return plots.curves(title, curves, stretches=stretches, marks=marks, **how)

    parts = [
        _verdict(missing),
        _phases(outcome.phases),
        drawn("Flag rate and guarantee", [flag_rate(outcome.seen), suspended(samples)], top=1.05),
        drawn(
            "Calibration with labels: the server's counters",
            [
                over_time(samples, "top-label calibration error", "ece"),
                over_time(samples, "accuracy of the labelled", "accuracy"),
            ],
            top=1.05,
        ),
        drawn(
            "Calibration without labels: expected accuracy of accepted images",
            [
                over_time(samples, "expected, without labels", "expected"),
                truths_of_accepted(outcome.seen),
            ],
            top=1.05,
        ),
        drawn(
            "Recent images: p-values that fall when the images change",
            [
                gauge(samples, "ibinn_recent_uniformity_p_value", "uniformity of p-values"),
                gauge(samples, "ibinn_recent_typicality_p_value", "group typicality"),
            ],
            percent=False,
        ),
        drawn(
            "Drift detectors: log-evidence as a share of what raises the alarm",
            evidence(samples),
            percent=False,
            top=3.0,
            bottom=-1.0,
            line_at=1.0,
        ),
        *_recorded(outcome, drawn),
        _judged(outcome.base, outcome.promoted),
        _promotion(outcome),
        _retraining(outcome),
        _timeline(events),
    ]
    title = "The loop: noticed, heard, retrained, promoted, recovered"
    path.write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>\n"
        + "\n".join(parts)
        + "\n</body></html>\n",
        encoding="utf-8",
    )
    return path


def _verdict(missing: Sequence[str]) -> str:
    if missing:
        items = "".join(f"<li>{escape(text)}</li>" for text in missing)
        return f'<div class="failed">Not as it must be:<ul>{items}</ul></div>'
    return '<p class="ok">Everything came out as it must.</p>'


def _phases(phases: Sequence[PhaseFigures]) -> str:
    head = (
        "traffic", "images", "per second", "UNKNOWN", "accuracy", "confidence",
        "calibration error", "labels", "error by labels", "accepted: expected", "true", "guarantee",
    )  # fmt: skip
    rows = [
        (
            found.title, f"{found.images:,}", f"{found.rate:.0f}", _percent(found.unknown),
            _percent(found.accuracy), _percent(found.confidence), _percent(found.ece),
            f"{found.labelled:,}", _percent(found.labelled_ece), _percent(found.expected_accuracy),
            _percent(found.accepted_accuracy), "held" if found.held_at_end else "SUSPENDED",
        )
        for found in phases
    ]  # fmt: skip
    return "<h2>Traffic</h2>" + _table(head, rows)


def _judged(base: Judged, promoted: Judged) -> str:
    sets = {
        "as they are": (base.clean, promoted.clean),
        "noisy": (base.drifted, promoted.drifted),
        "noisy, classes 0 to 8": (base.drifted_known, promoted.drifted_known),
    }
    error = plots.bars(
        "Top-label calibration error on held-out digits",
        {name: {"base": b.ece, "promoted": p.ece} for name, (b, p) in sets.items()},
    )
    right = plots.bars(
        "Accuracy on held-out digits",
        {name: {"base": b.accuracy, "promoted": p.accuracy} for name, (b, p) in sets.items()},
    )
    head = ("held-out digits", "images", "model", "accuracy", "confidence", "calibration error",
            "UNKNOWN", "new class recognised")  # fmt: skip
    rows = [
        (
            name, f"{worth.count:,}", model, _percent(worth.accuracy), _percent(worth.confidence),
            f"{worth.ece:.4f}", _percent(worth.unknown),
            _percent(worth.missing_recognised) if worth.missing_count else "–",
        )
        for name, pair in sets.items()
        for model, worth in zip(("base", "promoted"), pair, strict=True)
    ]  # fmt: skip
    return "<h2>Both models on held-out digits</h2>" + error + right + _table(head, rows)


def _promotion(outcome: Outcome) -> str:
    rows = [
        (
            f"{figure['kind']} {figure['subject']}".strip(), figure["against"],
            f"{figure['count']:,}", _percent(figure["candidate"]), _percent(figure["reference"]),
            _percent(figure["bound"]), _percent(figure["margin"]), figure["outcome"],
        )
        for figure in outcome.decision["figures"]
    ]  # fmt: skip
    head = ("figure", "against", "images", "candidate", "reference", "bound", "margin", "outcome")
    return "<h2>Promotion</h2>" + _table(head, rows)


def _retraining(outcome: Outcome) -> str:
    steps = [
        (step["name"], f"{step['left_out']:,}", f"{step['left']:,}", step["words"])
        for step in outcome.retraining["steps"]
    ]
    sources = [
        (source["name"], source["standing"], f"{source['images']:,}", source["reason"])
        for source in outcome.retraining["sources"]
    ]
    return (
        "<h2>What the new model learnt from</h2>"
        + _table(("step", "left out", "left", "rule"), steps)
        + _table(("source", "standing", "images", "why"), sources)
    )


def _recorded(outcome: Outcome, drawn: Drawer) -> list[str]:
    if not outcome.recorded:
        return []
    curves = [
        Curve(
            name=name,
            at_s=np.array([at for at, _ in points]),
            value=np.array([value for _, value in points]),
        )
        for name, points in outcome.recorded.items()
    ]
    title = "Prometheus's recording rules, over windows of five minutes: they forget more slowly"
    return [drawn(title, curves, top=1.05)]


def _timeline(events: Sequence[Event]) -> str:
    rows = "".join(
        f'<tr><td class="time">{int(event.at_s) // 60}:{int(event.at_s) % 60:02d}</td>'
        f'<td class="{event.kind}">{escape(event.text)}</td></tr>'
        for event in events
    )
    return f'<h2>Timeline</h2><table class="timeline">{rows}</table>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
