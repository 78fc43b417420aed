"""Answers: one in full, several as a table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.console import Group as Lines
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ibinn.rendering.words import action_text, bar, facts, p_value, percent, printable, verdict_text
from ibinn.types import (
    Action,
    ConformalSet,
    Decision,
    InputInfo,
    ObservedAccuracy,
    Prediction,
    Verdict,
)

_CLASSES_SHOWN = 3


@dataclasses.dataclass(frozen=True, slots=True)
class _Tail:
    """A path cut at its front where the column is too narrow: the file's name is at the end."""

    path: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = Text(self.path, no_wrap=True)
        if text.cell_len > options.max_width:
            text = Text("…" + self.path[1 - options.max_width :], no_wrap=True)
        yield text

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        width = Text(self.path).cell_len
        return Measurement(min(12, width), width)


def prediction_block(name: str, prediction: Prediction) -> RenderableType:
    """One answer in full: classes, verdict with its reason, and the figures behind it."""
    head = Text.assemble(
        (printable(name), "bold"), "  ", (_input_line(prediction.input), "dim"), no_wrap=True
    )
    classes = Table.grid(padding=(0, 2))
    classes.add_column(no_wrap=True)
    classes.add_column(no_wrap=True)
    classes.add_column(justify="right", no_wrap=True)
    shown = prediction.classes[:_CLASSES_SHOWN]
    for position, score in enumerate(shown):
        classes.add_row(
            Text(printable(score.name), style="bold" if position == 0 else ""),
            bar(score.probability),
            percent(score.probability),
        )
    rest = prediction.classes[_CLASSES_SHOWN:]
    if rest:
        share = math.fsum(score.probability for score in rest)
        classes.add_row(Text(f"{len(rest)} others", style="dim"), bar(share), percent(share))

    figures = [("unusual?", _combined_line(prediction))]
    if prediction.conformal is not None:
        figures.append(("class set", _conformal_line(prediction.conformal)))
    figures += [
        (f"{found.method.value} set", _conformal_line(found))
        for found in prediction.conformal_sets
        if found != prediction.conformal
    ]
    figures.append(("density", f"{prediction.bits_per_dim:.2f} bits/dim"))
    if prediction.observed_accuracy is not None:
        figures.append(("accuracy", _observed_line(prediction.observed_accuracy)))

    sentences = [_sentence(verdict_text(prediction.verdict), prediction.reason)]
    if (decision := prediction.decision) is not None:
        figures.append(("policy", f"rule {decision.rule}, {_cost(decision)}"))
        sentences.append(_sentence(_decision_text(decision), decision.reason))
    body = Lines(*sentences, "", classes, "", facts(figures))
    return Lines(head, Padding(body, (0, 0, 1, 2), expand=False))


def predictions_table(answers: Sequence[tuple[str, Prediction]]) -> RenderableType:
    """Several answers, a line each, and under them why some were not simply answered."""
    decided = any(prediction.decision for _, prediction in answers)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("image")
    table.add_column("class", no_wrap=True, style="bold")
    table.add_column("probability", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    if decided:
        table.add_column("decision", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("set", justify="right", no_wrap=True)
    table.add_column("bits/dim", justify="right", no_wrap=True)
    for name, prediction in answers:
        probability = prediction.top.probability
        table.add_row(
            _Tail(printable(name)),
            Text(printable(prediction.top.name)),
            Text.assemble(bar(probability, 5), f" {percent(probability):>7}"),
            verdict_text(prediction.verdict),
            *((_decision_text(prediction.decision),) if decided else ()),
            p_value(prediction.combined.p_value if prediction.combined else None),
            str(len(prediction.conformal.classes)) if prediction.conformal else "–",
            f"{prediction.bits_per_dim:.2f}",
        )
    reasons = Table.grid(padding=(0, 2))
    reasons.add_column(no_wrap=True)
    reasons.add_column()
    for name, prediction in answers:
        if prediction.verdict is not Verdict.NOT_FLAGGED:
            sentence = Text.assemble((printable(name), "bold"), ": ", printable(prediction.reason))
            reasons.add_row(verdict_text(prediction.verdict), sentence)
        decision = prediction.decision
        if decision is not None and decision.action is not Action.ACCEPT:
            sentence = Text.assemble((printable(name), "bold"), ": ", printable(decision.reason))
            reasons.add_row(action_text(decision.action), sentence)
    counts = Text(_count_line([prediction for _, prediction in answers]), style="dim")
    return Lines(table, "", *((reasons, "") if reasons.row_count else ()), counts)


def _sentence(what: Text, reason: str) -> Text:
    return Text.assemble(what, "  ", printable(reason), no_wrap=False)


def _decision_text(decision: Decision | None) -> Text:
    """The action, and the class to act on if there is one."""
    if decision is None:
        return Text("–")
    text = action_text(decision.action)
    if decision.class_name is not None:
        text = Text.assemble(text, f" {printable(decision.class_name)}", no_wrap=True)
    return text


def _cost(decision: Decision) -> str:
    if decision.expected_cost is None:
        return "no expected cost"
    return f"expected cost of acting {decision.expected_cost:.3g}"


def _input_line(info: InputInfo) -> str:
    line = f"{info.width}×{info.height} {printable(info.format)}"
    region = info.region
    if (region.width, region.height) != (info.width, info.height):
        line += f", looked at {region.width}×{region.height} from ({region.left}, {region.top})"
    return line


def _combined_line(prediction: Prediction) -> str:
    combined = prediction.combined
    if combined is None:
        return "not tested: the model is not calibrated"
    relation = "≤" if combined.flagged else ">"
    limit = f"p = {p_value(combined.p_value)} {relation} α = {combined.alpha:g}"
    if combined.p_value is None:
        limit = f"p not defined, α = {combined.alpha:g}"
    return (
        f"{limit}  (smallest possible {p_value(combined.smallest_p)}, "
        f"{prediction.calibration_count:,} calibration images)"
    )


def _conformal_line(conformal: ConformalSet) -> str:
    measured = (
        f", measured {percent(conformal.measured_coverage)}"
        if conformal.measured_coverage is not None
        else ""
    )
    names = ", ".join(printable(name) for name in conformal.classes)
    return f"{{{names}}}  (holds the truth for {percent(conformal.target_coverage)}{measured})"


def _observed_line(observed: ObservedAccuracy) -> str:
    return (
        f"{percent(observed.accuracy)} of {observed.count:,} calibration images at this "
        f"confidence  (95 % interval {100 * observed.low:.1f}–{percent(observed.high)})"
    )


def _count_line(predictions: Sequence[Prediction]) -> str:
    counted = ", ".join(
        f"{count} {verdict.value.replace('_', ' ')}"
        for verdict in Verdict
        if (count := sum(prediction.verdict is verdict for prediction in predictions))
    )
    digests = ", ".join(
        dict.fromkeys(prediction.versions.weights[:12] for prediction in predictions)
    )
    decisions = [prediction.decision for prediction in predictions if prediction.decision]
    decided = ", ".join(
        f"{count} {action.value.replace('_', ' ')}"
        for action in Action
        if (count := sum(decision.action is action for decision in decisions))
    )
    return (
        f"{len(predictions)} images: {counted}{'; ' if decided else ''}{decided}; "
        f"model {printable(digests)}"
    )
