"""How accurate are the accepted answers of late? Estimates without labels, and what they assume.

Estimand: the accuracy of accepted answers to images that show one of the classes (in-scope
images), with the coverage, the share of answers that were accepted. Everything is learned from
accepted images of calibration part B:

- ``plain``: mean calibrated confidence;
- ``cbpe``: accuracy by confidence on calibration images, looked up for each image
  (confidence-based performance estimation, as NannyML has it);
- ``m_cbpe``: the same with calibration images weighted so that they resemble the recent ones in
  confidence and score (Białek et al. 2024, *We don't need no labels*);
- ``atc``: share of images whose negative entropy is above the threshold above which as large a
  share of calibration images lies as were answered rightly (Garg et al. 2022);
- ``cot``: mean probability of the labels in the cheapest assignment that has the class balance of
  calibration (`ibinn.drift.transport`; Lu et al. 2023, *confidence optimal transport*);
- ``cott``: ``atc`` with the costs of that assignment (the same, *with thresholding*).

**Assumed: covariate shift.** Images may change; what they show, and which answer is right for
them, does not. ``plain`` to ``atc`` assume besides that images with like numbers are as often
right as before, which is false where images are damaged: confidence does not fall enough.
``cot``, which is shipped, drops that where it shows in the classes that are named. It assumes
instead that **classes are as frequent among accepted images as at calibration**, or as `priors`
says. Where their balance differs by a total variation d, it is wrong by up to about d, mostly too
low. ``cott`` errs less on damaged images, and much more where only harder images come, whose
confidence is right: a threshold that fits one mix of easy and hard fits no other.

**Not seen: concept drift.** No label is looked at. If other answers become right for the same
images, no estimate moves by a hair; only labels show it. Images that show none of the classes
(out of scope) and are accepted count as if they showed one.

Shapes: N images, n calibration images, K classes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import numpy as np

from ibinn.drift.balanced import BalancedWindows, Cot, Cott
from ibinn.drift.by_confidence import Atc, Cbpe, MCbpe, Plain
from ibinn.drift.estimate import AccuracyEstimate, Estimator
from ibinn.drift.observation import FloatArray
from ibinn.drift.reference import DriftReference
from ibinn.errors import ConfigError, DataError

__all__ = ["SHIPPED", "AccuracyEstimate", "Estimator", "Method", "fit", "shipped"]


class Method(StrEnum):
    """How accuracy is estimated; see the module."""

    PLAIN = "plain"
    CBPE = "cbpe"
    M_CBPE = "m_cbpe"
    ATC = "atc"
    COT = "cot"
    COTT = "cott"


SHIPPED: Final = Method.COT


def fit(
    reference: DriftReference, *, method: Method = SHIPPED, priors: FloatArray | None = None
) -> Estimator:
    """A method, fitted to the accepted calibration images.

    Args:
        reference: Calibration images.
        method: Which one.
        priors: Shares of the classes among accepted images now (K,), for ``cot`` and ``cott``;
            None: those of calibration. The others know nothing of classes.

    Raises:
        DataError: No calibration image is accepted.
        ConfigError: `priors` are not K shares that add up to 1, or name a class that no accepted
            calibration image has.
    """
    accepted = reference.observed.accepted
    if not accepted.any():
        raise DataError(
            "no calibration image is accepted, so nothing is known of accepted answers; use a "
            "policy that accepts more"
        )
    seen, correct = reference.observed.subset(accepted), reference.correct[accepted]
    match method:
        case Method.PLAIN:
            return Plain()
        case Method.CBPE:
            return Cbpe.of(seen.confidence, correct)
        case Method.M_CBPE:
            return MCbpe(reference=seen, correct=correct)
        case Method.ATC:
            return Atc.of(seen, correct)
        case Method.COT | Method.COTT:
            labels = reference.labels[accepted]
            present = np.bincount(labels, minlength=reference.class_count) / len(labels)
            wanted = present if priors is None else _checked(priors, present)
            shares = wanted[labels] / present[labels] / len(labels)
            windows = BalancedWindows.of(seen, correct, shares=shares / shares.sum(), priors=wanted)
            return Cot.of(windows) if method is Method.COT else Cott.of(windows)


def shipped(reference: DriftReference, *, priors: FloatArray | None = None) -> Estimator:
    """The method that the service reports, fitted; see `fit`."""
    return fit(reference, method=SHIPPED, priors=priors)


def _checked(priors: FloatArray, present: FloatArray) -> FloatArray:
    wanted = np.asarray(priors, dtype=np.float64)
    if wanted.shape != present.shape or not np.isfinite(wanted).all() or (wanted < 0).any():
        raise ConfigError(
            f"priors have shape {wanted.shape}; expected {len(present)} shares of at least 0"
        )
    if abs(wanted.sum() - 1.0) > 1e-6:
        raise ConfigError(f"priors add up to {wanted.sum():g}; expected 1")
    if ((wanted > 0) & (present == 0)).any():
        k = int(np.flatnonzero((wanted > 0) & (present == 0))[0])
        raise ConfigError(
            f"priors give class {k} a share of {wanted[k]:g}, but no accepted calibration image "
            "has it; calibrate with images of it"
        )
    return wanted
