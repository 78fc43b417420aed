from dataclasses import replace

import numpy as np
import pytest

from ibinn import bundle
from ibinn.drift import DriftReference
from ibinn.errors import DataError, NotCalibratedError
from ibinn.held_out import HeldOutScores, leave_one_out
from tests.ibinn.drift.made import ALPHA, CLASSES, held_out, reference


def test_scores_are_given_back_to_their_images_with_ties_too(rng):
    score = rng.integers(12, size=40) / 2
    made = HeldOutScores(
        logits=rng.normal(size=(40, 3)).astype(np.float32),
        labels=rng.integers(3, size=40),
        combined_p=leave_one_out(score),
        drivers=np.zeros(40, np.int8),
    )
    found = DriftReference.of(made, temperature=2.0, alpha=0.1, combined=np.sort(score))
    np.testing.assert_array_equal(found.observed.score, score)


def test_confidence_is_calibrated_and_truth_is_kept():
    made, combined = held_out()
    found = DriftReference.of(made, temperature=2.0, alpha=ALPHA, combined=combined)
    logits = made.logits.astype(float) / 2
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.observed.confidence, p.max(axis=1))
    np.testing.assert_array_equal(found.correct, p.argmax(axis=1) == made.labels)
    np.testing.assert_array_equal(found.observed.accepted, made.combined_p > ALPHA)
    assert found.class_count == CLASSES
    assert len(found) == len(made)


def test_images_that_were_not_assessed_are_left_out():
    made, combined = held_out(50)
    p = np.append(made.combined_p, np.nan)
    more = HeldOutScores(
        logits=np.vstack((made.logits, made.logits[:1])),
        labels=np.append(made.labels, 0),
        combined_p=p,
        drivers=np.zeros(51, np.int8),
    )
    found = DriftReference.of(more, temperature=1.0, alpha=ALPHA, combined=combined)
    assert len(found) == 50


def test_a_policy_narrows_what_is_accepted():
    made, combined = held_out()
    accepts = np.arange(300) % 2 == 0
    found = DriftReference.of(
        made, temperature=1.0, alpha=ALPHA, combined=combined, accepted=accepts
    )
    np.testing.assert_array_equal(found.observed.accepted, accepts & (made.combined_p > ALPHA))


def test_a_bundle_without_held_out_scores_cannot_be_watched():
    with pytest.raises(NotCalibratedError, match="calibrate it again"):
        DriftReference.of(None, temperature=1.0, alpha=0.01, combined=np.arange(3.0))


def test_scores_of_another_calibration_are_refused():
    made, combined = held_out()
    with pytest.raises(DataError, match="belong"):
        DriftReference.of(made, temperature=1.0, alpha=ALPHA, combined=combined[:-1])
    shifted = replace(made, combined_p=np.clip(made.combined_p + 0.0013, None, 1.0))
    with pytest.raises(DataError, match="ranks"):
        DriftReference.of(shifted, temperature=1.0, alpha=ALPHA, combined=combined)


def test_the_digest_tells_calibrations_apart():
    assert reference().digest() == reference().digest()
    assert reference().digest() != reference(seed=1).digest()


def test_the_embedded_bundle_can_be_watched():
    found = bundle.load(bundle.embedded_path()).reference
    assert found is not None
    made = DriftReference.of(
        found.held_out, temperature=found.temperature, alpha=0.01, combined=found.combined
    )
    assert len(made) == found.count_b
    np.testing.assert_array_equal(np.sort(made.observed.score), np.sort(found.combined))
    np.testing.assert_allclose(leave_one_out(made.observed.score), made.observed.p_value)
    assert made.observed.accepted.mean() == pytest.approx(0.99, abs=0.001)
