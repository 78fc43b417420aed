"""What the last images of a model look like, together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ibinn.drift import DriftReference, Observations
from ibinn.ood.group_p_values import group_typicality, group_uniformity

_DRAWS = 499
"""Behind each p-value: these are looked at for a trend, alarms are the detectors' to raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """Figures of a window of images.

    Attributes:
        uniformity_p: Of the test that their p-values are uniform.
        typicality_p: Of the test that their mean score is typical.
        prior_shift: Total variation distance of the class frequencies from calibration's.
        covariate_shift: Distance of the scores from calibration's, class frequencies apart.
    """

    uniformity_p: float
    typicality_p: float
    prior_shift: float
    covariate_shift: float

    @classmethod
    def of(cls, images: Observations, reference: DriftReference) -> Recent:
        """Of some images, beside the calibration images."""
        seen = reference.observed
        n = len(reference)
        return cls(
            uniformity_p=float(group_uniformity(images.p_value[None], n, draws=_DRAWS)[0]),
            typicality_p=float(group_typicality(images.score[None], seen.score, draws=_DRAWS)[0]),
            prior_shift=_total_variation(images, reference),
            covariate_shift=0.0,
        )


def _total_variation(images: Observations, reference: DriftReference) -> float:
    k = reference.class_count
    now = np.bincount(images.class_index, minlength=k) / len(images)
    then = np.bincount(reference.observed.class_index, minlength=k) / len(reference)
    return float(np.abs(now - then).sum() / 2)
