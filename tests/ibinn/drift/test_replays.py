"""Seeded replays of stored scores: how often detectors alarm falsely, and how soon rightly."""

import numpy as np
import pytest

from ibinn.drift import NAMES, detectors
from tests.ibinn.drift import replays

RATE = 0.05
STREAM = 20_000


def stationary_alarms(seeds):
    """Streams in which each detector alarmed, one row per stream.

    Calibration images and stream are drawn from one pool with replacement: they are independent
    of each other with one law, so exchangeable, at any length. Images drawn again are ties.
    """
    pool = replays.pool()
    rows = []
    for seed in seeds:
        rng = np.random.default_rng([2026, seed])
        held = pool.subset(rng.integers(len(pool), size=2_500)).as_reference()
        stream = pool.subset(rng.integers(len(pool), size=STREAM)).against(held)
        found = detectors(held, false_alarm_rate=RATE, seed=seed)
        for detector in found:
            detector.observe_many(stream)
        rows.append([detector.alarmed for detector in found])
    return np.array(rows)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_at_most_16_of_200_stationary_streams_raise_any_alarm():
    assert stationary_alarms(range(200)).any(axis=1).sum() <= 16


def test_few_stationary_streams_raise_any_alarm():
    # With a chance of 0.05 each, more than 4 of 16 have one below 0.001.
    assert stationary_alarms(range(16)).any(axis=1).sum() <= 4


def test_few_orders_of_the_embedded_models_own_images_raise_any_alarm():
    # Its calibration set is one set: the promise is on average over such sets.
    held, clean = replays.calibration(), replays.scored("clean").against(replays.calibration())
    alarmed = 0
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(clean))
        found = detectors(held, false_alarm_rate=RATE, seed=seed)
        for detector in found:
            detector.observe_many(clean.subset(order))
        alarmed += any(detector.alarmed for detector in found)
    assert alarmed <= 4


def delays(cell, *, before, seeds=range(20)):
    """Images from the change to each detector's alarm, infinite without one, by seed.

    A seed that raised a false alarm before the change is left out.
    """
    held = replays.calibration()
    clean, changed = (replays.scored(name).against(held) for name in ("clean", cell))
    found = []
    for seed in seeds:
        rng = np.random.default_rng([7, seed])
        first = clean.subset(rng.permutation(len(clean))[:before])
        then = changed.subset(rng.permutation(len(changed)))
        hits = []
        made = detectors(held, false_alarm_rate=RATE, seed=seed)
        for detector in made:
            detector.observe_many(first)
        if any(detector.alarmed for detector in made):
            continue
        for detector in made:
            path = detector.observe_many(then)
            reached = np.flatnonzero(path >= detector.log_threshold)
            hits.append(reached[0] + 1 if len(reached) else np.inf)
        found.append(hits)
    return np.array(found, dtype=float)


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
