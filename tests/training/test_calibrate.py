"""Calibration holds its promise: p-values of fresh images are uniform for every test."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from ibinn.assessment import COMBINED, Scores, Significance, predictions, score
from ibinn.classifier import Evidence
from ibinn.errors import DataError
from ibinn.images import JpegStep, Preprocessing, PreprocessingConfig, png_size
from ibinn.ood.p_values import beta_binomial_interval
from ibinn.ood.registry import Statistic, statistics_of
from ibinn.ood.registry import test_name as name_of_test
from ibinn.ood.statistics import StatisticContext
from ibinn.raps import fit_raps, raps_report
from ibinn.reference import Reference, from_arrays, to_arrays
from ibinn.types import InputInfo, Region, Verdict, Versions
from ibinn.types import TestKind as Kind
from tests.ibinn.networks import SIDE, random_classifier
from training.calibrate import COVERAGES, calibrate, draws_of
from training.image_set import ImageSet

CLASSES = ("a", "b", "c")
COUNT_A, COUNT_B, FRESH = 300, 400, 1000
ALPHA, COVERAGE = 0.05, 0.9
PREPROCESSING = Preprocessing(
    PreprocessingConfig(
        side=SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), jpeg=JpegStep(quality=75)
    )
)
MODEL = random_classifier(classes=len(CLASSES))
STATISTICS = statistics_of(MODEL.network)
TESTS = [(s, kind) for s in STATISTICS for kind in s.kinds]


def images(count: int, seed: int) -> ImageSet:
    """Smooth random colours with noise; the class is the tint."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), count)
    coarse = rng.normal(128, 30, (count, 2, 2, 3)).repeat(SIDE // 2, 1).repeat(SIDE // 2, 2)
    coarse[np.arange(count), :, :, labels] += 40
    contrast = rng.uniform(2, 20, (count, 1, 1, 1))
    pixels = coarse + contrast * rng.standard_normal(coarse.shape)
    return ImageSet.from_array(
        pixels.clip(0, 255).astype(np.uint8), class_names=CLASSES, labels=labels, name="made"
    )


def evidence_of(image_set: ImageSet) -> Evidence:
    pixels = np.stack([PREPROCESSING.finish(image_set.load(i)) for i in range(len(image_set))])
    return MODEL.evidence(
        PREPROCESSING.to_tensor(torch.from_numpy(pixels)),
        subspaces=MODEL.mixture.subspaces(),
        preprocessing_log_det=PREPROCESSING.log_det,
        encoded_bytes=torch.tensor([png_size(image) for image in pixels]),
    )


def scored(image_set: ImageSet, reference: Reference) -> Scores:
    context = StatisticContext.of(
        MODEL.mixture, MODEL.mixture.subspaces(), MODEL.network.heatmap_shape, reference.fitted
    )
    return score(
        evidence_of(image_set),
        statistics=STATISTICS,
        context=context,
        reference=reference,
        significance=Significance(alpha=ALPHA, coverage=COVERAGE),
    )


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A calibration, fresh images and their scores, and the scores of part B."""

    reference: Reference
    fresh: ImageSet
    scores: Scores


@pytest.fixture(scope="module")
def calibrated() -> Calibrated:
    reference = calibrate(MODEL, PREPROCESSING, images(COUNT_A, 1), images(COUNT_B, 2))
    fresh = images(FRESH, 3)
    return Calibrated(reference=reference, fresh=fresh, scores=scored(fresh, reference))


@pytest.mark.parametrize(
    ("statistic", "kind"), TESTS, ids=[name_of_test(s.name, kind) for s, kind in TESTS]
)
def test_p_values_of_fresh_images_are_uniform(
    calibrated: Calibrated, statistic: Statistic, kind: Kind
):
    name = name_of_test(statistic.name, kind)
    p = calibrated.scores.p_values[name]
    values = calibrated.scores.statistics[statistic.name]
    if kind is Kind.TYPICALITY:
        values = np.abs(values - calibrated.reference.centres[statistic.name])
    # p is a function of the rank among part B: uniform where both are of one distribution.
    assert ks_2samp(values, calibrated.reference.ranks[name]).pvalue > 1e-3
    for alpha in (0.02, 0.05, 0.2, 0.5):
        low, high = beta_binomial_interval(alpha, COUNT_B, FRESH, 0.9999, kind=kind)
        assert low <= int((p <= alpha).sum()) <= high, alpha


@pytest.mark.parametrize("which", [COMBINED, "pixel", "style", "semantic"])
def test_p_values_of_the_combined_and_of_the_group_tests_are_uniform(calibrated, which):
    scores = calibrated.scores
    p = scores.combined_p if which == COMBINED else scores.group_p[which]
    for alpha in (0.02, 0.05, 0.2, 0.5):
        low, high = beta_binomial_interval(alpha, COUNT_B, FRESH)
        assert low <= int((p <= alpha).sum()) <= high, alpha


def test_false_unknowns_have_the_rate_that_was_promised(calibrated):
    unknown = sum(verdict is Verdict.UNKNOWN for verdict in calibrated.scores.verdicts)
    low, high = beta_binomial_interval(ALPHA, COUNT_B, FRESH)
    assert low <= unknown <= high


def test_class_p_values_of_fresh_images_of_the_class_are_uniform(calibrated):
    labels = calibrated.fresh.labels
    for k, ranks in enumerate(calibrated.reference.class_distances):
        p = calibrated.scores.class_p[labels == k, k]
        low, high = beta_binomial_interval(0.1, len(ranks), len(p))
        assert low <= int((p <= 0.1).sum()) <= high


def test_sets_hold_the_truth_as_often_as_was_promised(calibrated):
    held = calibrated.scores.conformal[np.arange(FRESH), calibrated.fresh.labels]
    # The law of the uncovered images is that of false flags at 1 - coverage.
    _, high = beta_binomial_interval(1 - COVERAGE, COUNT_B, FRESH)
    assert int((~held).sum()) <= high


def test_adaptive_sets_hold_the_truth_as_often_as_was_promised(calibrated):
    report = raps_report(
        calibrated.scores.probabilities,
        calibrated.fresh.labels,
        draws_of(calibrated.fresh),
        fit=calibrated.reference.raps_fit(COVERAGE),
        calibration_count=COUNT_B,
    )
    assert report.right
    assert calibrated.reference.raps_fit(0.5) is None


def test_adaptive_sets_are_fitted_on_part_b_with_the_hashes_of_its_images(calibrated):
    part_b = images(COUNT_B, 2)
    probabilities = scored(part_b, calibrated.reference).probabilities
    assert [fit.coverage for fit in calibrated.reference.raps] == list(COVERAGES)
    for fit in calibrated.reference.raps:
        quantile = fit_raps(
            probabilities,
            part_b.labels,
            draws_of(part_b),
            coverage=fit.coverage,
            config=fit.config,
        )
        assert fit.quantile == pytest.approx(quantile, abs=1e-9)


def test_adaptive_sets_are_stored_and_a_bundle_without_them_still_loads(calibrated):
    arrays = to_arrays(calibrated.reference)
    assert from_arrays(arrays).raps == calibrated.reference.raps
    older = {name: values for name, values in arrays.items() if name != "raps"}
    assert from_arrays(older).raps == ()


def test_p_values_reach_the_smallest_that_is_reported(calibrated):
    stripes = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    stripes[:, ::2] = 255
    strange = ImageSet.from_array(stripes, class_names=CLASSES, labels=[0], name="stripes")
    scores = scored(strange, calibrated.reference)
    (found,) = predictions(
        scores,
        [_INPUT],
        statistics=STATISTICS,
        reference=calibrated.reference,
        significance=Significance(alpha=ALPHA, coverage=COVERAGE),
        class_names=CLASSES,
        versions=Versions(weights="", calibration="", policy="", taxonomy="", software=""),
        measured={},
    )
    assert found.verdict is Verdict.UNKNOWN
    assert found.combined.p_value == found.combined.smallest_p == 1 / (COUNT_B + 1)
    assert len(found.tests) == len(TESTS)
    for result in found.tests:
        tails = 2 if result.kind is Kind.TWO_TAILED else 1
        assert result.smallest_p == tails / (COUNT_B + 1)
        assert result.p_value >= result.smallest_p
    assert any(result.p_value == result.smallest_p for result in found.tests)


_INPUT = InputInfo(
    width=SIDE,
    height=SIDE,
    format="ARRAY",
    sha256_bytes="",
    sha256_pixels="",
    region=Region(left=0, top=0, width=SIDE, height=SIDE),
    reductions=(),
)


def test_a_reference_states_its_counts_and_keeps_every_rank(calibrated):
    reference = calibrated.reference
    assert (reference.count_a, reference.count_b) == (COUNT_A, COUNT_B)
    assert {name_of_test(s.name, kind) for s, kind in TESTS} == set(reference.ranks)
    for ranks in (*reference.ranks.values(), *reference.groups.values(), reference.combined):
        assert ranks.shape == (COUNT_B,)
        assert (np.diff(ranks) >= 0).all()
    assert sum(map(len, reference.class_distances)) == COUNT_B
    assert reference.temperature > 0


def test_calibration_is_a_function_of_its_images():
    part_a, part_b = images(80, 4), images(60, 5)
    first, second = (calibrate(MODEL, PREPROCESSING, part_a, part_b) for _ in range(2))
    assert first.temperature == second.temperature
    np.testing.assert_array_equal(first.combined, second.combined)


@pytest.mark.parametrize("empty", ["A", "B"])
def test_an_empty_part_is_refused(empty):
    some, none = images(40, 6), images(40, 6).subset([])
    parts = (none, some) if empty == "A" else (some, none)
    with pytest.raises(DataError, match=f"part {empty} has no images"):
        calibrate(MODEL, PREPROCESSING, *parts)


def test_too_few_images_for_the_combined_test_are_refused():
    with pytest.raises(DataError, match="images in calibration part A; the combined test"):
        calibrate(MODEL, PREPROCESSING, images(len(STATISTICS), 7), images(40, 8))
