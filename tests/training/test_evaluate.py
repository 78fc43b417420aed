from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ibinn.assessment import COMBINED
from ibinn.errors import DataError, NotCalibratedError
from ibinn.images import JpegStep, Preprocessing, PreprocessingConfig
from tests.training.evaluation_stub import (
    CALIBRATION_COUNT,
    CLASSES,
    SIDE,
    StubClassifier,
    StubSet,
    make_set,
    pictures,
)
from training.evaluate import evaluate
from training.evaluation import Evaluation, Rate
from training.ood_sets import LeftOut, OodCollection, OodSet
from training.scoring import fitted

TEST_COUNT = 900
LEFT_OUT = LeftOut(name="tiny-imagenet", reason="no directory was given")


def ood(rng: np.random.Generator) -> OodCollection:
    count = 300
    zeros = np.zeros(count, dtype=int)
    same = make_set(rng, count)
    far = pictures(zeros, zeros, np.full(count, 255), np.full(count, 100))
    return OodCollection(
        sets=(
            OodSet(name="far", description="Odd.", images=far),
            OodSet(
                name="same",
                description="Not odd.",
                images=fitted(same, StubClassifier(rng).preprocessing),
                barred=False,
                caveat="The test images' own kind.",
            ),
        ),
        left_out=(LEFT_OUT,),
    )


def evaluated(*, jpeg: bool = False, **settings: Any) -> Evaluation:
    rng = np.random.default_rng(3)
    model = StubClassifier(rng, jpeg=jpeg)
    test = make_set(rng, TEST_COUNT)
    return evaluate(
        model,
        test,
        ood(rng),
        test_name="made-up images",
        calibration=model.part_b,
        floor_draws=20,
        batch_size=128,
        **settings,
    )


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluated()


def test_accuracy_is_that_of_the_answers_with_its_interval(evaluation: Evaluation) -> None:
    assert evaluation.accuracy == Rate.of(720, 900)
    assert evaluation.accuracy.value == 0.8
    assert evaluation.accuracy.low < 0.8 < evaluation.accuracy.high
    assert evaluation.raw.accuracy == evaluation.calibrated.accuracy == 0.8
    assert sum(c.accuracy.count for c in evaluation.classes) == TEST_COUNT
    assert sum(c.accuracy.hits for c in evaluation.classes) == 720
    assert [c.name for c in evaluation.classes] == list(CLASSES)


def test_a_set_beyond_every_reference_is_found_by_the_tests_that_look_for_it(
    evaluation: Evaluation,
) -> None:
    report = evaluation.set_named("far").test(COMBINED)
    assert report.auroc == 1.0
    assert [at.missed for at in report.at] == [0, 0]
    assert dict(evaluation.set_named("far").verdicts)["UNKNOWN"] == 1.0


def test_a_set_of_the_same_kind_is_not_told_apart(evaluation: Evaluation) -> None:
    for found in evaluation.set_named("same").detection:
        assert found.report.auroc == pytest.approx(0.5, abs=0.07)
        assert found.report.at[0].miss_rate > 0.95


def test_false_flags_lie_in_the_interval_of_the_law(evaluation: Evaluation) -> None:
    assert [flags.test for flags in evaluation.false_flags][-1] == COMBINED
    for flags in evaluation.false_flags:
        assert [at.alpha for at in flags.at] == [0.01, 0.05]
        for at in flags.at:
            assert at.right
            assert at.low <= at.flags <= at.high
            assert at.rate == at.flags / TEST_COUNT
            assert at.testable


def test_an_alpha_below_the_smallest_p_is_marked_as_not_testable() -> None:
    flags = evaluated(alphas=(0.001,)).false_flags[-1]
    at = flags.at[0]
    assert at.alpha == 0.001 < flags.smallest_p == 1 / (CALIBRATION_COUNT + 1)
    assert not at.testable
    assert (at.flags, at.low, at.high) == (0, 0, 0)


def test_the_models_own_alpha_is_always_reported() -> None:
    assert evaluated(alphas=(0.05, 0.1)).alphas == (0.01, 0.05, 0.1)


def test_controls_are_near_one_half(evaluation: Evaluation) -> None:
    assert len(evaluation.controls) == 2
    for control in evaluation.controls:
        assert abs(control.auroc - 0.5) <= 3.29 * control.standard_error
        assert control.right


def test_coverage_is_measured_overall_per_class_and_where_not_flagged(
    evaluation: Evaluation,
) -> None:
    coverage = evaluation.coverage
    assert coverage.target == 0.9
    assert coverage.overall.count == TEST_COUNT
    assert coverage.right
    unknown = dict(evaluation.verdicts)["UNKNOWN"]
    assert coverage.not_flagged.count == round((1 - unknown) * TEST_COUNT)
    assert [c.coverage for c in evaluation.classes] == list(coverage.per_class)


def test_entropy_increase_is_the_difference_of_means(evaluation: Evaluation) -> None:
    # Confidence 100/255 is clipped to 0.4 by the stub; T = 1 raises its odds to the power 1.25.
    odds = (0.4 / 0.3) ** 1.25
    p = np.array([odds, 1, 1]) / (odds + 2)
    entropy = -(p * np.log(p)).sum()
    assert evaluation.set_named("far").entropy_increase_nats == pytest.approx(
        entropy - evaluation.entropy_nats
    )


def test_exactness_is_the_worst_over_one_hundred_images(evaluation: Evaluation) -> None:
    assert (evaluation.completeness.count, evaluation.completeness.worst) == (100, 2e-5)
    assert (evaluation.round_trip.count, evaluation.round_trip.worst) == (100, 3e-6)
    assert evaluation.completeness.right
    assert evaluation.round_trip.right


def test_sets_are_scored_again_without_the_jpeg_step_only_where_there_is_one(
    evaluation: Evaluation,
) -> None:
    assert evaluation.without_jpeg is None
    both = evaluated(jpeg=True)
    assert [s.name for s in both.without_jpeg.sets] == ["far", "same"]
    assert len(both.without_jpeg.false_flags) == len(both.false_flags)
    assert evaluated(jpeg=True, ablate_jpeg=False).without_jpeg is None


def test_every_image_passes_the_preprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    model = StubClassifier(rng, jpeg=True)
    finished: list[np.ndarray] = []
    finish = Preprocessing.finish

    def recorded(self: Preprocessing, pixels: np.ndarray) -> np.ndarray:
        finished.append(pixels)
        return finish(self, pixels)

    monkeypatch.setattr(Preprocessing, "finish", recorded)
    evaluate(model, make_set(rng, 50), ood(rng), test_name="x", ablate_jpeg=False, floor_draws=2)
    assert len(finished) == 50 + 300 + 300 + 50  # the last 50 for the exactness figures


def test_manifest_figures_name_every_test_and_set(evaluation: Evaluation) -> None:
    headline = evaluation.headline()
    assert headline["top1"] == 0.8
    detections = {found.test: found for found in evaluation.detections()}
    assert set(detections) == {flags.test for flags in evaluation.false_flags}
    assert ("far", 1.0) in detections[COMBINED].auroc
    assert ("far", 0.01, 0.0) in detections[COMBINED].miss_rates


def test_evaluation_is_plain_json_without_nan(evaluation: Evaluation) -> None:
    text = json.dumps(evaluation.to_dict(), allow_nan=False)
    plain = json.loads(text)
    assert plain["accuracy"]["value"] == 0.8
    assert plain["left_out"] == [{"name": "tiny-imagenet", "reason": LEFT_OUT.reason}]
    assert plain["false_flags"][0]["kind"] == "typicality"


def test_figures_data_is_normalised_and_monotone(evaluation: Evaluation) -> None:
    for histogram in evaluation.histograms:
        assert [name for name, _ in histogram.shares] == ["test", "far", "same"]
        for _, shares in histogram.shares:
            assert sum(shares) == pytest.approx(1.0)
            assert len(shares) == len(histogram.edges) - 1
    for roc in evaluation.rocs:
        assert roc.false_positive_rate[0] == 0.0
        assert roc.false_positive_rate[-1] == roc.true_positive_rate[-1] == 1.0
        assert (np.diff(roc.true_positive_rate) >= 0).all()
        area = np.trapezoid(roc.true_positive_rate, roc.false_positive_rate)
        auroc = evaluation.set_named(roc.name).test(COMBINED).auroc
        assert area == pytest.approx(auroc, abs=0.01)


def test_an_uncalibrated_model_is_refused() -> None:
    rng = np.random.default_rng(0)
    model = StubClassifier(rng, calibrated=False)
    with pytest.raises(NotCalibratedError, match="calibrate first"):
        evaluate(model, make_set(rng, 10), OodCollection(sets=(), left_out=()), test_name="x")


def test_test_images_of_other_classes_are_refused() -> None:
    rng = np.random.default_rng(0)
    test = make_set(rng, 10)
    test.class_names = ("a", "b", "c")
    with pytest.raises(DataError, match="bolt"):
        evaluate(StubClassifier(rng), test, OodCollection(sets=(), left_out=()), test_name="x")


def test_an_empty_test_set_is_refused() -> None:
    rng = np.random.default_rng(0)
    empty = StubSet(np.zeros((0, SIDE, SIDE, 3), np.uint8), np.zeros(0))
    with pytest.raises(DataError, match="no test images"):
        evaluate(StubClassifier(rng), empty, OodCollection(sets=(), left_out=()), test_name="x")


def test_what_is_erased_depends_on_the_preprocessing() -> None:
    plain = PreprocessingConfig(side=32, mean=(0.5,) * 3, std=(0.25,) * 3)
    stepped = PreprocessingConfig(
        side=32, mean=(0.5,) * 3, std=(0.25,) * 3, fit="squash", jpeg=JpegStep()
    )
    assert not any("JPEG" in line for line in Preprocessing(plain).erased())
    assert any("centre square" in line for line in Preprocessing(plain).erased())
    assert any("JPEG" in line for line in Preprocessing(stepped).erased())
    assert any("squashed" in line for line in Preprocessing(stepped).erased())


def test_a_rate_of_nothing_has_no_value() -> None:
    assert Rate.of(0, 0) == Rate(count=0, hits=0, value=None, low=None, high=None)
