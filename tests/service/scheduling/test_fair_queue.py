"""Callers take turns, and nothing is lost or doubled."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest

from service.scheduling.fair_queue import FairQueue

Item = tuple[str, str, int]
"""Caller, key, number."""


def caller_of(item: Item) -> str:
    return item[0]


def key_of(item: Item) -> str:
    return item[1]


def queue_of(*items: Item) -> FairQueue[Item]:
    queue = FairQueue[Item](caller_of)
    for item in items:
        queue.push(item)
    return queue


def test_a_caller_with_one_item_waits_for_one_turn_of_a_greedy_one() -> None:
    queue = queue_of(*[("greedy", "k", number) for number in range(100)], ("modest", "k", 0))
    assert ("modest", "k", 0) in queue.take(2, key_of)


def test_the_items_of_one_caller_keep_their_order() -> None:
    rng = random.Random(0)
    queue = FairQueue[Item](caller_of)
    numbers: Counter[str] = Counter()
    taken: dict[str, list[int]] = defaultdict(list)
    for _ in range(2000):
        if rng.random() < 0.6:
            caller = rng.choice("abc")
            queue.push((caller, "k", numbers[caller]))
            numbers[caller] += 1
        else:
            for caller, _, number in queue.take(rng.randint(1, 4), key_of):
                taken[caller].append(number)
    while queue:
        for caller, _, number in queue.take(4, key_of):
            taken[caller].append(number)
    assert {caller: list(range(count)) for caller, count in numbers.items()} == taken


def test_shares_of_callers_that_always_wait_differ_by_one_at_most() -> None:
    queue = queue_of(
        *[("a", "k", n) for n in range(300)],
        *[("b", "k", n) for n in range(100)],
        *[("c", "k", n) for n in range(100)],
    )
    taken: Counter[str] = Counter()
    for _ in range(20):
        taken.update(item[0] for item in queue.take(7, key_of))
        assert max(taken.values()) - min(taken[name] for name in "abc") <= 1


def test_a_batch_holds_one_key_and_skipped_callers_keep_their_turn() -> None:
    queue = queue_of(("a", "x", 0), ("b", "y", 0), ("c", "x", 0), ("a", "x", 1))
    assert queue.take(8, key_of) == [("a", "x", 0), ("c", "x", 0), ("a", "x", 1)]
    assert queue.take(8, key_of) == [("b", "y", 0)]
    assert len(queue) == 0
    assert queue.take(8, key_of) == []


def test_the_caller_skipped_for_its_key_leads_the_next_batch() -> None:
    queue = queue_of(("a", "x", 0), ("b", "y", 0), ("c", "x", 0), ("c", "x", 1), ("a", "x", 1))
    queue.take(2, key_of)
    assert queue.take(1, key_of) == [("b", "y", 0)]


@pytest.mark.parametrize("seed", range(5))
def test_size_is_what_went_in_less_what_came_out(seed: int) -> None:
    rng = random.Random(seed)
    queue = FairQueue[Item](caller_of)
    inside: list[Item] = []
    for number in range(1000):
        match rng.randrange(3):
            case 0:
                item = (rng.choice("abcd"), rng.choice("xy"), number)
                queue.push(item)
                inside.append(item)
            case 1:
                for item in queue.take(rng.randint(1, 3), key_of):
                    inside.remove(item)
            case 2 if inside:
                item = rng.choice(inside)
                assert queue.remove(item)
                assert not queue.remove(item)
                inside.remove(item)
        assert len(queue) == len(inside)
        assert sorted(queue) == sorted(inside)
        assert queue.callers == len({item[0] for item in inside})
