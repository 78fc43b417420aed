"""From evidence to an answer: p-values, conformal set, verdict and its reason.

Shapes: B batch, K classes, T tests, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ibinn.classifier import Evidence
from ibinn.conformal import prediction_set
from ibinn.ood import p_values as p_value
from ibinn.ood.ranking import Ranker
from ibinn.ood.registry import Statistic, test_name
from ibinn.ood.statistics import StatisticContext
from ibinn.raps import raps_set, u_of
from ibinn.reasons import driving_group, reason
from ibinn.reference import Reference
from ibinn.types import (
    ClassScore,
    ConformalSet,
    Group,
    InputInfo,
    Prediction,
    SetMethod,
    TestKind,
    TestResult,
    Verdict,
    Versions,
)

FloatArray = npt.NDArray[np.float64]

COMBINED = "combined"
"""Name of the combined test (`ibinn.ood.combined`)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """Numbers of a batch behind the answers.

    Attributes:
        logits: w_y + z·μ_y - ½‖μ_y‖² (B, K), at T = 1.
        probabilities: Calibrated posterior (B, K).
        log_likelihoods: log q(x|y) (B, K), nats.
        bits_per_dim: (B,).
        statistics: Value per statistic, (B,) each.
        p_values: Raw p per single test (B,); empty if not calibrated.
        combined_score: Fisher's sum over the views (B,); NaN where not assessed.
        combined_p: Its p-value (B,); NaN where not assessed.
        views: -log p against calibration part A of each view of the combined test (B,).
        group_p: p-value of each group's own combination (B,).
        group_excess: How far each group's score lies beyond the median of its reference, in
            units of the reference's interquartile range (B,); tells apart groups whose
            p-values are all the smallest possible.
        class_p: Class-conditional p-values (B, K), or None if not calibrated.
        conformal: Membership in the conformal set (B, K), or None if not calibrated.
        verdicts: One per image.
    """

    logits: FloatArray
    probabilities: FloatArray
    log_likelihoods: FloatArray
    bits_per_dim: FloatArray
    statistics: dict[str, FloatArray]
    p_values: dict[str, FloatArray]
    combined_score: FloatArray
    combined_p: FloatArray
    views: dict[str, FloatArray]
    group_p: dict[str, FloatArray]
    group_excess: dict[str, FloatArray]
    class_p: FloatArray | None
    conformal: npt.NDArray[np.bool_] | None
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Significance:
    """The settings that an answer is made under.

    Attributes:
        alpha: Of the verdict's combined test and of each single test.
        coverage: Target coverage of the conformal sets.
    """

    alpha: float
    coverage: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranking:
    """References of a calibration in the form in which a batch is ranked against all of them.

    Attributes:
        statistics: Names of the statistics.
        tests: Names of the single tests, in the order of statistics and of their kinds.
        columns: Statistic of each of them.
        groups: Names of the groups of statistics.
        medians: Median of each group's reference (G,).
        spreads: Its interquartile range (G,).
        ranker: Of the single tests, the combined test, the groups and the classes.
    """

    statistics: tuple[str, ...]
    tests: tuple[str, ...]
    columns: npt.NDArray[np.int64]
    groups: tuple[str, ...]
    medians: FloatArray
    spreads: FloatArray
    ranker: Ranker

    @classmethod
    def of(cls, statistics: Sequence[Statistic], reference: Reference) -> Ranking:
        """Of a model's statistics and its calibration."""
        tests = [(i, s.name, kind) for i, s in enumerate(statistics) for kind in s.kinds]
        groups = tuple(reference.combined_test.groups)
        quartiles = [np.percentile(reference.groups[name], (25, 50, 75)) for name in groups]
        high = TestKind.HIGH_IS_UNUSUAL
        return cls(
            statistics=tuple(s.name for s in statistics),
            tests=tuple(test_name(name, kind) for _, name, kind in tests),
            columns=np.array([i for i, _, _ in tests], dtype=np.int64),
            groups=groups,
            medians=np.array([median for _, median, _ in quartiles]),
            spreads=np.array([max(float(upper - lower), 1e-12) for lower, _, upper in quartiles]),
            ranker=Ranker.of(
                [
                    (
                        reference.ranks[test_name(name, kind)],
                        kind,
                        reference.centres[name] if kind is TestKind.TYPICALITY else None,
                    )
                    for _, name, kind in tests
                ]
                + [(reference.combined, high, None)]
                + [(reference.groups[name], high, None) for name in groups]
                + [(ranks, high, None) for ranks in reference.class_distances]
            ),
        )


def compute_statistics(
    evidence: Evidence, statistics: Sequence[Statistic], context: StatisticContext
) -> dict[str, FloatArray]:
    """Every statistic of a batch, (B,) float64 each."""
    matrix = _statistics_matrix(evidence, statistics, context)
    return {s.name: matrix[:, i] for i, s in enumerate(statistics)}


def _statistics_matrix(
    evidence: Evidence, statistics: Sequence[Statistic], context: StatisticContext
) -> FloatArray:
    """The same as one array (B, T), copied from the device once."""
    with torch.inference_mode():
        batch = context.for_batch(evidence)
        columns = [s.compute(evidence, batch) for s in statistics]
        matrix: FloatArray = torch.stack(columns, dim=1).cpu().numpy()
        return matrix


def group_columns(statistics: Sequence[Statistic]) -> dict[str, list[int]]:
    """Positions of each group's statistics."""
    return {
        group.value: [i for i, s in enumerate(statistics) if s.group is group]
        for group in (Group.PIXEL, Group.STYLE, Group.SEMANTIC)
    }


def score(
    evidence: Evidence,
    *,
    statistics: Sequence[Statistic],
    context: StatisticContext,
    reference: Reference | None,
    significance: Significance,
    ranking: Ranking | None = None,
) -> Scores:
    """Statistics, p-values and verdicts of a batch; a pure function of its arguments.

    Args:
        evidence: Of the batch.
        statistics: Of the model.
        context: What they need.
        reference: Calibration, or None.
        significance: Settings.
        ranking: `Ranking.of` these statistics and this reference, if it was made already.
    """
    temperature = reference.temperature if reference else 1.0
    with torch.inference_mode():
        log_posterior = evidence.log_posterior(temperature=temperature).cpu().numpy()
    probabilities = np.exp(log_posterior)
    count = len(evidence)
    base = {
        "logits": evidence.logits.cpu().numpy(),
        "probabilities": probabilities,
        "log_likelihoods": evidence.class_log_likelihoods.cpu().numpy(),
        "bits_per_dim": evidence.bits_per_dim.cpu().numpy(),
    }
    if reference is None:
        nan = np.full(count, np.nan)
        return Scores(
            **base,
            statistics={},
            p_values={},
            combined_score=nan,
            combined_p=nan,
            views={},
            group_p={},
            group_excess={},
            class_p=None,
            conformal=None,
            verdicts=(Verdict.NOT_ASSESSED,) * count,
        )
    ranking = ranking or Ranking.of(statistics, reference)
    matrix = _statistics_matrix(evidence, statistics, context)
    surprises = reference.combined_test.surprises(matrix)
    combined = surprises.fisher
    groups = surprises.by_group
    distances = evidence.subspaces.class_distances.cpu().numpy()
    ranked = ranking.ranker.p_values(
        np.concatenate((matrix[:, ranking.columns], combined[:, None], groups, distances), axis=1)
    )
    first = len(ranking.tests)
    last = first + 1 + len(ranking.groups)
    combined_p = ranked[:, first]
    excess = (groups - ranking.medians) / ranking.spreads
    quantile = reference.quantile(significance.coverage)
    answerable = np.isfinite(probabilities).all(axis=1)
    members = None if quantile is None else _conformal(probabilities, quantile, answerable)
    sizes = np.ones(count, dtype=int) if members is None else members.sum(axis=1)
    assessed = answerable & np.isfinite(base["bits_per_dim"])
    return Scores(
        **base,
        statistics=dict(zip(ranking.statistics, matrix.T, strict=True)),
        p_values=dict(zip(ranking.tests, ranked.T[:first], strict=True)),
        combined_score=combined,
        combined_p=combined_p,
        views=dict(surprises.views),
        group_p=dict(zip(ranking.groups, ranked.T[first + 1 : last], strict=True)),
        group_excess=dict(zip(ranking.groups, excess.T, strict=True)),
        class_p=ranked[:, last:],
        conformal=members,
        verdicts=tuple(
            _verdict(p, size, significance.alpha, assessed=ok)
            for p, size, ok in zip(
                combined_p.tolist(), sizes.tolist(), assessed.tolist(), strict=True
            )
        ),
    )


def excess(found: FloatArray, ranks: FloatArray) -> FloatArray:
    """(score - median) / interquartile range of a sorted reference, per image (B,)."""
    low, median, high = np.percentile(ranks, (25, 50, 75))
    result: FloatArray = (found - median) / max(float(high - low), 1e-12)
    return result


def _conformal(
    probabilities: FloatArray, quantile: float, finite: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    if finite.all():
        return prediction_set(probabilities, quantile)
    members = np.zeros(probabilities.shape, dtype=np.bool_)
    members[finite] = prediction_set(probabilities[finite], quantile)
    return members


def _verdict(p: float, set_size: int, alpha: float, *, assessed: bool) -> Verdict:
    if not assessed or not math.isfinite(p):
        return Verdict.NOT_ASSESSED
    if p <= alpha:
        return Verdict.UNKNOWN
    return Verdict.AMBIGUOUS if set_size >= 2 else Verdict.NOT_FLAGGED


def predictions(
    scores: Scores,
    inputs: Sequence[InputInfo],
    *,
    statistics: Sequence[Statistic],
    reference: Reference | None,
    significance: Significance,
    class_names: Sequence[str],
    versions: Versions,
    measured: Mapping[str, float],
) -> list[Prediction]:
    """Answers for a batch, one per input.

    `measured` holds the bundle's figures by name, those of `coverage_figure` among them.
    """
    raw = _softmax(scores.logits)
    adjusted = (
        p_value.holm(np.stack(list(scores.p_values.values()), axis=1)) if scores.p_values else None
    )
    answers = []
    for i, info in enumerate(inputs):
        order = np.argsort(-np.nan_to_num(scores.probabilities[i], nan=-1.0), kind="stable")
        p = scores.probabilities[i]
        classes = tuple(
            ClassScore(
                index=int(k),
                name=class_names[k],
                probability=float(p[k]),
                raw_probability=float(raw[i, k]),
                log_likelihood=float(scores.log_likelihoods[i, k]),
                p_value=_maybe(scores.class_p[i, k]) if scores.class_p is not None else None,
            )
            for k in order
        )
        tests: tuple[TestResult, ...] = ()
        combined = None
        conformal = None
        sets: tuple[ConformalSet, ...] = ()
        if reference is not None and adjusted is not None:
            tests = _test_results(scores, i, statistics, adjusted[i], reference, significance)
            combined = _combined_result(scores, i, reference, significance)
            if np.isfinite(p).all():
                sets = _conformal_sets(p, info, order, reference, class_names, measured)
            if scores.conformal is not None:
                conformal = ConformalSet(
                    classes=tuple(class_names[k] for k in order if scores.conformal[i, k]),
                    target_coverage=significance.coverage,
                    measured_coverage=measured.get(
                        coverage_figure(SetMethod.PLAIN, significance.coverage)
                    ),
                )
        verdict = scores.verdicts[i]
        driver = driving_group(scores, i) if verdict is Verdict.UNKNOWN else None
        observed = None
        if reference is not None and verdict in (Verdict.NOT_FLAGGED, Verdict.AMBIGUOUS):
            observed = reference.confidence.lookup(classes[0].probability)
        answers.append(
            Prediction(
                classes=classes,
                entropy=float(-(p * np.log(np.maximum(p, 1e-300))).sum()),
                temperature=reference.temperature if reference else 1.0,
                bits_per_dim=float(scores.bits_per_dim[i]),
                conformal=conformal,
                tests=tests,
                combined=combined,
                verdict=verdict,
                reason=reason(
                    verdict,
                    scores,
                    i,
                    driver,
                    statistics,
                    tests,
                    combined,
                    conformal,
                    calibrated=reference is not None,
                ),
                driver=driver,
                conformal_sets=sets,
                observed_accuracy=observed,
                versions=versions,
                calibration_count=reference.count_b if reference else 0,
                input=info,
            )
        )
    return answers


def coverage_figure(method: SetMethod, target: float) -> str:
    """Name of a measured coverage among a bundle's figures.

    >>> coverage_figure(SetMethod.RAPS, 0.95)
    'raps_coverage@0.95'
    """
    return f"{method.value}_coverage@{target:g}"


def _conformal_sets(
    probabilities: FloatArray,
    info: InputInfo,
    order: npt.NDArray[np.int64],
    reference: Reference,
    class_names: Sequence[str],
    measured: Mapping[str, float],
) -> tuple[ConformalSet, ...]:
    """Every prediction set of one image, plain ones first."""
    row = probabilities[None]

    def made(method: SetMethod, target: float, members: npt.NDArray[np.bool_]) -> ConformalSet:
        return ConformalSet(
            method=method,
            classes=tuple(class_names[k] for k in order if members[0, k]),
            target_coverage=target,
            measured_coverage=measured.get(coverage_figure(method, target)),
        )

    sets = [
        made(SetMethod.PLAIN, target, prediction_set(row, quantile))
        for target, quantile in reference.conformal
    ]
    if reference.raps and info.sha256_pixels:
        u = np.array([u_of(info.sha256_pixels)])
        sets += [
            made(
                SetMethod.RAPS,
                fit.coverage,
                raps_set(row, u, quantile=fit.quantile, config=fit.config),
            )
            for fit in reference.raps
        ]
    return tuple(sets)


def _test_results(
    scores: Scores,
    i: int,
    statistics: Sequence[Statistic],
    adjusted: FloatArray,
    reference: Reference,
    significance: Significance,
) -> tuple[TestResult, ...]:
    results = []
    position = 0
    for s in statistics:
        for kind in s.kinds:
            p, p_adjusted = scores.p_values[test_name(s.name, kind)][i], adjusted[position]
            position += 1
            results.append(
                TestResult(
                    name=test_name(s.name, kind),
                    group=s.group,
                    kind=kind,
                    statistic=float(scores.statistics[s.name][i]),
                    p_value=_maybe(p),
                    p_adjusted=_maybe(p_adjusted),
                    smallest_p=p_value.smallest_p(reference.count_b, kind),
                    alpha=significance.alpha,
                    flagged=bool(p_adjusted <= significance.alpha),
                )
            )
    return tuple(results)


def _combined_result(
    scores: Scores, i: int, reference: Reference, significance: Significance
) -> TestResult:
    p = scores.combined_p[i]
    return TestResult(
        name=COMBINED,
        group=Group.COMBINED,
        kind=TestKind.HIGH_IS_UNUSUAL,
        statistic=float(scores.combined_score[i]),
        p_value=_maybe(p),
        p_adjusted=_maybe(p),
        smallest_p=p_value.smallest_p(reference.count_b, TestKind.HIGH_IS_UNUSUAL),
        alpha=significance.alpha,
        flagged=bool(p <= significance.alpha),
    )


def _maybe(p: float) -> float | None:
    return float(p) if np.isfinite(p) else None


def _softmax(logits: FloatArray) -> FloatArray:
    # Weights may be infinite in a broken model: its answer is NOT_ASSESSED, not a warning.
    with np.errstate(invalid="ignore"):
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        result: FloatArray = shifted / shifted.sum(axis=1, keepdims=True)
    return result
