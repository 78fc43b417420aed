"""Class similarity: the closed form of C.5 against sampling, and the order for display."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from ibinn.errors import UnknownClassError
from ibinn.explain.similarity import (
    closest_pairs,
    display_order,
    mean_distances,
    nearby_classes,
    overlaps,
)
from ibinn.latent import MixtureConfig, wide_means
from tests.ibinn.networks import random_mixture

NAMES = tuple("abcdef")


@pytest.mark.parametrize("distance", [0.5, 2.0, 4.0])
def test_the_overlap_is_the_expected_probability_of_the_other_class(distance):
    t = np.random.default_rng(0).standard_normal(400_000) - distance / 2
    log_odds = -distance * t
    smaller = 1 / (1 + np.exp(np.abs(log_odds)))
    error = smaller.std() / math.sqrt(len(t))
    assert overlaps(np.array(distance)) == pytest.approx(smaller.mean(), abs=4 * error)


def test_the_overlap_is_the_error_rate_between_both_classes():
    t = np.random.default_rng(1).standard_normal(400_000) - 1.0
    assert overlaps(np.array(2.0)) == pytest.approx((t > 0).mean(), abs=0.003)


def test_equal_means_overlap_by_half_and_distant_ones_not_at_all():
    assert overlaps(np.array([0.0, 80.0])) == pytest.approx([0.5, 0.0])


@pytest.mark.parametrize("config", [MixtureConfig(), MixtureConfig(rank=3)], ids=["full", "low"])
def test_distances_are_those_of_the_means(config):
    mixture = random_mixture(len(NAMES), 48, config)
    means = wide_means(mixture).detach()
    expected = torch.linalg.norm(means[:, None] - means[None, :], dim=2).numpy()
    found = mean_distances(mixture.subspaces())
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (found.diagonal() == 0).all()


def test_the_order_puts_like_beside_like():
    places = np.array([0.0, 10.0, 0.5, 10.4, 0.2, 10.1])
    order = display_order(np.abs(places[:, None] - places[None, :]))
    assert sorted(order) == list(range(6))
    assert sum(abs(places[a] - places[b]) > 5 for a, b in pairwise(order)) == 1
    assert display_order(np.zeros((2, 2))) == (0, 1)


def test_pairs_and_neighbours_come_nearest_first():
    places = np.array([0.0, 1.0, 5.0, 5.5, 20.0, 40.0])
    distances = np.abs(places[:, None] - places[None, :])
    pairs = closest_pairs(distances, NAMES, 2)
    assert [(p.first, p.second) for p in pairs] == [("c", "d"), ("a", "b")]
    assert pairs[0].overlap == pytest.approx(overlaps(np.array(0.5)))
    near = nearby_classes(distances, NAMES, "b", count=2)
    assert [(n.class_name, n.distance) for n in near] == [("a", 1.0), ("c", 4.0)]
    assert len(nearby_classes(distances, NAMES, "b", count=99)) == len(NAMES) - 1


def test_neighbours_of_an_unknown_class_are_refused():
    with pytest.raises(UnknownClassError, match="this model has: a, b"):
        nearby_classes(np.zeros((6, 6)), NAMES, "zebra")
