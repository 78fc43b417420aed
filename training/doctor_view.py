"""How a diagnosis is shown on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from training.doctor import (
    EXAMPLES,
    ClassDiagnosis,
    Diagnosis,
    DuplicatePair,
    Promise,
    rounded_up,
)
from training.splits import Role

_MAX_ROWS = 24
_MAX_PROMISES = 10


def render(diagnosis: Diagnosis) -> RenderableType:
    """A table of classes and roles, then what was found, and what the data can promise."""
    parts: list[RenderableType] = [_table(diagnosis), Text()]
    parts += [
        Text.from_markup(f"[bold]{title}[/]\n{body}\n") for title, body in _sections(diagnosis)
    ]
    return Group(*parts)


def _sections(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    yield "Data", _lines(data_sentences(diagnosis))
    warnings = list(warning_sentences(diagnosis))
    if warnings:
        yield "[yellow]To look at[/]", _lines(warnings)
    yield "What this data can promise", _lines(promise_sentences(diagnosis))


def _lines(sentences: Iterator[str] | Sequence[str]) -> str:
    return "\n".join(f"  {escape(sentence)}" for sentence in sentences)


def _table(diagnosis: Diagnosis) -> Table:
    table = Table(title=f"{diagnosis.name}: images per class and role", title_justify="left")
    table.add_column("class", overflow="fold")
    for role in Role:
        table.add_column(role.value.replace("_", " "), justify="right")
    table.add_column("all", justify="right")
    classes = diagnosis.classes
    if len(classes) > _MAX_ROWS:
        classes = tuple(sorted(classes, key=lambda entry: entry.total)[:_MAX_ROWS])
    for entry in classes:
        table.add_row(escape(entry.name), *(f"{n:,}" for n in entry.counts), f"{entry.total:,}")
    hidden = len(diagnosis.classes) - len(classes)
    if hidden:
        table.add_row(f"… and {hidden} larger classes", *("" for _ in Role), "")
    table.add_section()
    sums = [sum(entry.counts[i] for entry in diagnosis.classes) for i in range(len(Role))]
    total = sum(entry.total for entry in diagnosis.classes)
    table.add_row("all", *(f"{n:,}" for n in sums), f"{total:,}")
    return table


def data_sentences(diagnosis: Diagnosis) -> Iterator[str]:
    """What the data is."""
    test = "with its own test set" if diagnosis.own_test else "without a test set of its own"
    yield f"{len(diagnosis.classes)} classes, {test}."
    sizes = diagnosis.sizes
    width, height = sizes.commonest
    if sizes.distinct == 1:
        yield f"All images have {width}×{height} pixels."
    else:
        yield (
            f"{sizes.distinct:,} image sizes; the commonest is {width}×{height} "
            f"({sizes.commonest_count:,} images); sides from {sizes.smallest_side:,} to "
            f"{sizes.largest_side:,} pixels, median of the shorter side {sizes.median_side:,.0f}."
        )
    groups = diagnosis.groups
    if groups is None:
        yield "No groups; --group-by keeps images of one patient, lot or device together."
    else:
        yield (
            f"{_count(groups.count, 'group')}; the largest is {groups.largest} with "
            f"{_count(groups.largest_count, 'image')}."
        )
    duplicates = diagnosis.duplicates
    if duplicates.copies or duplicates.near:
        yield (
            f"{_count(duplicates.copies, 'exact copy', 'exact copies')} and "
            f"{_count(duplicates.near, 'near-duplicate pair')}; they are kept on one "
            f"side of the splits that are made here."
        )
    else:
        yield "No exact copies and no near-duplicates."


def warning_sentences(diagnosis: Diagnosis) -> Iterator[str]:
    """What a person should look at, worst first."""
    if diagnosis.split_problem is not None:
        yield f"No split can be made: {diagnosis.split_problem}."
    if diagnosis.unreadable:
        yield (
            f"{_count(len(diagnosis.unreadable), 'file')} cannot be read; training stops there "
            f"unless --skip-unreadable is given:"
        )
        for entry in diagnosis.unreadable[:EXAMPLES]:
            yield f"  {entry.name}: {entry.reason}"
        if len(diagnosis.unreadable) > EXAMPLES:
            yield f"  … and {len(diagnosis.unreadable) - EXAMPLES} more"
    duplicates = diagnosis.duplicates
    if duplicates.across_count:
        yield (
            f"{_count(duplicates.across_count, 'near-duplicate pair')} across splits (accuracy on "
            f"such test images is flattered):"
        )
        yield from _pairs(duplicates.across, duplicates.across_count)
    if duplicates.contradicting_count:
        yield (
            f"{_count(duplicates.contradicting_count, 'near-duplicate pair')} in two classes "
            f"(is a label wrong?):"
        )
        yield from _pairs(duplicates.contradicting, duplicates.contradicting_count)
    if duplicates.loosened:
        yield (
            f"{_count(duplicates.loosened, 'image')} in chains of near-duplicates too long to be "
            f"kept together; if they come from series, name the series with --group-by."
        )
    if diagnosis.groups is not None and diagnosis.groups.across_test:
        yield f"{_count(diagnosis.groups.across_test, 'group')} both in training and in test."
    if diagnosis.excluded:
        yield (
            f"{_count(diagnosis.excluded, 'training image')} left out, because the test set holds "
            f"the same image or one of the same group."
        )
    if diagnosis.ignored:
        yield f"{_count(diagnosis.ignored, 'file')} of other types in class folders ignored."


def promise_sentences(diagnosis: Diagnosis) -> Iterator[str]:
    """Which significances the calibration images allow, over all and per class."""
    if diagnosis.split_problem is not None:
        yield "Nothing, until a split can be made."
        return
    yield f"{_promised(diagnosis.promise, 'in all', 'no α')}{_lacking(diagnosis.promise)}."
    counts = {entry.promise.count for entry in diagnosis.classes}
    if len(counts) == 1:
        each = diagnosis.classes[0].promise
        yield (
            f"{_promised(each, 'of each class', 'no per-class α')}"
            f"{_lacking(each)}{_collect(each, diagnosis.calibration_share)}."
        )
        return
    scarce = sorted(diagnosis.classes, key=lambda entry: entry.promise.count)
    lacking = [entry for entry in scarce if entry.promise.more]
    for entry in lacking[:_MAX_PROMISES]:
        yield _class_promise(entry, diagnosis.calibration_share)
    alpha = f"{diagnosis.promise.alpha:g}"
    if len(lacking) > _MAX_PROMISES:
        yield f"… and {len(lacking) - _MAX_PROMISES} more classes cannot be tested at {alpha}."
    enough = len(scarce) - len(lacking)
    if enough and lacking:
        yield f"The other {_count(enough, 'class', 'classes')} can be tested at {alpha}."
    elif enough:
        yield f"Fewest: {_class_promise(scarce[0], diagnosis.calibration_share)}"


def _class_promise(entry: ClassDiagnosis, share: float) -> str:
    promised = _promised(entry.promise, f"of class {entry.name}", "no per-class α")
    return f"{promised}{_lacking(entry.promise)}{_collect(entry.promise, share)}."


def _promised(promise: Promise, whose: str, what: str) -> str:
    count = _count(promise.count, "calibration image")
    if promise.smallest_alpha is None:
        return f"No calibration images {whose}: {what} at all"
    return f"{count} {whose}: {what} below {rounded_up(promise.smallest_alpha)}"


def _lacking(promise: Promise) -> str:
    return f"; {promise.more} more for {promise.alpha:g}" if promise.more else ""


def _collect(promise: Promise, share: float) -> str:
    """How many images to collect, since only a share of them becomes calibration images."""
    if not promise.more or not share:
        return ""
    return f" (about {round(promise.more / share):,} more images at this split)"


def _pairs(pairs: Sequence[DuplicatePair], count: int) -> Iterator[str]:
    for pair in pairs:
        how = "exact copy" if pair.distance == 0 else f"distance {pair.distance:.2f}"
        yield f"  {pair.first} ~ {pair.second} ({how})"
    if count > len(pairs):
        yield f"  … and {count - len(pairs):,} more"


def _count(number: int, singular: str, plural: str | None = None) -> str:
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
