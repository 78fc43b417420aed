import math
from dataclasses import replace

import numpy as np
import pytest

from ibinn.drift import NAMES, Detector, detectors, rate_of_each
from ibinn.errors import ConfigError, DataError
from tests.ibinn.drift.made import observations, one, reference


def made(seed: int = 0) -> tuple[Detector, ...]:
    return detectors(reference(), false_alarm_rate=0.05, seed=seed)


def test_every_detector_has_an_equal_part_of_the_false_alarm_rate():
    found = made()
    assert tuple(d.name for d in found) == NAMES == ("p_values", "covered_confidence", "prior")
    assert [d.log_threshold for d in found] == pytest.approx([math.log(60)] * 3)
    assert sum(math.exp(-d.log_threshold) for d in found) == pytest.approx(0.05)
    assert not any(d.alarmed for d in found)
    assert [d.count for d in found] == [0, 0, 0]


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(ConfigError, match="false-alarm rate"):
        detectors(reference(), false_alarm_rate=rate, seed=0)


def test_an_unknown_detector_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="p_values"):
        Detector("colour", reference(), false_alarm_rate=0.1, rng=rng)


@pytest.mark.parametrize("index", range(3), ids=NAMES)
def test_many_at_once_are_observed_as_one_after_the_other(index):
    seen = observations(250)
    seen.accepted[::3] = False
    seen.score[5] = np.nan
    one_by_one, many = made()[index], made()[index]
    singly = []
    for i in range(len(seen)):
        one_by_one.observe(one(seen, i))
        singly.append(one_by_one.log_evidence)
    parts = [many.observe_many(seen.subset(part)) for part in np.array_split(np.arange(250), 7)]
    np.testing.assert_allclose(np.concatenate(parts), singly, rtol=0, atol=1e-9)
    assert many.count == one_by_one.count
    assert many.log_evidence == pytest.approx(one_by_one.log_evidence, abs=1e-9)


def test_images_that_were_not_assessed_are_left_out():
    seen = replace(observations(20), score=np.full(20, np.nan))
    for detector in made():
        detector.observe_many(seen)
        detector.observe(one(seen, 0))
        assert detector.count == 0


def test_the_detector_of_confidence_looks_at_accepted_images_only():
    seen = observations(40)
    seen.accepted[:] = np.arange(40) < 15
    counts = {}
    for detector in made():
        detector.observe_many(seen)
        counts[detector.name] = detector.count
    assert counts == {"p_values": 40, "covered_confidence": 15, "prior": 40}


def test_no_images_change_nothing():
    for detector in made():
        assert detector.observe_many(observations(0)).shape == (0,)
        assert detector.log_evidence == 0.0


@pytest.mark.parametrize("index", range(3), ids=NAMES)
def test_a_restored_detector_goes_on_exactly_as_if_there_had_been_no_interruption(index):
    detector = made()[index]
    detector.observe_many(observations(203, seed=2))
    again = Detector.from_state(
        detector.to_state(), reference=reference(), false_alarm_rate=rate_of_each(0.05)
    )
    for key in ("name", "count", "log_evidence", "log_threshold", "alarmed"):
        assert getattr(again, key) == getattr(detector, key)
    more = observations(300, seed=3)
    np.testing.assert_array_equal(again.observe_many(more), detector.observe_many(more))
    assert again.to_state() == detector.to_state()


def test_an_alarm_stays_although_the_evidence_falls_and_across_a_restart():
    detector = made()[0]
    detector.observe_many(observations(200, harder=4.0))
    assert detector.alarmed
    detector.observe_many(observations(4_000, seed=4))
    assert detector.alarmed
    again = Detector.from_state(
        detector.to_state(), reference=reference(), false_alarm_rate=rate_of_each(0.05)
    )
    assert again.alarmed


def test_a_state_of_another_calibration_is_refused():
    state = made()[0].to_state()
    with pytest.raises(DataError, match="another calibration"):
        Detector.from_state(state, reference=reference(seed=5), false_alarm_rate=0.01)


@pytest.mark.parametrize(
    "damage",
    [lambda s: b"", lambda s: b"nonsense", lambda s: s[:-40], lambda s: s.replace(b"PK", b"XX")],
    ids=["empty", "nonsense", "cut off", "overwritten"],
)
def test_a_damaged_state_is_refused(damage):
    with pytest.raises(DataError, match="begin anew"):
        Detector.from_state(
            damage(made()[0].to_state()), reference=reference(), false_alarm_rate=0.01
        )


def test_a_state_stays_small_however_long_the_stream():
    detector = made()[0]
    detector.observe_many(observations(20_000))
    assert len(detector.to_state()) < 50_000


def test_other_seeds_break_ties_otherwise():
    seen = observations(200)
    assert made(0)[2].observe_many(seen)[-1] != made(1)[2].observe_many(seen)[-1]


def test_the_class_detector_sees_classes_change_and_nothing_else():
    seen = observations(1_500)
    seen.class_index[:] = np.where(np.arange(1_500) % 3, seen.class_index, 0)
    by_name = {detector.name: detector for detector in made()}
    for detector in by_name.values():
        detector.observe_many(seen)
    assert by_name["prior"].alarmed
    assert not by_name["p_values"].alarmed
    assert not by_name["covered_confidence"].alarmed
