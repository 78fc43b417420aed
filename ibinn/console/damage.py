"""What the page says of a damaged image: how the p-values move with the severity."""

from __future__ import annotations

from collections.abc import Sequence

from ibinn.console import markup
from ibinn.console.asking import Damaged
from ibinn.console.corruption import NAMES, SEVERITIES, strength
from ibinn.console.markup import Cell
from ibinn.console.plots import Line, severity_figure
from ibinn.rendering.words import p_value, percent
from ibinn.types import Group, Prediction

GROUPS = (Group.PIXEL, Group.STYLE, Group.SEMANTIC)


def group_p_value(prediction: Prediction, group: Group) -> float | None:
    """The p-value of a group of tests: the smallest of theirs, times how many they are, up to 1.

    By Bonferroni's inequality it is a p-value, however the tests depend on each other.
    """
    found = [
        test.p_value
        for test in prediction.tests
        if test.group is group and test.p_value is not None
    ]
    return min(1.0, len(found) * min(found)) if found else None


def p_lines(answers: Sequence[Prediction]) -> tuple[Line, ...]:
    """The p-values over the severity: of the combined test, then of each group of tests."""
    severities = tuple(float(severity) for severity in range(len(answers)))
    combined = tuple(answer.combined.p_value if answer.combined else None for answer in answers)
    lines = [Line(name="combined (decides)", x=severities, y=combined)]
    for group in GROUPS:
        values = tuple(group_p_value(answer, group) for answer in answers)
        if any(value is not None for value in values):
            lines.append(Line(name=f"{group.value} tests", x=severities, y=values))
    return tuple(lines)


def damage_html(damaged: Damaged, severity: int) -> str:
    """The damaged image, its answer, and the p-values over all severities."""
    answer = damaged.answers[severity]
    name = NAMES[damaged.corruption]
    how = strength(damaged.corruption, severity)
    side = damaged.images[severity].shape[0]
    shown = markup.picture(
        damaged.images[severity],
        shows=f"The image with {name.lower()} of severity {severity}",
        caption=f"{name}, severity {severity}: {how}. Damaged after reduction to {side}×{side}.",
        side=240,
        element="damaged",
    )
    combined = answer.combined
    alpha = combined.alpha if combined else 1.0
    drawn = (
        ""
        if combined is None
        else markup.drawing(
            severity_figure(p_lines(damaged.answers), alpha=alpha, severity=severity),
            shows=f"p-values over severities 0 to 5 of {name.lower()}; the figures are in the "
            "table below",
            caption="A group's p is the smallest of its tests times their number.",
            element="severities",
        )
    )
    verdict = markup.paragraph(
        f"Severity {severity}: {answer.verdict.value.replace('_', ' ')}. {answer.reason}",
        kind="headline",
    )
    return f"{verdict}{shown}{drawn}{_table(damaged)}"


def _table(damaged: Damaged) -> str:
    lines = p_lines(damaged.answers)
    rows: list[tuple[Cell, ...]] = []
    for severity, answer in zip(SEVERITIES, damaged.answers, strict=True):
        rows.append(
            (
                f"{severity} ({strength(damaged.corruption, severity)})",
                *(p_value(line.y[severity]) for line in lines),
                answer.verdict.value.replace("_", " "),
                f"{answer.top.name} {percent(answer.top.probability)}",
            )
        )
    return markup.table(
        f"{NAMES[damaged.corruption]}: p-values by severity",
        ("severity", *(f"p {line.name}" for line in lines), "verdict", "class"),
        rows,
        element="severity-table",
    )
