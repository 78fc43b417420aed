import numpy as np
import pytest

from ibinn.errors import AlphaTooSmallError, DataError
from ibinn.ood.class_wise import class_alphas, class_references, class_wise_p_values
from ibinn.ood.p_values import attainable_count
from ibinn.types import TestKind

CLASSES = 3


def images(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are higher in class 2, and rarer classes with a higher index."""
    classes = rng.choice(CLASSES, count, p=(0.6, 0.3, 0.1))
    return rng.standard_normal(count) + 2.0 * (classes == 2), classes


def test_the_false_positive_rate_holds_within_every_predicted_class():
    rng = np.random.default_rng(0)
    alpha, flags, tried, expected = 0.1, np.zeros(CLASSES), np.zeros(CLASSES), np.zeros(CLASSES)
    for _ in range(400):
        references = class_references(*images(rng, 300), count=CLASSES)
        scores, classes = images(rng, 50)
        p = class_wise_p_values(scores, classes, references)
        for k, allowed in enumerate(class_alphas(alpha, references)):
            if allowed.allowed:
                flags[k] += (p[classes == k] <= alpha).sum()
                tried[k] += (classes == k).sum()
                n = allowed.calibration_count
                rate = attainable_count(alpha, n, TestKind.HIGH_IS_UNUSUAL) / (n + 1)
                expected[k] += rate * (classes == k).sum()
    for k in range(CLASSES):
        # Images of one calibration set stand and fall together: four of their standard errors.
        assert abs(flags[k] - expected[k]) < 4 * np.sqrt(expected[k]) * 2
        assert flags[k] / tried[k] < alpha + 0.02


def test_ranks_are_among_images_of_the_same_class():
    references = class_references(
        np.array([1.0, 2.0, 10.0, 20.0]), np.array([0, 0, 1, 1]), count=CLASSES
    )
    p = class_wise_p_values(np.array([5.0, 5.0, np.nan, 5.0]), np.array([0, 1, 0, 2]), references)
    np.testing.assert_allclose(p, [1 / 3, 1.0, np.nan, np.nan])


def test_a_class_with_too_few_images_is_refused_with_the_count_needed():
    references = class_references(np.arange(40.0), np.repeat([0, 1], (30, 10)), count=CLASSES)
    found = class_alphas(0.05, references)
    assert [a.allowed for a in found] == [True, False, False]
    found[0].check()
    with pytest.raises(AlphaTooSmallError, match="10 calibration images are available, 19 are"):
        found[1].check()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="expected"):
        class_references(np.zeros(3), np.zeros(2, int), count=2)
