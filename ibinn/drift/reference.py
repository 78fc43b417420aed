"""What recent images are held against: calibration part B as if it had just been answered.

Shapes: n calibration images, K classes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from ibinn.drift.observation import BoolArray, FloatArray, IntArray, Observations
from ibinn.errors import DataError, NotCalibratedError
from ibinn.held_out import HeldOutScores, leave_one_out


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DriftReference:
    """Calibration images with all that is known of them, the truth included.

    Attributes:
        observed: What was observed of each, with the p-values *among the others* of
            `ibinn.held_out.leave_one_out`.
        correct: Whether the most probable class is the label (n,).
        labels: Labels (n,).
        class_count: K.
        alpha: Significance below which an answer is UNKNOWN.
    """

    observed: Observations
    correct: BoolArray
    labels: IntArray
    class_count: int
    alpha: float

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(
        cls,
        held_out: HeldOutScores | None,
        *,
        temperature: float,
        alpha: float,
        combined: FloatArray,
        accepted: BoolArray | None = None,
    ) -> DriftReference:
        """From what a bundle keeps of part B (`ibinn.reference.Reference`).

        The bundle keeps the combined scores sorted, the rest by image. An image's p-value among
        the others is p = #{scores >= s}/n, so its score is the sorted one at position n (1 - p),
        with ties too.

        An image is accepted where p > α. Seen from the calibration images that lie below the
        threshold, which is itself a calibration score, accepted images are exchangeable with
        accepted calibration images; the image at the threshold is left out here as there.

        Args:
            held_out: Of the bundle; None in older ones.
            temperature: T.
            alpha: Significance of the verdict.
            combined: Combined scores of part B, ascending.
            accepted: Which images the policy accepts besides, (n,); None: no policy. A policy that
                was fitted to these very images accepts others a little less well: the detector of
                confidences is then valid only nearly.

        Raises:
            NotCalibratedError: The bundle keeps no held-out scores.
            DataError: Scores and images do not belong together.
        """
        if held_out is None:
            raise NotCalibratedError(
                "the bundle keeps no scores of calibration images (it is of an older version), so "
                "drift cannot be noticed; calibrate it again"
            )
        known = np.isfinite(held_out.combined_p)
        ordered = np.sort(np.asarray(combined, dtype=np.float64))
        n = int(known.sum())
        if len(ordered) != n or n < 2:
            raise DataError(
                f"{len(ordered)} combined scores belong to {n} held-out images; expected one "
                "score per image, of one calibration, and at least 2"
            )
        p = held_out.combined_p[known]
        places = np.rint(n * (1.0 - p)).astype(np.int64)
        score = ordered[np.clip(places, 0, n - 1)]
        if not np.allclose(leave_one_out(score), p, rtol=0, atol=1e-9):
            raise DataError(
                "held-out p-values are not the ranks of their images among the combined scores; "
                "expected both of one calibration"
            )
        logits = held_out.logits[known].astype(np.float64) / temperature
        logits -= logits.max(axis=1, keepdims=True)
        probabilities = np.exp(logits)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        top = probabilities.argmax(axis=1)
        labels = held_out.labels[known]
        not_flagged = p > alpha
        return cls(
            observed=Observations(
                score=score,
                p_value=p,
                class_index=top,
                confidence=probabilities.max(axis=1),
                accepted=not_flagged if accepted is None else not_flagged & accepted[known],
                probabilities=probabilities,
            ),
            correct=top == labels,
            labels=labels,
            class_count=held_out.logits.shape[1],
            alpha=alpha,
        )

    def digest(self) -> str:
        """sha256 (hex) of what detectors start from; their states belong to one."""
        hashed = hashlib.sha256()
        observed = self.observed
        for array in (observed.score, observed.confidence, observed.class_index, observed.accepted):
            hashed.update(np.ascontiguousarray(array).tobytes())
        return hashed.hexdigest()
