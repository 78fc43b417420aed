"""Seeded replays of stored scores: how often detectors alarm falsely, and how soon rightly."""

import numpy as np
import pytest

from ibinn.drift import NAMES, detectors
from tests.ibinn.drift import replays
from tests.ibinn.drift.measured import RATE, delays, own_images_alarms, stationary_alarms


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_at_most_16_of_200_stationary_streams_raise_any_alarm():
    assert stationary_alarms(range(200)).any(axis=1).sum() <= 16


def test_few_stationary_streams_raise_any_alarm():
    # With a chance of 0.05 each, more than 4 of 16 have one below 0.001.
    assert stationary_alarms(range(16)).any(axis=1).sum() <= 4


def test_few_orders_of_the_embedded_models_own_images_raise_any_alarm():
    # Its calibration set is one set: the promise is on average over such sets.
    assert own_images_alarms(range(20)).any(axis=1).sum() <= 4


@pytest.mark.parametrize("before", [0, 2_000, 10_000])
def test_noise_of_severity_3_is_noticed_within_500_images(before):
    found = delays("gaussian_noise-3", before=before)
    assert len(found) >= 17
    assert np.median(found.min(axis=1)) <= 500
    # Not by the scores alone: confidence falls and classes are confused.
    assert (np.median(found, axis=0) <= 500).sum() >= 2


def test_a_rarer_class_is_noticed_by_the_class_detector():
    held, clean = replays.calibration(), replays.scored("clean")
    rng = np.random.default_rng(0)
    weights = np.where(clean.labels == 3, 3.0, 1.0)
    stream = clean.subset(rng.choice(len(clean), 4_000, p=weights / weights.sum())).against(held)
    by_name = dict(zip(NAMES, detectors(held, false_alarm_rate=RATE, seed=0), strict=True))
    by_name["prior"].observe_many(stream)
    assert by_name["prior"].alarmed
