"""New classes with few images come several times an epoch."""

from __future__ import annotations

import numpy as np

from tests.training.image_folders import random_set
from training.retrain import MOST_REPEATS, balanced


def test_a_new_class_comes_as_often_as_brings_it_nearest_to_the_others() -> None:
    images = random_set([0] * 30 + [1] * 30 + [2] * 10, class_count=3)
    counts = np.bincount(balanced(images, known=2).labels)
    assert counts.tolist() == [30, 30, 30]


def test_images_are_not_repeated_without_end_and_old_classes_never() -> None:
    images = random_set([0] * 100 + [1] * 3 + [2] * 2 + [3] * 500, class_count=4)
    counts = np.bincount(balanced(images, known=2).labels)
    assert counts.tolist() == [100, 3, 2 * MOST_REPEATS, 500]
