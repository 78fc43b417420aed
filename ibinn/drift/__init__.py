"""Noticing that images, or the worth of answers, are no longer what they were at calibration.

- `detectors`: sequential tests with a bounded chance of ever raising a false alarm;
- `groups`: images that belong together count once;
- `accuracy`: expected accuracy of accepted answers without labels, under a stated assumption;
- `shift`: shift of the class balance apart from the rest, and tests of the recent images.

Numpy and scipy only: nothing here needs the model.
"""

from ibinn.drift import accuracy, shift
from ibinn.drift.detectors import NAMES, Detector, detectors, rate_of_each
from ibinn.drift.groups import Blocker
from ibinn.drift.observation import Observation, Observations
from ibinn.drift.reference import DriftReference

__all__ = [
    "NAMES",
    "Blocker",
    "Detector",
    "DriftReference",
    "Observation",
    "Observations",
    "accuracy",
    "detectors",
    "rate_of_each",
    "shift",
]
