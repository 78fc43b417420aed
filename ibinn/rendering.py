"""How answers look on a terminal, as rich renderables.

Functions of the values of `ibinn.types`; nothing here prints. Colour stands only in styles, so
that a console without colour shows the same words.
"""

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

from ibinn.types import (
    ConformalSet,
    Group,
    InputInfo,
    ModelInfo,
    ObservedAccuracy,
    Prediction,
    TestInfo,
    Verdict,
)

VERDICT_STYLES = {
    Verdict.NOT_FLAGGED: "bold green",
    Verdict.AMBIGUOUS: "bold yellow",
    Verdict.UNKNOWN: "bold red",
    Verdict.NOT_ASSESSED: "bold magenta",
}
_EIGHTHS = " ▏▎▍▌▋▊▉"
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
            _percent(score.probability),
        )
    rest = prediction.classes[_CLASSES_SHOWN:]
    if rest:
        share = math.fsum(score.probability for score in rest)
        classes.add_row(Text(f"{len(rest)} others", style="dim"), bar(share), _percent(share))

    figures = Table.grid(padding=(0, 2))
    figures.add_column(no_wrap=True, style="dim")
    figures.add_column()
    figures.add_row("unusual?", Text(_combined_line(prediction)))
    if prediction.conformal is not None:
        figures.add_row("class set", Text(_conformal_line(prediction.conformal)))
    figures.add_row("density", f"{prediction.bits_per_dim:.2f} bits/dim")
    if prediction.observed_accuracy is not None:
        figures.add_row("accuracy", Text(_observed_line(prediction.observed_accuracy)))

    sentence = Text.assemble(
        verdict_text(prediction.verdict), "  ", printable(prediction.reason), no_wrap=False
    )
    body = Lines(sentence, "", classes, "", figures)
    return Lines(head, Padding(body, (0, 0, 1, 2), expand=False))


def predictions_table(answers: Sequence[tuple[str, Prediction]]) -> RenderableType:
    """Several answers, a line each, and under them why some were not simply answered."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("image")
    table.add_column("class", no_wrap=True, style="bold")
    table.add_column("probability", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("set", justify="right", no_wrap=True)
    table.add_column("bits/dim", justify="right", no_wrap=True)
    for name, prediction in answers:
        probability = prediction.top.probability
        table.add_row(
            _Tail(printable(name)),
            Text(printable(prediction.top.name)),
            Text.assemble(bar(probability, 5), f" {_percent(probability):>7}"),
            verdict_text(prediction.verdict),
            _p_value(prediction.combined.p_value if prediction.combined else None),
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
    counts = Text(_count_line([prediction for _, prediction in answers]), style="dim")
    return Lines(table, "", *((reasons, "") if reasons.row_count else ()), counts)


def model_block(info: ModelInfo) -> RenderableType:
    """What a model is, what it accepts, and what its tests are worth."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True, style="dim")
    facts.add_column()
    versions = info.versions
    network = f"{info.architecture}, {info.parameters:,} parameters, input {info.input_side}×"
    accepts = (
        f"{', '.join(info.formats)}; at most {info.max_bytes / 2**20:.3g} MiB, "
        f"{info.max_pixels / 1e6:g} megapixels, {info.max_side:,} pixels per side"
    )
    rows = [
        ("classes", f"{len(info.classes)}: {', '.join(info.classes)}"),
        ("network", network + f"{info.input_side} pixels"),
        ("accepts", accepts),
        ("calibration", _calibration_line(info)),
        ("tests", _tests_line(info.tests)),
        ("heatmaps", "yes" if info.explainable else "not with this network"),
        ("weights", versions.weights),
        ("calibrated", versions.calibration or "–"),
        ("policy", versions.policy or "–"),
        ("software", f"ibinn {versions.software}, class list {versions.taxonomy}"),
        ("intended use", info.intended_use),
        ("trained on", info.training_data),
    ]
    for label, value in rows:
        facts.add_row(label, Text(printable(value)))
    parts: list[RenderableType] = [
        Text(printable(info.name), style="bold"),
        Padding(facts, (0, 0, 1, 2), expand=False),
    ]
    if info.metrics:
        metrics = Table.grid(padding=(0, 2))
        for name, measured in info.metrics:
            metrics.add_row(Text(printable(name), style="dim"), f"{measured:.4g}")
        parts += [
            Text("measured on the test images", style="bold"),
            Padding(metrics, (0, 0, 1, 2), expand=False),
        ]
    if any(test.auroc or test.miss_rates for test in info.tests):
        parts += [
            Text("combined test on kinds of unknown images", style="bold"),
            Padding(_worth(info.tests), (0, 0, 0, 2), expand=False),
        ]
    return Lines(*parts)


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
    limit = f"p = {_p_value(combined.p_value)} {relation} α = {combined.alpha:g}"
    if combined.p_value is None:
        limit = f"p not defined, α = {combined.alpha:g}"
    return (
        f"{limit}  (smallest possible {_p_value(combined.smallest_p)}, "
        f"{prediction.calibration_count:,} calibration images)"
    )


def _conformal_line(conformal: ConformalSet) -> str:
    measured = (
        f", measured {_percent(conformal.measured_coverage)}"
        if conformal.measured_coverage is not None
        else ""
    )
    names = ", ".join(printable(name) for name in conformal.classes)
    return f"{{{names}}}  (holds the truth for {_percent(conformal.target_coverage)}{measured})"


def _observed_line(observed: ObservedAccuracy) -> str:
    return (
        f"{_percent(observed.accuracy)} of {observed.count:,} calibration images at this "
        f"confidence  (95 % interval {100 * observed.low:.1f}–{_percent(observed.high)})"
    )


def _calibration_line(info: ModelInfo) -> str:
    if not info.calibrated:
        return "none: every verdict is NOT ASSESSED"
    return (
        f"{info.calibration_count:,} images, α = {info.alpha:g}, T = {info.temperature:.3f}, "
        f"class sets for {_percent(info.conformal_coverage)}"
    )


def _tests_line(tests: Sequence[TestInfo]) -> str:
    single = [test for test in tests if test.group is not Group.COMBINED]
    groups = dict.fromkeys(test.group for test in single)
    counts = (f"{sum(test.group is group for test in single)} {group.value}" for group in groups)
    return f"{len(single)} single ({', '.join(counts)}) and the combined one, which decides"


def _worth(tests: Sequence[TestInfo]) -> Table:
    """What the combined test is worth: a row per kind of image, AUROC and miss rate per α."""
    combined = [test for test in tests if test.group is Group.COMBINED]
    auroc = {name: value for test in combined for name, value in test.auroc}
    missed = {(name, alpha): rate for test in combined for name, alpha, rate in test.miss_rates}
    alphas = list(dict.fromkeys(alpha for _, alpha in missed))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("images")
    for title in ("AUROC", *(f"missed at α = {alpha:g}" for alpha in alphas)):
        table.add_column(title, justify="right", no_wrap=True)
    for name in dict.fromkeys([*auroc, *(name for name, _ in missed)]):
        rates = (missed.get((name, alpha)) for alpha in alphas)
        table.add_row(
            Text(printable(name)),
            *("–" if rate is None else _percent(rate) for rate in (auroc.get(name), *rates)),
        )
    return table


def _count_line(predictions: Sequence[Prediction]) -> str:
    counted = ", ".join(
        f"{count} {verdict.value.replace('_', ' ')}"
        for verdict in Verdict
        if (count := sum(prediction.verdict is verdict for prediction in predictions))
    )
    digests = ", ".join(
        dict.fromkeys(prediction.versions.weights[:12] for prediction in predictions)
    )
    return f"{len(predictions)} images: {counted}; model {printable(digests)}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _p_value(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.1e}"
