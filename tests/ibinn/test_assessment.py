"""From evidence to the verdict and its reason, over statistics that a test can set at will."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from ibinn.assessment import COMBINED, Scores, Significance, group_columns, predictions, score
from ibinn.calibration import ConfidenceBins
from ibinn.classifier import Evidence, gather_evidence
from ibinn.flow.base import Observed
from ibinn.latent import GaussianMixture
from ibinn.ood.combination import DensityOfStates
from ibinn.ood.combined import CombinedTest
from ibinn.ood.p_values import holm
from ibinn.ood.registry import Statistic
from ibinn.ood.registry import test_name as name_of_test
from ibinn.ood.statistics import FittedStatistics, StatisticContext
from ibinn.reference import Reference, from_arrays, to_arrays
from ibinn.types import Group, InputInfo, Prediction, Region, Verdict, Versions
from ibinn.types import TestKind as Kind

CLASSES = ("cat", "dog", "frog")
COUNT_B = 199
SIGNIFICANCE = Significance(alpha=0.05, coverage=0.9)
VERSIONS = Versions(weights="w", calibration="c", policy="p", taxonomy="1", software="0")
INPUT = InputInfo(
    width=4,
    height=4,
    format="PNG",
    sha256_bytes="",
    sha256_pixels="",
    region=Region(left=0, top=0, width=4, height=4),
    reductions=(),
)

STATISTICS = (
    Statistic(
        name="noise",
        group=Group.PIXEL,
        kinds=(Kind.TYPICALITY, Kind.TWO_TAILED),
        phrase="unusual noise",
        compute=lambda evidence, context: evidence.stage_log_dets[:, 0],
    ),
    Statistic(
        name="texture",
        group=Group.STYLE,
        kinds=(Kind.TWO_TAILED,),
        phrase="an unusual texture",
        compute=lambda evidence, context: evidence.stage_log_dets[:, 1],
    ),
    Statistic(
        name="distance",
        group=Group.SEMANTIC,
        kinds=(Kind.HIGH_IS_UNUSUAL,),
        phrase="a large distance to every class",
        compute=lambda evidence, context: evidence.stage_log_dets[:, 2],
        alone=True,
    ),
)


def mixture() -> GaussianMixture:
    """Three means at distance 4·√2 along the axes."""
    found = GaussianMixture(3, 3)
    with torch.no_grad():
        found.means.copy_(4.0 * torch.eye(3))
    return found.requires_grad_(False)


MIXTURE = mixture()


def evidence(statistics: list[list[float]], z: list[list[float]] | None = None) -> Evidence:
    """Evidence of images with these statistics, at the cat's mean if no codes are given."""
    codes = torch.tensor([[4.0, 0.0, 0.0]] * len(statistics) if z is None else z)
    return gather_evidence(
        Observed(
            z=codes,
            stage_log_dets=torch.tensor(statistics, dtype=torch.float64),
            activations=torch.zeros(len(statistics), 0),
        ),
        subspaces=MIXTURE.subspaces(),
        preprocessing_log_det=0.0,
        encoded_bytes=torch.full((len(statistics),), 100),
    )


def context() -> StatisticContext:
    return StatisticContext.of(MIXTURE, MIXTURE.subspaces(), None)


def calibrated(*, quantile: float = 0.6) -> Reference:
    """Independent standard normal statistics."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((COUNT_B, 3))
    states = DensityOfStates(
        median=np.zeros(3),
        scale=np.ones(3),
        weights=np.zeros(1),
        means=np.zeros((1, 3)),
        covariances=np.eye(3)[None],
    )
    combined_test = CombinedTest.fit(
        states,
        rng.standard_normal((150, 3)),
        alone={s.name: i for i, s in enumerate(STATISTICS) if s.alone},
        groups=group_columns(STATISTICS),
    )
    surprises = combined_test.surprises(values)
    ranks = {
        name_of_test(s.name, kind): np.sort(
            np.abs(values[:, i]) if kind is Kind.TYPICALITY else values[:, i]
        )
        for i, s in enumerate(STATISTICS)
        for kind in s.kinds
    }
    none = torch.zeros(3, dtype=torch.float64)
    return Reference(
        count_a=150,
        count_b=COUNT_B,
        temperature=2.0,
        fitted=FittedStatistics(
            class_means=torch.zeros(3, 3, dtype=torch.float64),
            class_precision=torch.eye(3, dtype=torch.float64),
            background_mean=none,
            background_precision=torch.eye(3, dtype=torch.float64),
            activation_centre=torch.zeros(0, dtype=torch.float64),
            activation_whitening=torch.zeros(0, 0, dtype=torch.float64),
        ),
        centres={s.name: 0.0 for s in STATISTICS},
        combined_test=combined_test,
        ranks=ranks,
        combined=np.sort(surprises.fisher),
        groups={group: np.sort(found) for group, found in surprises.groups.items()},
        class_distances=(np.arange(1.0, 100.0), np.arange(1.0, 50.0), np.empty(0)),
        conformal=((0.9, quantile),),
        confidence=ConfidenceBins(counts=(10,) * 15, correct=(5,) * 15),
    )


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A batch's scores and predictions."""

    scores: Scores
    predictions: list[Prediction]


def answer(
    found: Evidence,
    reference: Reference | None,
    significance: Significance = SIGNIFICANCE,
) -> Answer:
    scores = score(
        found,
        statistics=STATISTICS,
        context=context(),
        reference=reference,
        significance=significance,
    )
    return Answer(
        scores=scores,
        predictions=predictions(
            scores,
            [INPUT] * len(found),
            statistics=STATISTICS,
            reference=reference,
            significance=significance,
            class_names=CLASSES,
            versions=VERSIONS,
            measured={"plain_coverage@0.9": 0.91},
        ),
    )


def one(
    statistics: list[float],
    z: list[float] | None = None,
    reference: Reference | None = None,
    significance: Significance = SIGNIFICANCE,
) -> Prediction:
    found = evidence([statistics], None if z is None else [z])
    return answer(found, reference or calibrated(), significance).predictions[0]


USUAL, UNUSUAL, BROKEN = [0.0, 0.1, -0.2], [0.0, 9.0, 0.0], [0.0, float("nan"), 0.0]
CAT, BETWEEN = [4.0, 0.0, 0.0], [4.0, 4.0, 0.0]


@pytest.mark.parametrize(
    ("statistics", "z", "verdict"),
    [
        (USUAL, CAT, Verdict.NOT_FLAGGED),
        (USUAL, BETWEEN, Verdict.AMBIGUOUS),
        (UNUSUAL, CAT, Verdict.UNKNOWN),
        (UNUSUAL, BETWEEN, Verdict.UNKNOWN),
        (BROKEN, CAT, Verdict.NOT_ASSESSED),
        (BROKEN, BETWEEN, Verdict.NOT_ASSESSED),
        ([float("inf"), 9.0, 0.0], BETWEEN, Verdict.NOT_ASSESSED),
    ],
)
def test_the_verdict_is_the_first_that_applies(statistics, z, verdict):
    assert one(statistics, z).verdict is verdict


@pytest.mark.parametrize("statistics", [USUAL, UNUSUAL, BROKEN])
def test_nothing_is_assessed_without_calibration(statistics):
    found = answer(evidence([statistics]), None).predictions[0]
    assert found.verdict is Verdict.NOT_ASSESSED
    assert "not calibrated" in found.reason
    assert found.tests == ()
    assert found.combined is found.conformal is found.observed_accuracy is None
    assert found.temperature == 1.0
    assert found.calibration_count == 0
    assert found.top.name == "cat"
    assert found.top.p_value is None


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_statistic_that_is_not_finite_is_named(which, value):
    statistics = list(USUAL)
    statistics[which] = value
    found = one(statistics)
    name = STATISTICS[which].name
    assert found.verdict is Verdict.NOT_ASSESSED
    assert found.reason == f"Not finite for this image: {name}."
    assert found.combined.p_value is None
    assert not found.combined.flagged
    for result in found.tests:
        assert (result.p_value is None) == result.name.startswith(name + ".")
        assert (result.p_adjusted is None) == (result.p_value is None)


def test_a_code_that_is_not_finite_is_not_assessed():
    found = one(USUAL, [float("nan"), 0.0, 0.0])
    assert found.verdict is Verdict.NOT_ASSESSED
    assert found.reason == "Not finite for this image: the likelihood."


@pytest.mark.parametrize(
    ("which", "words", "phrase"),
    [(0, "its pixels", "unusual noise"), (1, "its style", "texture"), (2, "its content", "class")],
)
def test_the_reason_names_the_group_that_drove_the_verdict_in_words(which, words, phrase):
    statistics = list(USUAL)
    statistics[which] = 8.0
    found = one(statistics)
    assert found.verdict is Verdict.UNKNOWN
    assert words in found.reason
    assert phrase in found.reason
    assert "p = 0.005 ≤ α = 0.05" in found.reason


def test_the_reason_of_an_ambiguous_answer_lists_the_classes():
    found = one(USUAL, BETWEEN)
    assert "could be cat or dog (set of 90% coverage)" in found.reason
    assert set(found.conformal.classes) == {"cat", "dog"}
    assert found.conformal.target_coverage == 0.9
    assert found.conformal.measured_coverage == 0.91


def test_not_flagged_only_says_that_nothing_was_found():
    found = one(USUAL)
    assert found.reason.startswith("Nothing unusual was found (p = ")
    assert found.conformal.classes == ("cat",)


@pytest.mark.parametrize(
    ("statistics", "given"), [(USUAL, True), (UNUSUAL, False), (BROKEN, False)]
)
def test_observed_accuracy_is_given_only_where_nothing_was_flagged(statistics, given):
    assert (one(statistics).observed_accuracy is not None) == given
    if given:
        assert one(statistics).observed_accuracy.accuracy == 0.5
        assert one(statistics, BETWEEN).observed_accuracy is not None


def test_the_combined_test_is_ranked_on_calibration_scores():
    reference = calibrated()
    found = answer(evidence([USUAL, UNUSUAL]), reference)
    expected = reference.combined_test.surprises(np.array([USUAL, UNUSUAL])).fisher
    np.testing.assert_allclose(found.scores.combined_score, expected)
    p = (1 + (reference.combined >= expected[:, None]).sum(1)) / (COUNT_B + 1)
    np.testing.assert_allclose(found.scores.combined_p, p)
    combined = found.predictions[1].combined
    assert combined.name == COMBINED
    assert combined.group is Group.COMBINED
    assert combined.p_value == combined.p_adjusted == combined.smallest_p == 1 / (COUNT_B + 1)
    assert combined.flagged


def test_a_p_value_equal_to_alpha_is_flagged():
    at = 1 / (COUNT_B + 1)
    assert one(UNUSUAL, significance=replace(SIGNIFICANCE, alpha=at)).verdict is Verdict.UNKNOWN
    below = replace(SIGNIFICANCE, alpha=at * 0.999)
    assert one(UNUSUAL, significance=below).verdict is Verdict.NOT_FLAGGED


def test_every_test_is_shown_with_its_adjusted_and_its_smallest_p():
    found = one([2.5, 0.0, 0.3])
    assert [t.name for t in found.tests] == [
        "noise.typicality",
        "noise.two_tailed",
        "texture.two_tailed",
        "distance.high",
    ]
    raw = np.array([[t.p_value for t in found.tests]])
    np.testing.assert_allclose([t.p_adjusted for t in found.tests], holm(raw)[0])
    assert [t.smallest_p for t in found.tests] == [1 / 200, 2 / 200, 2 / 200, 1 / 200]
    assert [t.statistic for t in found.tests] == [2.5, 2.5, 0.0, 0.3]
    for result in found.tests:
        assert result.alpha == 0.05
        assert result.flagged == (result.p_adjusted <= 0.05)


def test_classes_come_most_probable_first_with_both_posteriors():
    found = one(USUAL, [3.0, 2.0, 0.0])
    assert [c.name for c in found.classes] == ["cat", "dog", "frog"]
    logits = np.array([12.0, 8.0, 0.0])
    for temperature, values in (
        (1.0, [c.raw_probability for c in found.classes]),
        (2.0, [c.probability for c in found.classes]),
    ):
        expected = np.exp(logits / temperature)
        np.testing.assert_allclose(values, expected / expected.sum(), rtol=1e-6)
    p = np.array([c.probability for c in found.classes])
    assert found.entropy == pytest.approx(-(p * np.log(p)).sum())
    assert found.temperature == 2.0


def test_class_p_values_rank_the_distance_among_images_of_the_class():
    # ‖z - μ‖² is 5 from the cat and 13 from the dog; the frog has no calibration images.
    found = one(USUAL, [3.0, 2.0, 0.0])
    assert found.classes[0].p_value == pytest.approx((1 + 95) / 100)
    assert found.classes[1].p_value == pytest.approx((1 + 37) / 50)
    assert found.classes[2].p_value is None


def test_an_answer_does_not_depend_on_the_batch():
    rows = [USUAL, UNUSUAL, BROKEN, [0.5, -1.0, 2.0]]
    codes = [CAT, BETWEEN, CAT, [0.0, 1.0, 2.0]]
    together = answer(evidence(rows, codes), calibrated()).predictions
    for i, (row, code) in enumerate(zip(rows, codes, strict=True)):
        alone = one(row, code)
        assert (alone.verdict, alone.reason) == (together[i].verdict, together[i].reason)
        assert [c.name for c in alone.classes] == [c.name for c in together[i].classes]
        assert alone.top.probability == pytest.approx(together[i].top.probability, rel=1e-12)


def test_without_a_quantile_for_the_coverage_there_is_no_set():
    found = one(USUAL, BETWEEN, significance=replace(SIGNIFICANCE, coverage=0.5))
    assert found.conformal is None
    assert found.verdict is Verdict.NOT_FLAGGED


def test_a_calibration_survives_being_written_down():
    found = evidence([USUAL, UNUSUAL], [CAT, BETWEEN])
    reference = calibrated()
    again = from_arrays(to_arrays(reference))
    assert answer(found, again).predictions == answer(found, reference).predictions
    assert again.conformal == reference.conformal
