"""A source that is not trusted gives a bounded share of a class, however much it sends."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.training.retraining.said import candidate, say
from training.retraining.labels import Labelled
from training.retraining.shares import capped, limit


def labelled(number: int, source: str, name: str = "nut", *, trusted: bool = False) -> Labelled:
    return Labelled(
        candidate=candidate(number, say(source, name)),
        class_name=name,
        source=source,
        trusted=trusted,
        weight=1.0,
    )


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("others", [0, 3, 100])
@pytest.mark.parametrize("offered", [[5], [1000, 3], [40, 40, 40, 40, 40, 40, 40]])
def test_the_limit_is_the_largest_that_keeps_every_share(
    offered: list[int], others: int, share: float
) -> None:
    def holds(most: int) -> bool:
        total = others + sum(min(count, most) for count in offered)
        return most <= share * total + 1e-9

    expected = max(most for most in range(max(offered) + 1) if holds(most))
    assert limit(offered, others=others, share=share) == expected


def test_a_source_that_floods_is_cut_and_the_others_are_not() -> None:
    images = [labelled(i, "eve") for i in range(5_000)]
    images += [labelled(10_000 + i, "ben") for i in range(10)]
    images += [labelled(20_000 + i, "anna", trusted=True) for i in range(30)]
    kept = capped(images, old={"nut": 200}, share=0.2, seed=0)
    by_source = Counter(i.source for i in images if i.candidate.id in kept)
    assert by_source["anna"] == 30
    assert by_source["ben"] == 10
    assert 0 < by_source["eve"] <= 0.2 * (200 + by_source.total())


def test_the_share_is_of_each_class_apart() -> None:
    images = [labelled(i, "eve", "nut") for i in range(100)]
    images += [labelled(1_000 + i, "eve", "bolt") for i in range(5)]
    kept = capped(images, old={"nut": 40, "bolt": 40}, share=0.2, seed=0)
    by_class = Counter(i.class_name for i in images if i.candidate.id in kept)
    assert by_class == {"nut": 10, "bolt": 5}


def test_one_source_that_is_not_trusted_cannot_bring_a_new_class() -> None:
    assert capped(
        [labelled(i, "eve", "washer") for i in range(500)], old={}, share=0.2, seed=0
    ) == (frozenset())


def test_which_images_are_kept_does_not_hang_on_their_order() -> None:
    images = [labelled(i, "eve") for i in range(100)]
    first = capped(images, old={"nut": 40}, share=0.2, seed=0)
    assert first == capped(images[::-1], old={"nut": 40}, share=0.2, seed=0)
    assert first != capped(images, old={"nut": 40}, share=0.2, seed=1)
