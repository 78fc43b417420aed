import numpy as np
import pytest
from scipy import stats

from ibinn.errors import ConfigError, DataError
from ibinn.ood.group_p_values import (
    TAIL,
    group_excess,
    group_typicality,
    group_uniformity,
    uniformity_distance,
)
from ibinn.ood.group_test import (
    LIKELIHOOD,
    GroupReference,
    GroupScores,
    group_p_values,
    judge_group,
)
from ibinn.ood.p_values import p_values, reference
from ibinn.types import TestKind as Kind

N = 2500


def ranked(values: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    return p_values(values, reference(calibration, Kind.HIGH_IS_UNUSUAL), Kind.HIGH_IS_UNUSUAL)


def usual_p_values(groups: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """p-values of usual images, every group against a calibration set of its own."""
    return np.stack(
        [ranked(rng.standard_normal(count), rng.standard_normal(N)) for _ in range(groups)]
    )


def at_most(p: np.ndarray, level: float) -> bool:
    """Whether the share of p-values up to `level` is no more than it should be."""
    hits = int((p <= level).sum())
    return stats.binomtest(hits, len(p), level, alternative="greater").pvalue > 1e-3


@pytest.mark.parametrize("count", [50, 500, 5000])
def test_uniformity_keeps_its_level_however_large_the_group(count):
    rng = np.random.default_rng(count)
    p = usual_p_values(300, count, rng)
    found = group_uniformity(p, N, draws=499)
    for level in (0.01, 0.05, 0.2):
        assert at_most(found, level)
    assert (found <= 0.2).mean() > 0.1  # and uses it
    textbook = stats.kstwo.sf(uniformity_distance(p, N), count)
    assert count < 5000 or (textbook <= 0.05).mean() > 0.2


@pytest.mark.parametrize("count", [50, 500, 5000])
def test_excess_keeps_its_level_however_large_the_group(count):
    found = group_excess(usual_p_values(300, count, np.random.default_rng(count + 1)), N)
    for level in (0.01, 0.05, 0.2):
        assert at_most(found, level)


@pytest.mark.parametrize(("count", "centre"), [(50, 0.0), (500, None), (5000, 0.0)])
def test_typicality_keeps_its_level_however_large_the_group(count, centre):
    rng = np.random.default_rng(count + 2)
    found, resampled = [], []
    for _ in range(120):
        group, part_b = rng.standard_normal((1, count)), rng.standard_normal(N)
        found.append(group_typicality(group, part_b, centre=centre, draws=39)[0])
        # Resampling part B alone amounts to a normal law around its own mean.
        error = part_b.std() / np.sqrt(count)
        resampled.append(2 * stats.norm.sf(abs(group.mean() - part_b.mean()) / error))
    assert at_most(np.array(found), 0.05)
    assert count < 5000 or np.mean(np.array(resampled) <= 0.05) > 0.15


@pytest.mark.parametrize("centre", [None, 0.0, 1.0])
def test_typicality_is_exact_for_small_numbers(centre):
    rng = np.random.default_rng(3)
    p = np.array(
        [
            group_typicality(
                rng.exponential(size=(1, 7)),
                rng.exponential(size=12),
                centre=centre,
                draws=19,
                seed=i,
            )[0]
            for i in range(2000)
        ]
    )
    for level in (0.05, 0.1, 0.5):
        assert stats.binomtest(int((p <= level).sum()), len(p), level).pvalue > 1e-4


def test_excess_is_the_tail_of_its_exact_law():
    p = np.full((1, 40), 0.9)
    p[0, :6] = 0.001
    k = int(0.05 * 100)
    assert group_excess(p, 99)[0] == pytest.approx(stats.betabinom(40, k, 100 - k).sf(5))


def test_the_distance_is_that_of_kolmogorov_and_smirnov_on_the_grid():
    p = np.array([[0.1, 0.2, 0.2, 1.0]])
    assert uniformity_distance(p, 9)[0] == pytest.approx(0.75 - 0.2)


def groups_of(
    rng: np.random.Generator, count: int, *, odd: int, shift: float = 3.0
) -> tuple[GroupScores, GroupReference]:
    """A group with `odd` images of unusually high combined score and low likelihood."""
    part_b, values = rng.standard_normal(N), rng.standard_normal(count)
    likelihood_b, likelihood = rng.normal(9000, 700, N), rng.normal(9000, 700, count)
    values[:odd] += shift
    likelihood[:odd] -= 2000
    held_against = GroupReference.of(
        np.sort(part_b), {f"{LIKELIHOOD}.two_tailed": np.sort(likelihood_b)}, {LIKELIHOOD: 9000.0}
    )
    scores = GroupScores(
        combined_score=values, combined_p=ranked(values, part_b), likelihood=likelihood
    )
    return scores, held_against


def test_usual_groups_are_flagged_as_often_as_promised():
    rng = np.random.default_rng(4)
    flagged = sum(
        judge_group(*groups_of(rng, 60, odd=0), alpha=0.1, draws=199).flagged for _ in range(100)
    )
    assert stats.binomtest(flagged, 100, 0.1, alternative="greater").pvalue > 1e-3


@pytest.mark.parametrize(("count", "odd"), [(20, 20), (100, 20), (1000, 50)])
def test_groups_with_unusual_images_are_flagged_and_the_reason_says_so(count, odd):
    answer = judge_group(*groups_of(np.random.default_rng(5), count, odd=odd))
    assert answer.flagged
    assert f"These {count} images together are unlike" in answer.reason
    assert answer.count == count
    assert answer.calibration_count == N


def test_a_usual_group_has_the_same_answer_twice_and_names_every_test():
    scores, held_against = groups_of(np.random.default_rng(6), 80, odd=0)
    answer = judge_group(scores, held_against, draws=999)
    assert answer == judge_group(scores, held_against, draws=999)
    assert not answer.flagged
    assert answer.reason.startswith("Nothing unusual was found in these 80 images together")
    assert [test.name for test in answer.tests] == [
        "log_q_x.typicality",
        "combined.typicality",
        "combined.uniformity",
        "combined.excess",
    ]
    excess = answer.tests[-1]
    assert excess.statistic == (scores.combined_p <= TAIL).sum()
    assert excess.expected == pytest.approx(80 * 0.05, rel=0.01)


def test_without_likelihoods_in_the_calibration_that_test_is_left_out():
    scores, held_against = groups_of(np.random.default_rng(7), 30, odd=0)
    bare = GroupReference.of(held_against.combined, {"other.high": np.zeros(3)}, {})
    assert "log_q_x.typicality" not in group_p_values(
        GroupScores(
            combined_score=scores.combined_score[None],
            combined_p=scores.combined_p[None],
            likelihood=scores.likelihood[None],
        ),
        bare,
        draws=9,
    )


def test_images_that_cannot_be_assessed_are_left_out_and_counted():
    scores, held_against = groups_of(np.random.default_rng(8), 50, odd=0)
    scores.combined_score[3] = scores.combined_p[3] = np.nan
    answer = judge_group(scores, held_against, draws=999)
    assert (answer.count, answer.not_assessed) == (49, 1)
    assert answer.reason.endswith("1 more could not be assessed.")


def test_what_cannot_be_judged_is_refused():
    scores, held_against = groups_of(np.random.default_rng(9), 3, odd=0)
    scores.combined_p[:2] = np.nan
    with pytest.raises(DataError, match="1 of 3 images of the group could be assessed"):
        judge_group(scores, held_against)
    scores, held_against = groups_of(np.random.default_rng(9), 30, odd=0)
    with pytest.raises(ConfigError, match="at least 3999 draws"):
        judge_group(scores, held_against, alpha=0.001)
    with pytest.raises(ConfigError, match="significance α is 0"):
        judge_group(scores, held_against, alpha=0.0)
    with pytest.raises(ConfigError, match="draws is 0"):
        group_uniformity(np.full((1, 3), 0.5), 9, draws=0)
    with pytest.raises(DataError, match="1 values are not finite"):
        group_typicality(np.array([[0.0, np.nan]]), np.zeros(3))
    with pytest.raises(DataError, match="expected"):
        group_typicality(np.zeros(3), np.zeros(3))
