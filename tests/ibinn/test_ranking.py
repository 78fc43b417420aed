"""Ranking against many references at once says what ranking against each says."""

from __future__ import annotations

import numpy as np
import pytest

from ibinn.errors import ConfigError
from ibinn.ood import p_values
from ibinn.ood.ranking import Ranker, SortedReferences
from ibinn.types import TestKind as Kind

LENGTHS = (7, 1, 40, 19, 40, 12)
KINDS = (
    Kind.HIGH_IS_UNUSUAL,
    Kind.LOW_IS_UNUSUAL,
    Kind.TWO_TAILED,
    Kind.TYPICALITY,
    Kind.TWO_TAILED,
    Kind.HIGH_IS_UNUSUAL,
)


@pytest.fixture
def tests(rng) -> list[tuple[np.ndarray, Kind, float | None]]:
    """References of several lengths with ties among their values."""
    found = []
    for length, kind in zip(LENGTHS, KINDS, strict=True):
        centre = -0.4 if kind is Kind.TYPICALITY else None
        values = np.round(3 * rng.standard_normal(length)) / 2
        found.append((p_values.reference(values, kind, centre=centre), kind, centre))
    return found


def test_p_values_are_exactly_those_of_each_test(tests, rng):
    values = np.round(4 * rng.standard_normal((200, len(tests)))) / 2  # many of them tie
    values[0, 0], values[1, 2], values[2, 3] = np.nan, np.inf, -np.inf
    found = Ranker.of(tests).p_values(values)
    for column, (ranks, kind, centre) in enumerate(tests):
        expected = p_values.p_values(values[:, column], ranks, kind, centre=centre)
        np.testing.assert_array_equal(found[:, column], expected)


def test_an_image_is_ranked_without_looking_at_the_batch(tests, rng):
    values = rng.standard_normal((20, len(tests)))
    ranker = Ranker.of(tests)
    alone = np.concatenate([ranker.p_values(row[None]) for row in values])
    np.testing.assert_array_equal(alone, ranker.p_values(values))


def test_a_test_without_reference_has_no_p_value(tests, rng):
    gap = (np.empty(0), Kind.HIGH_IS_UNUSUAL, None)
    values = rng.standard_normal((5, len(tests) + 1))
    found = Ranker.of([*tests[:2], gap, *tests[2:]]).p_values(values)
    assert np.isnan(found[:, 2]).all()
    np.testing.assert_array_equal(
        np.delete(found, 2, axis=1), Ranker.of(tests).p_values(np.delete(values, 2, axis=1))
    )


def test_counts_are_exact_for_neighbouring_numbers():
    ones = np.array([1.0, np.nextafter(1.0, 2.0), 2.0])
    references = SortedReferences.of([ones, -ones[::-1]])
    values = np.array([[np.nextafter(1.0, 2.0), -1.0]])
    assert references.below(values).tolist() == [[1, 2]]
    assert [found.tolist() for found in references.below_and_up_to(values)] == [
        [[1, 2]],
        [[2, 3]],
    ]


def test_a_typicality_test_without_a_centre_is_refused():
    with pytest.raises(ConfigError, match="centre=None"):
        Ranker.of([(np.zeros(3), Kind.TYPICALITY, None)])
