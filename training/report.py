"""Writes an evaluation as one self-contained page, and as JSON.

The page loads nothing: style and figures are inside it, and its content policy forbids the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ibinn.assessment import COMBINED
from ibinn.metrics import DetectionAtAlpha, geometric_mean
from ibinn.model_report import model_report
from training import published
from training.chapters.registry import fragment
from training.evaluation import Evaluation, Rate
from training.published import PublishedRow
from training.report_figures import TYPICALITY, HeatmapExamples, Samples, figures
from training.svg import svg

HTML_FILE = "report.html"
JSON_FILE = "report.json"
NONE = "–"
WORDS = {
    "false_alarm_rate": "false alarms",
    "miss_rate": "misses",
    "accuracy": "right answers",
    "plain_coverage": "sets that hold the truth",
    "posterior": "our posterior alone",
    "resnet": "a ResNet of equal training cost",
}
"""Names of figures and comparators in the summary's sentences."""
FIRST_CHAPTERS = ("headline",)
"""Chapters that stand before the details."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPaths:
    """Where a report was written."""

    html: Path
    json: Path


def write_report(
    evaluation: Evaluation,
    out_dir: Path,
    *,
    samples: Samples | None = None,
    heatmap_examples: HeatmapExamples | None = None,
) -> ReportPaths:
    """Write ``report.html`` and ``report.json`` into a folder, which is made if need be.

    Args:
        evaluation: What to state.
        out_dir: The folder.
        samples: Images that the model made.
        heatmap_examples: Off unless given: they show images of a data set, and many data sets
            may not be passed on.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = ReportPaths(html=out_dir / HTML_FILE, json=out_dir / JSON_FILE)
    paths.json.write_text(render_json(evaluation), encoding="utf-8")
    page = render_html(evaluation, samples=samples, heatmap_examples=heatmap_examples)
    paths.html.write_text(page, encoding="utf-8")
    return paths


def render_json(evaluation: Evaluation) -> str:
    """The evaluation as JSON text; it holds all that the page and its figures show."""
    return json.dumps(evaluation.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def render_html(
    evaluation: Evaluation,
    *,
    samples: Samples | None = None,
    heatmap_examples: HeatmapExamples | None = None,
) -> str:
    """The page as text; see `write_report`."""
    drawn = figures(evaluation, samples=samples, heatmap_examples=heatmap_examples)
    # matplotlib made these elements; everything else is escaped.
    inline = {name: Markup(svg(figure, name=name)) for name, figure in drawn.items()}
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(filters())
    template = resources.files("training").joinpath("report.html.j2").read_text("utf-8")
    alpha = evaluation.model.alpha
    parts = {c.name: fragment(c, environment) for c in evaluation.chapters}
    return environment.from_string(template).render(
        e=evaluation,
        alpha=alpha,
        figures=inline,
        samples=samples,
        COMBINED=COMBINED,
        TYPICALITY=TYPICALITY,
        own_flags=next(f for f in evaluation.false_flags if f.test == COMBINED),
        bare={s.name: s for s in evaluation.without_jpeg.sets} if evaluation.without_jpeg else {},
        comparable=is_cifar10(evaluation),
        published=published.CIFAR10,
        own=own_rows(evaluation),
        measured=model_report(evaluation.headline()),
        words=WORDS,
        first=[parts[name] for name in FIRST_CHAPTERS if name in parts],
        chapters=[part for name, part in parts.items() if name not in FIRST_CHAPTERS],
    )


def filters() -> dict[str, Callable[..., str]]:
    """The filters of the report's templates."""
    return {
        "pct": percent,
        "rate": rate_text,
        "num": number,
        "sci": scientific,
        "missed": miss_text,
    }


def is_cifar10(evaluation: Evaluation) -> bool:
    """Whether the published CIFAR-10 figures say anything beside this model's."""
    return {c.name for c in evaluation.classes} == published.CIFAR10_CLASSES


def own_rows(evaluation: Evaluation) -> tuple[PublishedRow, ...]:
    """This model in the columns of the published table: by the published test, and combined.

    Calibration figures are those at T = 1 with bin centres, as published.
    """
    thesis = evaluation.raw.thesis.with_centres
    columns = [
        next((s for name in names if (s := evaluation.set_named(name)) is not None), None)
        for names in (("rotation",), ("digits", "digits-8x8"), ("noise-0.015",), ("tiny-imagenet",))
    ]
    increases = [s.entropy_increase_nats for s in columns if s is not None]

    def row(label: str, test: str) -> PublishedRow:
        reports = [None if s is None else s.test(test) for s in columns]
        rgb, draw, noise, imagenet = (None if r is None else 100 * r.auroc for r in reports)
        return PublishedRow(
            model=label,
            error=None
            if evaluation.accuracy.value is None
            else 100 * (1 - evaluation.accuracy.value),
            bits_per_dim=evaluation.bits_per_dim,
            geometric_mean=100 * thesis.geometric_mean,
            ece=100 * thesis.ece,
            mce=100 * thesis.mce,
            ice=100 * thesis.ice,
            entropy_increase=sum(increases) / len(increases) if increases else None,
            auroc=(rgb, draw, noise, imagenet),
        )

    return (
        row("this model, typicality of log q(x)", TYPICALITY),
        row("this model, combined test", COMBINED),
    )


def mean_auroc(row: PublishedRow) -> float | None:
    """Geometric mean of a row's AUROCs, by which the table averages; None if one is missing."""
    known = [value for value in row.auroc if value is not None]
    return geometric_mean(known) if len(known) == len(row.auroc) else None


def percent(value: float | None, digits: int = 1) -> str:
    """0.123 -> ``12.3 %``.

    >>> percent(0.123), percent(None)
    ('12.3\\xa0%', '–')
    """
    return NONE if value is None else f"{100 * value:.{digits}f}\u00a0%"


def rate_text(rate: Rate | None, digits: int = 1) -> str:
    """A share with its 95 % interval.

    >>> rate_text(Rate.of(8, 10), 0)
    '80\\xa0% (44–97)'
    """
    if rate is None or rate.value is None or rate.low is None or rate.high is None:
        return NONE
    low, high = 100 * rate.low, 100 * rate.high
    return f"{percent(rate.value, digits)} ({low:.{digits}f}–{high:.{digits}f})"


def number(value: float | None, digits: int = 2) -> str:
    """A number with a fixed number of digits."""
    return NONE if value is None else f"{value:,.{digits}f}"


def scientific(value: float) -> str:
    """A small number such as ``3.1e-06``."""
    return f"{value:.1e}"


def miss_text(at: DetectionAtAlpha | None, digits: int = 1) -> str:
    """Miss rate with its 95 % interval."""
    if at is None:
        return NONE
    low, high = 100 * at.miss_low, 100 * at.miss_high
    return f"{percent(at.miss_rate, digits)} ({low:.{digits}f}–{high:.{digits}f})"
