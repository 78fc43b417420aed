import numpy as np
import pytest

from ibinn.drift import Blocker, detectors
from ibinn.errors import ConfigError, DataError
from tests.ibinn.drift.made import observations, reference


def test_the_first_image_of_a_group_counts_and_images_of_no_group_all_count():
    blocker = Blocker()
    assert blocker.counts_many(["a", "b", "a", "", "", "b", "c"]).tolist() == [
        True, True, False, True, True, False, True,
    ]  # fmt: skip


def test_a_group_seen_again_and_again_is_not_forgotten():
    blocker = Blocker(memory=2)
    found = [blocker.counts(group) for group in ("a", "b", "a", "c", "a", "d", "a")]
    assert found == [True, True, False, True, False, True, False]


def test_a_group_that_comes_back_after_many_others_counts_anew():
    blocker = Blocker(memory=2)
    assert [blocker.counts(group) for group in ("a", "b", "c", "a")] == [True, True, True, True]


def test_a_restored_blocker_knows_the_groups():
    blocker = Blocker(memory=3)
    blocker.counts_many(["a", "b", "c", "a"])
    again = Blocker.from_state(blocker.to_state(), memory=3)
    assert again.counts_many(["d", "b", "a"]).tolist() == [True, True, False]


def test_a_restored_blocker_keeps_no_more_than_its_memory():
    blocker = Blocker()
    blocker.counts_many([str(i) for i in range(10)])
    again = Blocker.from_state(blocker.to_state(), memory=2)
    assert len(again.to_state()) < len(blocker.to_state())
    assert again.counts("9") is False
    assert again.counts("0") is True


@pytest.mark.parametrize("state", [b"", b"ibinn.drift.groups/2\n", b"ibinn.drift.groups/1\nabc"])
def test_a_damaged_state_is_refused(state):
    with pytest.raises(DataError, match="begin anew"):
        Blocker.from_state(state)


def test_a_memory_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="memory"):
        Blocker(memory=0)


def test_bursts_of_one_scene_alarm_without_groups_and_do_not_with_them():
    scenes = observations(150, seed=6)
    each = np.repeat(np.arange(150), 20)
    bursts = scenes.subset(each)
    alone, blocked = (detectors(reference(), false_alarm_rate=0.05, seed=0)[0] for _ in range(2))
    alone.observe_many(bursts)
    first = Blocker().counts_many([f"scene {i}" for i in each])
    blocked.observe_many(bursts.subset(first))
    assert alone.alarmed
    assert not blocked.alarmed
    assert blocked.count == 150
