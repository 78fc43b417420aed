"""What the last images of a model look like, together."""

from __future__ import annotations

from dataclasses import dataclass

from ibinn.drift import DriftReference, Observations, shift


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """Figures of a window of images (`ibinn.drift.shift`).

    Attributes:
        uniformity_p: Of the test that their p-values are uniform.
        typicality_p: Of the test that their mean score is typical.
        prior_shift: Total variation distance of their class shares from those of calibration.
        covariate_shift: Distance of their scores and confidences from calibration images in the
            same class shares.
    """

    uniformity_p: float
    typicality_p: float
    prior_shift: float
    covariate_shift: float

    @classmethod
    def of(cls, images: Observations, reference: DriftReference) -> Recent:
        """Of some images, beside the calibration images."""
        priors = shift.prior_shift(images, reference)
        covariates = shift.covariate_shift(images, reference, priors=priors.priors)
        return cls(
            uniformity_p=shift.uniformity_p(images, reference),
            typicality_p=shift.typicality_p(images, reference),
            prior_shift=priors.total_variation,
            covariate_shift=covariates.distance,
        )
