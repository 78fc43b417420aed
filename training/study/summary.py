"""From the runs of a study to its tables: mean and spread over seeds, published rows beside them.

Cells are in the units that the published tables print: percent, bits, nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from ibinn.metrics import geometric_mean
from training import published
from training.report import mean_auroc
from training.study.conduct import Conducted
from training.study.plan import Block, Entry, Run, labels_in_order
from training.study.record import RunFigures, RunRecord, State

Figure = Callable[[RunFigures], float | None]

NOT_COMPARABLE = "not comparable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A figure over seeds.

    Attributes:
        count: Number of seeds.
        mean: Their mean.
        deviation: Standard deviation (n - 1); None for one seed.
        low: Lower end of the 95 % interval of the mean by Student's t; None for one seed.
        high: Its upper end.
    """

    count: int
    mean: float
    deviation: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value.

        >>> Spread.of([1.0, 2.0, 3.0]).deviation
        1.0
        """
        mean = float(np.mean(values))
        if len(values) < 2:
            return cls(count=len(values), mean=mean)
        deviation = float(np.std(values, ddof=1))
        half = float(student_t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
        return cls(
            count=len(values), mean=mean, deviation=deviation, low=mean - half, high=mean + half
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: title, digits to print, and whether it is grouped under a heading."""

    title: str
    digits: int = 2
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One row.

    Attributes:
        label: Name of the model.
        cells: One per column; None is a dash.
        published: Whether it is quoted and not ours.
        note: Seeds and epochs done, or why there is nothing.
    """

    label: str
    cells: tuple[Spread | None, ...]
    published: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of the study.

    Attributes:
        name: File name of the CSV, without ending.
        title: Which published table it has the form of.
        data: Name of the data set.
        caption: What is seen, and where it misleads.
        columns: All but the label and the note.
        rows: In the study's order; a published row stands under ours.
    """

    name: str
    title: str
    data: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Records of one data set by model, finished ones in the order of their seeds."""

    block: Block
    entries: tuple[Entry, ...]
    runs: tuple[Run, ...]
    records: tuple[RunRecord | None, ...]

    def figures(self, entry: str) -> dict[int, RunFigures]:
        """Seed -> figures of a model's finished runs."""
        return {
            record.seed: record.figures
            for record in self.records
            if record is not None and record.entry == entry and record.figures is not None
        }

    def spread(self, entry: str, figure: Figure) -> Spread | None:
        """A figure over the seeds that have it."""
        values = [value for f in self.figures(entry).values() if (value := figure(f)) is not None]
        return Spread.of(values) if values else None

    def note(self, entry: str) -> str:
        """How far a model's runs got, in words."""
        pairs = [
            (run, record)
            for run, record in zip(self.runs, self.records, strict=True)
            if run.entry.name == entry
        ]
        done = sum(r is not None and r.state is State.FINISHED for _, r in pairs)
        parts = [f"{done} of {len(pairs)} seeds"]
        config, full = self.block.config, self.block.full_epochs
        parts.append(
            f"{config.epochs} of the recipe's {full} epochs" if full else f"{config.epochs} epochs"
        )
        for run, record in pairs:
            if record is None:
                parts.append(f"seed {run.seed}: not begun or killed before its first end")
            elif record.state is State.UNFINISHED:
                parts.append(
                    f"seed {run.seed}: stopped after {record.epochs:.2g} of "
                    f"{record.epochs_planned} epochs"
                )
            elif record.state is State.FAILED:
                parts.append(f"seed {run.seed} failed: {record.reason}")
        for seed, figures in self.figures(entry).items():
            parts += [f"seed {seed}: {note}" for note in figures.notes]
        return "; ".join(parts)


def results_of(conducted: Conducted) -> tuple[Results, ...]:
    """The records of a study, data set by data set."""
    found = []
    for block in conducted.study.blocks:
        pairs = [
            (run, record)
            for run, record in zip(conducted.runs, conducted.records, strict=True)
            if run.block.name == block.name
        ]
        if pairs:
            runs = tuple(run for run, _ in pairs)
            found.append(
                Results(
                    block=block,
                    entries=tuple(entry for _, entry in labels_in_order(runs)),
                    runs=runs,
                    records=tuple(record for _, record in pairs),
                )
            )
    return tuple(found)


def error(figures: RunFigures) -> float:
    """Share wrong, %."""
    return 100 * figures.error


def bits_per_dim(figures: RunFigures) -> float | None:
    """Bits per dimension."""
    return figures.bits_per_dim


def calibration(figures: RunFigures) -> float:
    """Geometric mean of ECE, MCE and ICE with bin centres, %, as published."""
    return 100 * figures.with_centres.geometric_mean


def overconfidence(figures: RunFigures) -> float | None:
    """OCE; undefined where no prediction is confident enough."""
    return figures.overconfidence


def entropy_increase(figures: RunFigures) -> float | None:
    """Mean over the sets, nats."""
    increases = [
        s.entropy_increase_nats for s in figures.sets if s.entropy_increase_nats is not None
    ]
    return float(np.mean(increases)) if increases else None


def set_auroc(name: str, *, combined: bool) -> Figure:
    """AUROC of one set in %, by typicality of log q(x) or by the combined test."""

    def figure(figures: RunFigures) -> float | None:
        found = next((s for s in figures.sets if s.name == name), None)
        if found is None:
            return None
        value = found.combined_auroc if combined else found.typicality_auroc
        return None if value is None else 100 * value

    return figure


def average_auroc(block: Block, *, combined: bool) -> Figure:
    """Geometric mean over the sets that stand in published columns, %; None if one is missing."""
    parts = [set_auroc(name, combined=combined) for name in block.columns if name is not None]

    def figure(figures: RunFigures) -> float | None:
        values = [value for part in parts if (value := part(figures)) is not None]
        return geometric_mean(values) if parts and len(values) == len(parts) else None

    return figure


def row(label: str, results: Results, entry: str, figures: Sequence[Figure]) -> TableRow:
    """A row of ours."""
    return TableRow(
        label=label,
        cells=tuple(results.spread(entry, figure) for figure in figures),
        note=results.note(entry),
    )


def quoted(label: str, values: Sequence[float | None], *, note: str) -> TableRow:
    """A published row."""
    return TableRow(
        label=label,
        cells=tuple(None if v is None else Spread(count=1, mean=v) for v in values),
        published=True,
        note=note,
    )


def published_average(row: published.PublishedRow) -> float | None:
    """Geometric mean of a published row's AUROCs."""
    return mean_auroc(row)
