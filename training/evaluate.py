"""Measures what a report states about a calibrated model.

Shapes: N images, K classes, S side in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ibinn import metrics
from ibinn.assessment import COMBINED
from ibinn.calibration import calibration_report
from ibinn.conformal import CoverageReport, coverage_report
from ibinn.errors import DataError, NotCalibratedError
from ibinn.images import JpegStep
from ibinn.ood.p_values import attainable_count, beta_binomial_interval
from ibinn.types import ModelInfo, TestInfo, Verdict
from training.chapters.registry import Chapter
from training.checkpoint import CurvePoint
from training.evaluation import (
    Ablation,
    Baseline,
    ClassReport,
    Control,
    EvaluatedModel,
    Evaluation,
    FalseFlags,
    FlagCount,
    Rate,
    SetReport,
    TestDetection,
    WorstError,
)
from training.figure_data import histograms, roc
from training.ood_sets import Images, OodCollection, OodSet, Pixels
from training.scoring import (
    EvaluatedClassifier,
    FloatArray,
    LabelledImages,
    Progress,
    ReferenceLike,
    Scored,
    Scorer,
    fitted,
)

EXACTNESS_COUNT = 100
COMPLETENESS_LIMIT_NATS = 1e-3
ROUND_TRIP_LIMIT = 1e-4
CONTROL_TOLERANCE = 0.02
MeasureChapters = Callable[[Scorer, Scored, Mapping[str, Scored]], tuple[Chapter, ...]]
CONTROL_ERRORS = 3.29
"""Standard errors that hold 99.9 %; they decide where the sets are small."""


def evaluate(
    model: EvaluatedClassifier,
    test: LabelledImages,
    ood: OodCollection,
    *,
    test_name: str,
    calibration: LabelledImages | None = None,
    ablate_jpeg: bool = True,
    alphas: Sequence[float] = (0.01, 0.05),
    batch_size: int = 100,
    floor_draws: int = 1000,
    curve: Sequence[CurvePoint] = (),
    baseline: Baseline | None = None,
    facts: Sequence[tuple[str, str]] = (),
    chapters: MeasureChapters | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model on its test images and on out-of-distribution sets.

    Args:
        model: A calibrated classifier.
        test: Test images, of which none served training or calibration.
        ood: From `training.ood_sets.report_sets`.
        test_name: What the test images are, in words.
        calibration: Images of calibration part B, for the control against the test images.
        ablate_jpeg: Whether to score everything once more without the JPEG step; nothing
            happens where the preprocessing has none.
        alphas: Significances for flags and misses; the model's own is added.
        batch_size: Images per forward pass.
        floor_draws: Label draws behind the calibration floors.
        curve: Figures of the training.
        baseline: A discriminative classifier of equal training cost.
        facts: What to print about the run: command, time, machine.
        chapters: Measures further chapters from the scorer, the test images' scores and those
            of each set.
        progress: Called after every batch.

    Raises:
        NotCalibratedError: The model has no calibration.
        DataError: The test set is empty or has other classes than the model.
    """
    info = model.info
    reference = _checked(model, test)
    levels = tuple(sorted({*alphas, info.alpha}))
    jpeg = model.preprocessing.config.jpeg
    scorer = Scorer(model=model, reference=reference, batch_size=batch_size, progress=progress)
    shown = fitted(test, model.preprocessing)
    in_scores = scorer.images(shown, "test images", finish=True)
    out_scores = {s.name: scorer.ood(s, finish=True) for s in ood.sets}
    without_jpeg = None
    if ablate_jpeg and jpeg is not None:
        bare = scorer.images(shown, "test images without JPEG", finish=False)
        without_jpeg = Ablation(
            false_flags=_false_flags(info, bare, levels),
            sets=tuple(
                _set_report(info, s, bare, scorer.ood(s, finish=False), levels)
                for s in ood.sets
                if not s.finished
            ),
        )
    labels = test.labels
    flagged = in_scores.verdicts == Verdict.UNKNOWN.value
    coverage = _coverage(info, reference, in_scores, labels, ~flagged)
    exact = _evenly_spaced(model, shown)
    completeness = model.completeness_errors(exact) if info.explainable else None
    controls = [_halves(in_scores)]
    if calibration is not None and len(calibration):
        part_b = scorer.images(
            fitted(calibration, model.preprocessing), "calibration images", finish=True
        )
        name = "test images against calibration part B"
        controls.append(_control(name, in_scores.unusual[COMBINED], part_b.unusual[COMBINED]))
    predicted = in_scores.probabilities.argmax(axis=1)
    return Evaluation(
        model=_model(info, jpeg),
        test_name=test_name,
        test_count=len(test),
        alphas=levels,
        accuracy=Rate.of(int((predicted == labels).sum()), len(labels)),
        bits_per_dim=float(in_scores.bits_per_dim.mean()),
        entropy_nats=float(_entropies(in_scores).mean()),
        raw=calibration_report(_softmax(in_scores.logits), labels, draws=floor_draws),
        calibrated=calibration_report(in_scores.probabilities, labels, draws=floor_draws),
        coverage=coverage,
        false_flags=_false_flags(info, in_scores, levels),
        verdicts=_verdict_shares(in_scores),
        classes=_classes(info.classes, labels, predicted == labels, flagged, coverage),
        sets=tuple(_set_report(info, s, in_scores, out_scores[s.name], levels) for s in ood.sets),
        left_out=ood.left_out,
        without_jpeg=without_jpeg,
        controls=tuple(controls),
        completeness=(
            None
            if completeness is None
            else WorstError(
                count=len(exact),
                worst=float(np.max(completeness)),
                limit=COMPLETENESS_LIMIT_NATS,
            )
        ),
        round_trip=WorstError(
            count=len(exact),
            worst=float(np.max(model.round_trip_errors(exact))),
            limit=ROUND_TRIP_LIMIT,
        ),
        erased=model.preprocessing.erased(),
        histograms=histograms(in_scores, out_scores),
        rocs=tuple(
            roc(name, in_scores.unusual[COMBINED], out.unusual[COMBINED])
            for name, out in out_scores.items()
        ),
        curve=tuple(curve),
        baseline=baseline,
        facts=tuple(facts),
        chapters=chapters(scorer, in_scores, out_scores) if chapters is not None else (),
    )


def _checked(model: EvaluatedClassifier, test: LabelledImages) -> ReferenceLike:
    info, reference = model.info, model.reference
    if reference is None or not info.calibrated:
        raise NotCalibratedError(
            f"model {info.name!r} is not calibrated; a report needs p-values: calibrate first"
        )
    if tuple(test.class_names) != info.classes:
        raise DataError(
            f"the test images have the classes {list(test.class_names)}; the model's are "
            f"{list(info.classes)}; use the data set that it was trained on, in its order"
        )
    if not len(test):
        raise DataError("there are no test images; expected at least one")
    return reference


def _model(info: ModelInfo, jpeg: JpegStep | None) -> EvaluatedModel:
    return EvaluatedModel(
        name=info.name,
        architecture=info.architecture,
        parameters=info.parameters,
        input_side=info.input_side,
        weights=info.versions.weights,
        calibration=info.versions.calibration,
        calibration_count=info.calibration_count,
        temperature=info.temperature,
        alpha=info.alpha,
        intended_use=info.intended_use,
        training_data=info.training_data,
        jpeg_step="" if jpeg is None else f"quality {jpeg.quality}, {jpeg.subsampling}",
    )


def _false_flags(
    info: ModelInfo, scored: Scored, alphas: Sequence[float]
) -> tuple[FalseFlags, ...]:
    def count(test: TestInfo, alpha: float) -> FlagCount:
        p = scored.p[test.name]
        assessed = int((~np.isnan(p)).sum())
        flags = int((p <= alpha).sum())
        n = info.calibration_count
        low, high = beta_binomial_interval(alpha, n, assessed, kind=test.kind)
        return FlagCount(
            alpha=alpha,
            count=assessed,
            flags=flags,
            rate=flags / max(1, assessed),
            low=low,
            high=high,
            right=low <= flags <= high,
            testable=attainable_count(alpha, n, test.kind) > 0,
        )

    return tuple(
        FalseFlags(
            test=test.name,
            group=test.group,
            kind=test.kind,
            smallest_p=test.smallest_p,
            at=tuple(count(test, alpha) for alpha in alphas),
        )
        for test in info.tests
    )


def _set_report(
    info: ModelInfo, ood: OodSet, inside: Scored, outside: Scored, alphas: Sequence[float]
) -> SetReport:
    return SetReport(
        name=ood.name,
        description=ood.description,
        caveat=ood.caveat,
        barred=ood.barred,
        count=len(outside),
        bits_per_dim=float(np.nanmean(outside.bits_per_dim)),
        entropy_increase_nats=float(_entropies(outside).mean() - _entropies(inside).mean()),
        verdicts=_verdict_shares(outside),
        detection=tuple(
            TestDetection(
                test=test.name,
                report=metrics.auroc_and_misses(
                    in_scores=inside.unusual[test.name],
                    out_scores=outside.unusual[test.name],
                    in_p=inside.p[test.name],
                    out_p=outside.p[test.name],
                    calibration_count=info.calibration_count,
                    kind=test.kind,
                    alphas=alphas,
                ),
            )
            for test in info.tests
        ),
    )


def _coverage(
    info: ModelInfo,
    reference: ReferenceLike,
    scored: Scored,
    labels: npt.NDArray[np.int64],
    not_flagged: npt.NDArray[np.bool_],
) -> CoverageReport | None:
    quantile = reference.quantile(info.conformal_coverage)
    if quantile is None:
        return None
    return coverage_report(
        scored.probabilities,
        labels,
        quantile=quantile,
        target=info.conformal_coverage,
        calibration_count=info.calibration_count,
        not_flagged=not_flagged,
    )


def _classes(
    names: Sequence[str],
    labels: npt.NDArray[np.int64],
    right: npt.NDArray[np.bool_],
    flagged: npt.NDArray[np.bool_],
    coverage: CoverageReport | None,
) -> tuple[ClassReport, ...]:
    reports = []
    for index, name in enumerate(names):
        own = labels == index
        count = int(own.sum())
        reports.append(
            ClassReport(
                name=name,
                accuracy=Rate.of(int(right[own].sum()), count),
                flagged=Rate.of(int(flagged[own].sum()), count),
                coverage=None if coverage is None else coverage.per_class[index],
            )
        )
    return tuple(reports)


def _evenly_spaced(model: EvaluatedClassifier, images: Images) -> Pixels:
    """Up to `EXACTNESS_COUNT` preprocessed images, spread over the set and so over its classes."""
    count = min(EXACTNESS_COUNT, len(images))
    indices = np.linspace(0, len(images) - 1, count).round().astype(int)
    return np.stack([model.preprocessing.finish(images[int(index)]) for index in indices])


def _halves(scored: Scored) -> Control:
    order = np.random.default_rng(0).permutation(len(scored))
    score = scored.unusual[COMBINED][order]
    return _control("two random halves of the test images", score[::2], score[1::2])


def _control(name: str, first: FloatArray, second: FloatArray) -> Control:
    one, two = first[~np.isnan(first)], second[~np.isnan(second)]
    n, m = len(one), len(two)
    auroc = metrics.auroc(one, two)
    error = math.sqrt((n + m + 1) / (12 * n * m))
    return Control(
        name=name,
        auroc=auroc,
        standard_error=error,
        right=abs(auroc - 0.5) <= max(CONTROL_TOLERANCE, CONTROL_ERRORS * error),
    )


def _verdict_shares(scored: Scored) -> tuple[tuple[str, float], ...]:
    return tuple(
        (verdict.value, float(np.mean(scored.verdicts == verdict.value))) for verdict in Verdict
    )


def _entropies(scored: Scored) -> FloatArray:
    """H(y|x) at T = 1 in nats, (N,)."""
    p = _softmax(scored.logits)
    entropies: FloatArray = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1)
    return entropies


def _softmax(logits: FloatArray) -> FloatArray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    normalised: FloatArray = shifted / shifted.sum(axis=1, keepdims=True)
    return normalised
