"""The combined test within each predicted class, where the calibration data allow it.

The false-positive rate of the combined test holds over all images; within one class it can lie
well above. Ranked among the calibration images of the same *predicted* class, which is known when
an image is answered, it holds within each such class (Mondrian conformal prediction, Vovk et al.
2005), as far as there are enough calibration images of it.

Shapes: B images, n calibration images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ibinn.errors import AlphaTooSmallError, DataError
from ibinn.ood import p_values
from ibinn.ood.p_values import needed_calibration_count
from ibinn.types import TestKind

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAlpha:
    """Whether a class can be tested at a significance of its own.

    Attributes:
        class_index: The class.
        alpha: The significance asked for.
        calibration_count: Calibration images n of this predicted class.
        needed: Calibration images that `alpha` needs.
    """

    class_index: int
    alpha: float
    calibration_count: int
    needed: int

    @property
    def allowed(self) -> bool:
        """Whether there are enough."""
        return self.calibration_count >= self.needed

    def check(self) -> None:
        """Refuse the significance where there are too few images.

        Raises:
            AlphaTooSmallError: With the number of images that it needs.
        """
        if not self.allowed:
            raise AlphaTooSmallError(
                alpha=self.alpha, calibration_count=self.calibration_count, needed=self.needed
            )


def class_references(
    scores: npt.NDArray[np.floating[Any]], classes: npt.NDArray[np.integer[Any]], *, count: int
) -> tuple[FloatArray, ...]:
    """The sorted scores of part B by predicted class.

    Args:
        scores: Combined scores of part B, high = unusual, shape (n,).
        classes: Its predicted classes, shape (n,).
        count: Number of classes K.

    Raises:
        DataError: Shapes do not fit.
    """
    if np.shape(scores) != np.shape(classes) or np.ndim(scores) != 1:
        raise DataError(
            f"scores have shape {np.shape(scores)}, classes {np.shape(classes)}; expected (n,)"
        )
    values = np.asarray(scores, dtype=np.float64)
    return tuple(np.sort(values[classes == k]) for k in range(count))


def class_alphas(alpha: float, references: Sequence[FloatArray]) -> tuple[ClassAlpha, ...]:
    """For each class whether it can be tested at `alpha`, and the count needed.

    Raises:
        ConfigError: `alpha` is not in (0, 1).
    """
    needed = needed_calibration_count(alpha, TestKind.HIGH_IS_UNUSUAL)
    return tuple(
        ClassAlpha(class_index=k, alpha=alpha, calibration_count=len(ranks), needed=needed)
        for k, ranks in enumerate(references)
    )


def class_wise_p_values(
    scores: npt.NDArray[np.floating[Any]],
    classes: npt.NDArray[np.integer[Any]],
    references: Sequence[FloatArray],
) -> FloatArray:
    """p = (1 + #{calibration images of the same predicted class with a score >= s})/(n_k + 1).

    Args:
        scores: Combined scores, shape (B,).
        classes: Predicted classes, shape (B,).
        references: From `class_references`.

    Returns:
        Shape (B,), in (0, 1]; NaN where the score is not finite or the class has no reference.
    """
    found = np.full(len(scores), np.nan)
    values = np.asarray(scores, dtype=np.float64)
    for k, ranks in enumerate(references):
        own = np.asarray(classes) == k
        if len(ranks) and own.any():
            found[own] = p_values.p_values(values[own], ranks, TestKind.HIGH_IS_UNUSUAL)
    return found
