"""What every chapter of a trust report is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ibinn.manifest import Manifest
from ibinn.trusted import TrustedClassifier
from training.discriminative import SoftmaxClassifier
from training.image_set import ImageSet
from training.ood_sets import OodCollection
from training.scoring import Progress, Scored, Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """A calibrated model, images for every role, and what was scored of them already.

    Attributes:
        classifier: The bundle's classifier.
        manifest: Its manifest.
        test: Images that served neither training nor calibration; figures are of these.
        train: Training images, or None where the split cannot be made again.
        validation: Validation images: for choices; None like `train`.
        calibration_a: Images of part A, or None like `train`.
        calibration_b: Images of part B, or None like `train`.
        sets: Out-of-distribution sets of the report.
        scorer: Scores further images as `test_scores` were scored.
        test_scores: Scores of all of `test`, in its order.
        set_scores: Scores of each set by its name.
        comparator: The softmax ResNet of equal training cost, or None.
        limit: Most images that a costly chapter looks at per condition.
        draws: Bootstrap and permutation draws.
        seed: Of every random choice.
        progress: Called with (what, done, of how many), or None.
    """

    classifier: TrustedClassifier
    manifest: Manifest
    test: ImageSet
    train: ImageSet | None
    validation: ImageSet | None
    calibration_a: ImageSet | None
    calibration_b: ImageSet | None
    sets: OodCollection
    scorer: Scorer
    test_scores: Scored
    set_scores: Mapping[str, Scored]
    comparator: SoftmaxClassifier | None
    limit: int = 1_000
    draws: int = 1_000
    seed: int = 0
    progress: Progress | None = field(default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotMeasured:
    """A chapter that could not be measured, and why: told to the reader, never dropped."""

    reason: str
