"""Feedback and new classes with few images come several times an epoch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.training.image_folders import random_set
from training.image_set import ImageSet
from training.retrain import MOST_REPEATS, balanced


def mixed(old: list[int], new: list[int]) -> ImageSet:
    images = random_set(old + new, class_count=max(old + new) + 1)
    items = [
        item if index < len(old) else replace(item, name=f"feedback/{index}")
        for index, item in enumerate(images.items)
    ]
    return images.with_items(items, class_names=images.class_names)


def counts(images: ImageSet) -> list[int]:
    return [int(count) for count in np.bincount(balanced(images, known=2).labels)]


def test_feedback_is_brought_near_a_third_of_an_epoch() -> None:
    assert counts(mixed([0] * 60 + [1] * 60, [0] * 20)) == [120, 60]
    assert counts(mixed([0] * 60 + [1] * 60, [0] * 200)) == [260, 60]


def test_a_new_class_is_brought_near_the_others() -> None:
    assert counts(mixed([0] * 30 + [1] * 30, [0] * 20 + [2] * 10)) == [50, 30, 40]


def test_no_image_is_repeated_without_end() -> None:
    images = mixed([0] * 100 + [1] * 100, [1] * 3 + [2] * 2)
    assert counts(images) == [100, 100 + 3 * MOST_REPEATS, 2 * MOST_REPEATS]
