from itertools import pairwise

import numpy as np
import pytest

from ibinn.errors import DataError
from ibinn.reliability import (
    THESIS_EDGES,
    ReliabilityBin,
    confidence_bin,
    thesis_reliability,
    top_label_ece,
    top_label_reliability,
)


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes)[labels]


def test_thesis_edges_are_fine_at_both_ends():
    expected = [0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85]
    expected += [0.95, 0.96, 0.97, 0.98, 0.99, 1]
    np.testing.assert_array_equal(THESIS_EDGES, expected)


def test_a_perfect_predictor_scores_half_a_percent_with_centres_and_nothing_with_means():
    labels = np.arange(5000) % 10
    result = thesis_reliability(one_hot(labels, 10), labels)
    centres, means = result.with_centres, result.with_mean_confidence
    for value in (centres.ece, centres.mce, centres.ice, centres.geometric_mean):
        assert value == pytest.approx(0.005)
    assert (means.ece, means.mce, means.ice, means.geometric_mean) == (0, 0, 0, 0)


def test_a_few_stray_predictions_do_not_move_the_centre_of_the_bin_they_are_merged_into():
    labels = np.arange(5000) % 10
    p = one_hot(labels, 10)
    p[:3, :] = 0.06
    p[np.arange(3), labels[:3]] = 0.46
    assert thesis_reliability(p, labels).with_centres.mce < 0.01


def test_thesis_figures_agree_with_bins_by_hand():
    # Two classes, 400 images: 300 at (0.9, 0.1), 100 at (0.6, 0.4); class 0 is right in 240 and 70.
    p = np.repeat([[0.9, 0.1], [0.6, 0.4]], [300, 100], axis=0)
    labels = np.repeat([0, 1, 0, 1], [240, 60, 70, 30])
    result = thesis_reliability(p, labels, min_pairs=1)
    filled = [b for b in result.bins if b.count >= 100]
    assert [b.count for b in filled] == [300, 100, 100, 300]
    assert [b.accuracy for b in filled] == pytest.approx([0.2, 0.3, 0.7, 0.8])
    assert [b.mean_confidence for b in filled] == pytest.approx([0.1, 0.4, 0.6, 0.9])
    means = result.with_mean_confidence
    assert means.ece == pytest.approx(0.1)
    assert means.mce == pytest.approx(0.1)
    widths = [b.high - b.low for b in result.bins]
    assert sum(widths) == pytest.approx(1.0)
    assert means.ice == pytest.approx(0.1)
    assert means.geometric_mean == pytest.approx(0.1)


def test_bins_tile_the_unit_interval_and_hold_every_pair():
    rng = np.random.default_rng(0)
    for n in (3, 60, 3000):
        p = rng.dirichlet(np.full(5, 0.3), n)
        bins = thesis_reliability(p, rng.integers(0, 5, n)).bins
        assert bins[0].low == 0
        assert bins[-1].high == 1
        assert all(a.high == b.low for a, b in pairwise(bins))
        assert sum(b.count for b in bins) == 5 * n
        assert len(bins) == 1 or min(b.count for b in bins) >= 100
        assert all(b.low <= b.mean_confidence <= b.high for b in bins)


def test_an_edge_belongs_to_the_bin_above_and_one_to_the_last():
    p = np.array([[0.05, 0.95], [0.0, 1.0]])
    bins = thesis_reliability(p, np.array([1, 1]), min_pairs=1).bins
    holding = {edge: b for b in bins for edge in (0.05, 0.95) if b.low <= edge < b.high}
    assert holding[0.05].mean_confidence == pytest.approx(0.05)
    assert bins[-1].high == 1.0
    np.testing.assert_array_equal(confidence_bin([0.0, 1 / 15 - 1e-12, 0.5, 1.0]), [0, 0, 7, 14])


def test_top_label_ece_agrees_with_a_loop_over_images():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.full(4, 0.4), 700)
    y = rng.integers(0, 4, 700)
    expected = 0.0
    for b in range(15):
        inside = [i for i in range(700) if b / 15 <= p[i].max() < (b + 1) / 15]
        if inside:
            hits = np.mean([p[i].argmax() == y[i] for i in inside])
            expected += len(inside) / 700 * abs(hits - np.mean([p[i].max() for i in inside]))
    assert top_label_ece(p, y) == pytest.approx(expected)


def test_top_label_bins_leave_out_empty_ones():
    p = np.array([[0.7, 0.3], [0.68, 0.32]])
    assert top_label_reliability(p, np.array([0, 1])) == (
        ReliabilityBin(
            low=pytest.approx(10 / 15),
            high=pytest.approx(11 / 15),
            count=2,
            centre=pytest.approx(0.7),
            mean_confidence=pytest.approx(0.69),
            accuracy=0.5,
        ),
    )


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "expected"),
        (np.ones((2, 1)), np.zeros(2, int), "K >= 2"),
        (np.full((2, 2), 0.5), np.zeros(3, int), "labels have shape"),
        (np.full((2, 2), 0.5), np.zeros(2), "integers"),
        (np.full((2, 2), 0.5), np.array([0, 2]), "class indices 0 to 1"),
        (np.array([[np.nan, 0.5]]), np.array([0]), "expected 0 to 1"),
        (np.array([[3.0, -2.0]]), np.array([0]), "expected 0 to 1"),
        (np.array([[0.2, 0.2]]), np.array([0]), "not logits"),
    ],
)
def test_predictions_that_are_no_posteriors_are_refused(probabilities, labels, message):
    with pytest.raises(DataError, match=message):
        thesis_reliability(probabilities, labels)
