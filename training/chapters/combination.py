"""Why the combined test is the sum that it is: its alternatives, on the sets that chose and on
the report's.

The choice was made by the mean AUROC on `training.development_sets` (drawings, textures, street
digits, blur, negatives, and the photographs, mosaics, turned and enlarged images there) against
validation images. The report's sets stand beside them; nothing was chosen on those.

Shapes: N images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ibinn import metrics
from ibinn.ood.combined import JOINT
from ibinn.types import TestKind
from training import plots
from training.chapters.base import Material, NotMeasured
from training.development_sets import development_sets
from training.report_figures import TYPICALITY
from training.scoring import Scored, fitted

FloatArray = npt.NDArray[np.float64]

SHIPPED = "fisher"
ALPHA = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One way to combine, or one view alone.

    Attributes:
        name: Short name.
        description: What it is.
        development: (set, AUROC against validation images).
        reported: (set, AUROC against test images).
        development_mean: Mean over the development sets.
        reported_mean: Mean over the report's sets that have a bar.
        development_missed: Mean share of the development sets not flagged at α = 0.01, with the
            threshold of part B's rank.
    """

    name: str
    description: str
    development: tuple[tuple[str, float], ...]
    reported: tuple[tuple[str, float], ...]
    development_mean: float
    reported_mean: float
    development_missed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """The alternatives, the shipped one first.

    Attributes:
        shipped: Name of the one in the bundle.
        views: What it sums over.
        alternatives: All that were compared here.
        development_sets: (name, description) of the sets that chose.
        validation_count: Images that they were compared with.
    """

    shipped: str
    views: tuple[str, ...]
    alternatives: tuple[Alternative, ...]
    development_sets: tuple[tuple[str, str], ...]
    validation_count: int

    @property
    def best_on_development(self) -> str:
        """Name of the alternative with the largest mean AUROC on the development sets."""
        return max(self.alternatives, key=lambda a: a.development_mean).name


def measure(material: Material) -> Combination | NotMeasured:
    """Compare Fisher's sum, min-p and each view alone; see the module."""
    if material.validation is None or material.calibration_b is None:
        return NotMeasured(
            reason="the validation and calibration images of the training run are not at hand; "
            "evaluate with the data that the bundle was trained on"
        )
    preprocessing = material.classifier.preprocessing
    validation_images = fitted(material.validation, preprocessing)
    validation = material.scorer.images(validation_images, "validation images", finish=True)
    part_b = material.scorer.images(
        fitted(material.calibration_b, preprocessing), "calibration images", finish=True
    )
    sets = development_sets(
        validation_images,
        side=material.classifier.info.input_side,
        count=material.limit,
        seed=material.seed,
    )
    development = {s.name: material.scorer.ood(s, finish=True) for s in sets}
    barred = {s.name for s in material.sets.sets if s.barred}

    def alternative(
        name: str, description: str, score: Callable[[Scored], FloatArray]
    ) -> Alternative:
        inside, test, ranks = score(validation), score(material.test_scores), score(part_b)
        threshold = np.sort(ranks)[-int(ALPHA * (len(ranks) + 1))]
        on_development = _aurocs(inside, {n: score(s) for n, s in development.items()})
        reported = _aurocs(test, {n: score(s) for n, s in material.set_scores.items()})
        missed = [float(np.mean(score(s) <= threshold)) for s in development.values()]
        return Alternative(
            name=name,
            description=description,
            development=on_development,
            reported=reported,
            development_mean=float(np.mean([a for _, a in on_development])),
            reported_mean=float(np.mean([a for n, a in reported if n in barred] or [np.nan])),
            development_missed=float(np.mean(missed)),
        )

    views = tuple(material.test_scores.views)
    alternatives = [
        alternative(
            SHIPPED, "sum of -log p over the views (Fisher); the one in the bundle", _fisher
        ),
        alternative("min-p", "smallest p over the views", _min_p),
        *(alternative(view, _view_words(view), partial(_view, name=view)) for view in views),
    ]
    two_tailed = tuple(
        t.name
        for t in material.classifier.info.tests
        if t.kind in (TestKind.TWO_TAILED, TestKind.HIGH_IS_UNUSUAL) and "." in t.name
    )
    alternatives.append(
        alternative(
            "fisher of all tests",
            "sum of -log p over every single two-tailed and one-tailed test",
            lambda s: -np.log(np.stack([s.p[name] for name in two_tailed])).sum(0),
        )
    )
    if TYPICALITY in material.test_scores.unusual:
        alternatives.append(
            alternative(
                "typicality of log q(x)",
                "the thesis's single test",
                lambda s: s.unusual[TYPICALITY],
            )
        )
    return Combination(
        shipped=SHIPPED,
        views=views,
        alternatives=tuple(alternatives),
        development_sets=tuple((s.name, s.description) for s in sets),
        validation_count=len(validation),
    )


def headline(result: Combination) -> dict[str, float]:
    """Mean AUROC over the report's sets that have a bar, of the combined test."""
    shipped = next(a for a in result.alternatives if a.name == result.shipped)
    return {"mean_auroc": shipped.reported_mean}


def figures(result: Combination) -> dict[str, Figure]:
    """Mean AUROC of each alternative on both kinds of sets."""
    height = 0.36 * len(result.alternatives) + 1.0
    figure = Figure(figsize=(plots.WIDTH_IN, height), layout="constrained")
    axes = figure.add_subplot()
    rows = np.arange(len(result.alternatives))
    for values, label, colour, offset in (
        ([a.development_mean for a in result.alternatives], "development sets", plots.FAINT, 0.16),
        ([a.reported_mean for a in result.alternatives], "report's sets", plots.COLOURS[0], -0.16),
    ):
        axes.barh(rows - offset, 100 * np.array(values), height=0.3, color=colour, label=label)
    axes.set_yticks(rows, [a.name for a in result.alternatives])
    axes.invert_yaxis()
    axes.set_xlim(50, 100)
    axes.set_xlabel("mean AUROC in percent; 50 is chance")
    plots.style(axes)
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside upper right", ncols=2, fontsize=8.5, frameon=False)
    return {"alternatives": figure}


def _aurocs(inside: FloatArray, outside: Mapping[str, FloatArray]) -> tuple[tuple[str, float], ...]:
    kept = inside[~np.isnan(inside)]
    return tuple(
        (name, metrics.auroc(kept, scores[~np.isnan(scores)])) for name, scores in outside.items()
    )


def _fisher(scored: Scored) -> FloatArray:
    return np.asarray(sum(scored.views.values()))


def _min_p(scored: Scored) -> FloatArray:
    return np.max(list(scored.views.values()), axis=0)


def _view(scored: Scored, *, name: str) -> FloatArray:
    return scored.views[name]


def _view_words(view: str) -> str:
    if view == JOINT:
        return "density of states over all statistics alone (Morningstar 2021)"
    return f"{view} alone, one-tailed"
