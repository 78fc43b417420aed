"""The tables of a study, in the form of the published ones (5.1, 5.5, 5.6)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from training import published
from training.study.plan import Entry, ModelKind
from training.study.summary import (
    NOT_COMPARABLE,
    Column,
    Figure,
    Results,
    Table,
    TableRow,
    average_auroc,
    bits_per_dim,
    calibration,
    entropy_increase,
    error,
    overconfidence,
    published_average,
    quoted,
    row,
    set_auroc,
)

_OURS = (
    "Mean ± standard deviation over seeds; the split moves with the seed. Posterior at T = 1, "
    "calibration in the thesis's bins. "
)
_CIFAR = f"published, CIFAR-10: {NOT_COMPARABLE}"
_IMAGENET = f"published, ImageNet: {NOT_COMPARABLE}"


def tables_of(results: Sequence[Results]) -> tuple[Table, ...]:
    """Every table of every data set."""
    made = []
    for part in results:
        made += [main_table(part), calibration_table(part), combined_table(part)]
        made += [series_accuracy(part), series_calibration(part)]
    return tuple(made)


def main_table(results: Results) -> Table:
    """Table 5.1: error, density, calibration, entropy increase, OoD by typicality of log q(x)."""
    block = results.block
    columns = [
        Column(title="error %"),
        Column(title="bits/dim"),
        *(Column(title=t, group="calibration %, centres") for t in ("GM", "ECE", "MCE", "ICE")),
        Column(title="ΔH nats"),
        Column(title="average", digits=1, group="OoD AUROC %"),
        *(Column(title=name, digits=1, group="OoD AUROC %") for name in block.ood),
    ]
    figures: list[Figure] = [
        error,
        bits_per_dim,
        calibration,
        lambda f: 100 * f.with_centres.ece,
        lambda f: 100 * f.with_centres.mce,
        lambda f: 100 * f.with_centres.ice,
        entropy_increase,
        average_auroc(block, combined=False),
        *(set_auroc(name, combined=False) for name in block.ood),
    ]
    rows: list[TableRow] = []
    for entry in results.entries:
        rows.append(row(entry.label, results, entry.name, figures))
        for quote in published.CIFAR10:
            if quote.model == entry.published:
                by_set = dict(zip(block.columns, quote.auroc, strict=True))
                values = [
                    quote.error,
                    quote.bits_per_dim,
                    quote.geometric_mean,
                    quote.ece,
                    quote.mce,
                    quote.ice,
                    quote.entropy_increase,
                    published_average(quote),
                    *(by_set.get(name) for name in block.ood),
                ]
                rows.append(quoted(quote.model, values, note=_CIFAR))
    names = ", ".join(name for name in block.columns if name is not None)
    return Table(
        name=f"{block.name}-table-5.1",
        title="Error, density, calibration and detection (form of table 5.1)",
        data=block.name,
        caption=_OURS
        + "Confidence of a bin is its centre, as published: a predictor that is always certain "
        "and right scores 0.5 % here. AUROC by the thesis's typicality test of log q(x); the "
        f"average is the geometric mean over {names}. Published rows are CIFAR-10 as it was "
        "before our JPEG step, another network and other drawings: not comparable, shown for the "
        "order of the models. γ = 0 sees no label, so that its error and calibration are those of "
        "a classifier that guesses. A dash: the model has no density, or the set is not there.",
        columns=tuple(columns),
        rows=tuple(rows),
    )


def calibration_table(results: Results) -> Table:
    """Calibration with mean confidences, overconfidence and the top label's floor."""
    columns = (
        *(Column(title=t, group="mean confidences %") for t in ("GM", "ECE", "MCE", "ICE")),
        Column(title="OCE"),
        Column(title="confident", digits=0, group="predictions"),
        Column(title="ECE %", group="top label"),
        Column(title="its floor %", group="top label"),
        Column(title="NLL nats", digits=3),
    )
    figures: tuple[Figure, ...] = (
        lambda f: 100 * f.with_mean_confidence.geometric_mean,
        lambda f: 100 * f.with_mean_confidence.ece,
        lambda f: 100 * f.with_mean_confidence.mce,
        lambda f: 100 * f.with_mean_confidence.ice,
        overconfidence,
        lambda f: float(f.overconfidence_count),
        lambda f: 100 * f.top_label_ece,
        lambda f: 100 * f.top_label_ece_floor,
        lambda f: f.nll_nats,
    )
    return Table(
        name=f"{results.block.name}-calibration",
        title="Calibration without the artefact of bin centres",
        data=results.block.name,
        caption=_OURS
        + "OCE: error rate among predictions with max p ≥ 0.997 over 0.003, averaged over the "
        "seeds that have such predictions; 1 is calibrated. Floor: 95th percentile of the top "
        "label's ECE if labels were drawn from the model's own probabilities.",
        columns=columns,
        rows=tuple(row(e.label, results, e.name, figures) for e in results.entries),
    )


def combined_table(results: Results) -> Table:
    """AUROC of the combined test, for the models with a density."""
    block = results.block
    columns = (
        Column(title="average", digits=1, group="OoD AUROC %, combined test"),
        *(Column(title=n, digits=1, group="OoD AUROC %, combined test") for n in block.ood),
    )
    figures = (
        average_auroc(block, combined=True),
        *(set_auroc(name, combined=True) for name in block.ood),
    )
    rows = [row(e.label, results, e.name, figures) for e in results.entries]
    return Table(
        name=f"{block.name}-combined",
        title="Detection by the combined test",
        data=block.name,
        caption=_OURS + "The average is over the same sets as above.",
        columns=columns,
        rows=tuple(r for r in rows if any(cell is not None for cell in r.cells)),
    )


def series_accuracy(results: Results) -> Table:
    """Table 5.5: accuracy and bits/dim against γ, ImageNet's below ours."""
    columns = (Column(title="top-1 %"), Column(title="bits/dim"))
    figures: tuple[Figure, ...] = (lambda f: 100 - error(f), bits_per_dim)
    rows = [row(e.label, results, e.name, figures) for e in _series(results)]
    rows += [quoted(q.model, (q.top1, q.bits_per_dim), note=_IMAGENET) for q in published.IMAGENET]
    return Table(
        name=f"{results.block.name}-table-5.5",
        title="Accuracy and density against γ (form of table 5.5)",
        data=results.block.name,
        caption=_OURS
        + "Ours over one crop, the whole image; published: ten crops of ImageNet at 224×224, "
        "not comparable.",
        columns=columns,
        rows=tuple(rows),
    )


def series_calibration(results: Results) -> Table:
    """Table 5.6: overconfidence and calibration against γ, ImageNet's below ours."""
    columns = (Column(title="OCE"), Column(title="MCE %"))
    figures: tuple[Figure, ...] = (overconfidence, lambda f: 100 * f.with_centres.mce)
    rows = [row(e.label, results, e.name, figures) for e in _series(results)]
    rows += [quoted(q.model, (q.oce, q.mce), note=_IMAGENET) for q in published.IMAGENET]
    return Table(
        name=f"{results.block.name}-table-5.6",
        title="Overconfidence and calibration against γ (form of table 5.6)",
        data=results.block.name,
        caption=_OURS + "Published: ImageNet, not comparable. MCE with bin centres.",
        columns=columns,
        rows=tuple(rows),
    )


def to_csv(table: Table) -> str:
    """A table as CSV: mean, standard deviation and number of seeds of every column."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    header = ["model", "source"]
    for column in table.columns:
        name = f"{column.group} {column.title}".strip()
        header += [name, f"{name} sd", f"{name} seeds"]
    writer.writerow([*header, "note"])
    for line in table.rows:
        cells: list[object] = [line.label, "published" if line.published else "ours"]
        for cell in line.cells:
            if cell is None:
                cells += ["", "", ""]
            else:
                deviation = "" if cell.deviation is None else f"{cell.deviation:.6g}"
                seeds = "" if line.published else cell.count
                cells += [f"{cell.mean:.6g}", deviation, seeds]
        writer.writerow([*cells, line.note])
    return buffer.getvalue()


def _series(results: Results) -> list[Entry]:
    return [e for e in results.entries if e.gamma is not None or e.kind is ModelKind.RESNET]
