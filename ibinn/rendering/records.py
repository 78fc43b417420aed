"""Answers on record, entries of the ledger, and what an audit found."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ibinn.audit_compare import Comparison
from ibinn.chain import Verified
from ibinn.records import (
    AnswerEntry,
    Entry,
    ErasureEntry,
    FeedbackEntry,
    GuaranteeEntry,
    ImageKept,
    ImageState,
    Provenance,
    Record,
)
from ibinn.rendering.answers import prediction_block
from ibinn.rendering.words import action_text, facts, p_value, percent, printable, verdict_text
from ibinn.types import Guarantee, Prediction, TestResult

_DIGITS = 12
_KEPT = {
    ImageKept.ALL: "every image is",
    ImageKept.FLAGGED: "it was flagged, or its decision left to people",
    ImageKept.SAMPLED: "it was drawn",
}


def record_block(record: Record, *, intact: bool) -> RenderableType:
    """One answer on record: why, by which model and policy, how calibrated then, what was said.

    Args:
        record: From the store.
        intact: Whether the entry's hash is that of its contents.
    """
    answer, entry = record.answer, record.entry
    prediction = answer.prediction
    receipt = prediction.receipt
    request = receipt.request_id if receipt is not None else ""
    asked = [
        ("answered", f"{_when(prediction)} by server {answer.server or '–'}, {answer.method}"),
        ("asked by", answer.caller + (f", request {request}" if request else "")),
    ]
    if answer.group_id:
        asked.append(("group", answer.group_id))
    held = Text("its hash fits its contents", style="green")
    if not intact:
        held = Text("ITS HASH DOES NOT FIT ITS CONTENTS: it was altered", style="bold red")
    ledger = Table.grid(padding=(0, 2))
    ledger.add_row(
        Text("ledger", style="dim"),
        Text.assemble(
            f"entry {entry.sequence:,} of {entry.time:%Y-%m-%d %H:%M:%S} UTC, ",
            held,
            f"; hash {printable(entry.hash)}",
        ),
    )
    parts: list[RenderableType] = [
        prediction_block(f"record {entry.record_id}", prediction),
        _section("Made by", facts([*asked, *_origin(answer)])),
        _section("Calibrated then", facts(_calibration(prediction))),
    ]
    if prediction.tests:
        parts.append(_section("Tests", _tests(prediction)))
    parts += [
        _section("Said later", _feedback(record)),
        _section("Image", facts(_image(record))),
        _section("On record", ledger),
    ]
    return Lines(*parts)


def entries_table(listed: Sequence[tuple[Entry, RenderableType]]) -> RenderableType:
    """Entries of the ledger, a line each, with what they say."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("entry", justify="right", no_wrap=True)
    for title in ("time (UTC)", "kind", "record"):
        table.add_column(title, no_wrap=True)
    table.add_column("")
    for entry, words in listed:
        table.add_row(
            str(entry.sequence),
            f"{entry.time:%Y-%m-%d %H:%M:%S}",
            entry.kind.value,
            printable(entry.record_id),
            words,
        )
    return table


def content_line(
    content: AnswerEntry | FeedbackEntry | ErasureEntry | GuaranteeEntry,
) -> RenderableType:
    """What an entry says, in a line."""
    match content:
        case AnswerEntry(prediction=prediction):
            line = Text.assemble(
                (printable(prediction.top.name), "bold"),
                f" {percent(prediction.top.probability)}  ",
                verdict_text(prediction.verdict),
            )
            if prediction.decision is not None:
                line = Text.assemble(line, "  ", action_text(prediction.decision.action))
            return line
        case FeedbackEntry():
            right = content.answer.correct(content.truth)
            told = {True: "  as answered", False: f"  answered {content.answer.class_name}"}
            return Text.assemble(
                (printable(content.truth.text), "bold"),
                f" says {printable(content.provenance.source)}, {content.outcome.value}",
                printable(told[right]) if right is not None else "",
            )
        case ErasureEntry():
            found = "" if content.found else " (there was none)"
            return Text(
                f"image {content.sha256_bytes[:_DIGITS]}{found} by {printable(content.caller)}: "
                f"{printable(content.reason)}"
            )
        case GuaranteeEntry():
            who = content.caller or f"detector {content.detector}"
            return Text.assemble(
                guarantee_text(content.guarantee),
                f" for calibration {printable(content.calibration[:_DIGITS])} by {printable(who)}: "
                f"{printable(content.reason)}",
            )


def verified_block(found: Verified, *, name: str) -> RenderableType:
    """What a walk along the ledger's chain found."""
    counted = f"{found.count:,} entries, the last one {found.end.sequence:,}"
    if found.intact:
        head = Text.assemble(
            (printable(name), "bold"), "  ", ("INTACT", "bold green"), f"  {counted}"
        )
        note = Text(
            "Note down the head, away from the server; with it, --anchor shows later whether the "
            "ledger up to here is still this one.",
            style="dim",
        )
        return Lines(head, "", facts([("head", str(found.end))]), note)
    noun = "break" if found.broken == 1 else "breaks"
    head = Text.assemble(
        (printable(name), "bold"),
        "  ",
        (f"BROKEN: {found.broken:,} {noun}", "bold red"),
        f"  {counted}",
    )
    lines: list[RenderableType] = [Text(f"- {printable(each.words)}") for each in found.breaks]
    if found.broken > len(found.breaks):
        lines.append(Text(f"- and {found.broken - len(found.breaks):,} more"))
    return Lines(head, *(Padding(line, (0, 0, 0, 2), expand=False) for line in lines))


def replay_block(
    record_id: str, comparison: Comparison, *, bundle: str, policy: str, engine: str
) -> RenderableType:
    """Whether an answer that was computed again is the one on record."""
    told = Text("THE SAME ANSWER", style="bold green")
    if count := len(comparison.differences):
        noun = "difference" if count == 1 else "differences"
        told = Text(f"ANOTHER ANSWER: {count} {noun}", style="bold red")
    head = Text.assemble((f"record {printable(record_id)}", "bold"), "  ", told)
    parts: list[RenderableType] = [
        facts(
            [
                ("bundle", bundle),
                ("policy", policy or "none; the bundle's significance"),
                ("computed by", engine),
            ]
        ),
        "",
    ]
    if comparison.differences:
        table = _table("what differs", "on record", "now", "may be apart")
        for each in comparison.differences:
            allowed = "not at all" if each.tolerance is None else f"{each.tolerance:.3g}"
            table.add_row(*map(printable, (each.what, each.recorded, each.replayed)), allowed)
        parts += [table, ""]
    figures = _table("figures", "compared", "largest difference", "may be apart")
    for deviation in comparison.deviations:
        figures.add_row(
            deviation.figures,
            str(deviation.count),
            f"{deviation.largest:.3g}",
            f"{deviation.tolerance:.3g}",
        )
    parts.append(figures)
    return Lines(head, Padding(Lines(*parts), (0, 0, 1, 2), expand=False))


def guarantee_text(guarantee: Guarantee | None) -> Text:
    """The guarantee in its colour."""
    if guarantee is None:
        return Text("not watched", style="dim")
    style = "bold green" if guarantee is Guarantee.HELD else "bold red"
    return Text(guarantee.value.upper(), style=style)


def _section(title: str, body: RenderableType) -> RenderableType:
    return Lines(Text(title, style="dim"), Padding(body, (0, 0, 1, 2), expand=False))


def _table(*titles: str) -> Table:
    # Without an edge a table is measured too narrow where something is around it.
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in titles:
        table.add_column(title)
    return table


def _when(prediction: Prediction) -> str:
    receipt = prediction.receipt
    return "–" if receipt is None else f"{receipt.received_time:%Y-%m-%d %H:%M:%S.%f} UTC"


def _origin(answer: AnswerEntry) -> list[tuple[str, str]]:
    versions = answer.prediction.versions
    return [
        ("model", ", ".join(filter(None, (answer.bundle, f"weights {versions.weights}")))),
        ("calibration", versions.calibration or "none"),
        ("policy", versions.policy),
        ("classes", f"version {versions.taxonomy}"),
        ("software", f"ibinn {versions.software}"),
    ]


def _calibration(prediction: Prediction) -> list[tuple[str, str]]:
    rows = [("images", f"{prediction.calibration_count:,} calibration images")]
    observed = prediction.observed_accuracy
    if observed is not None:
        rows.append(
            (
                "accuracy",
                f"{percent(observed.accuracy)} of {observed.count:,} calibration images answered "
                f"with about this confidence were right (95 % interval {100 * observed.low:.1f}–"
                f"{percent(observed.high)})",
            )
        )
    else:
        rows.append(("accuracy", "none stated: the image was flagged, or nothing is calibrated"))
    rows += [
        (
            f"{found.method.value} set",
            f"holds the truth for {percent(found.target_coverage)}"
            + (
                f", measured {percent(found.measured_coverage)}"
                if found.measured_coverage is not None
                else ", not measured"
            ),
        )
        for found in prediction.conformal_sets
    ]
    told = {
        Guarantee.HELD: "held: no drift alarm was open",
        Guarantee.SUSPENDED: f"SUSPENDED: {prediction.guarantee_reason}",
        None: "not watched for drift",
    }
    rows.append(("guarantee", told[prediction.guarantee]))
    return rows


def _tests(prediction: Prediction) -> RenderableType:
    table = _table("test", "group", "statistic", "p", "adjusted", "")
    for column in table.columns[2:5]:
        column.justify = "right"

    def row(test: TestResult) -> None:
        table.add_row(
            printable(test.name),
            test.group.value,
            f"{test.statistic:.6g}",
            p_value(test.p_value),
            p_value(test.p_adjusted),
            Text("flagged", style="bold red") if test.flagged else "",
        )

    for test in prediction.tests:
        row(test)
    if prediction.combined is not None:
        row(prediction.combined)
    return table


def _feedback(record: Record) -> RenderableType:
    if not record.feedback:
        return Text("nothing", style="dim")
    table = _table("", "truth", "says", "beside others", "how", "comment")
    for each in record.feedback:
        right = each.answer.correct(each.truth)
        mark = {True: Text("right", style="green"), False: Text("wrong", style="bold red")}
        told = Text.assemble((printable(each.truth.text), "bold"))
        if right is not None:
            told = Text.assemble(told, "  the answer was ", mark[right])
        table.add_row(
            str(each.revision),
            told,
            printable(each.provenance.source),
            each.outcome.value,
            _how(each),
            printable(each.comment),
        )
    return table


def _how(each: FeedbackEntry) -> str:
    provenance: Provenance = each.provenance
    words = []
    if provenance.saw_answer is not None:
        words.append("saw the answer" if provenance.saw_answer else "had not seen the answer")
    if provenance.reaction is not None:
        words.append(provenance.reaction.value.replace("_", " "))
    if provenance.selection is not None:
        words.append(f"selected: {provenance.selection.value}")
    if provenance.sampling_probability is not None:
        words.append(f"chance {provenance.sampling_probability:g}")
    if each.labelled_time is not None:
        words.append(f"found {each.labelled_time:%Y-%m-%d %H:%M} UTC")
    if not each.record_known:
        words.append("by receipt")
    return ", ".join(words) or "–"


def _image(record: Record) -> list[tuple[str, str]]:
    info = record.answer.prediction.input
    why = record.answer.image_kept
    told = {
        ImageState.NOT_KEPT: "not kept",
        ImageState.KEPT: "kept",
        ImageState.ERASED: "erased on request",
        ImageState.EXPIRED: "gone: its time was over, or there was no room for it",
    }[record.image_state]
    if why is not None:
        told += f" (kept because {_KEPT[why]})"
    rows = [("state", told)]
    if info.sha256_bytes:
        rows.append(("sha256", f"{info.sha256_bytes} of its bytes"))
    rows.append(("", f"{info.sha256_pixels} of its pixels"))
    return rows
