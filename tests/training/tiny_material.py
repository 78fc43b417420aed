"""What chapters are given, of a tiny untrained model of the digits."""

from __future__ import annotations

from functools import cache

import torch

from ibinn import bundle
from ibinn.assessment import Significance
from ibinn.trusted import TrustedClassifier
from tests.ibinn.bundles import CLASSES, PREPROCESSING, SIDE, make_manifest, make_model
from training.calibrate import calibrate
from training.chapters.base import Material
from training.data import open_data
from training.development_sets import development_sets
from training.discriminative import resnet
from training.image_set import ImageSet
from training.ood_sets import OodCollection, report_sets
from training.scoring import Scorer, fitted

LIMIT = 24
DRAWS = 40
PARTS = {
    "train": (0, 300),
    "calibration_a": (300, 600),
    "calibration_b": (600, 900),
    "validation": (900, 960),
    "test": (960, 1160),
}


@cache
def material() -> Material:
    """A calibrated classifier with images for every role and small sets of unknown images."""
    model = make_model()
    bundle.round_subnetworks(model)
    digits = open_data("digits").train
    parts: dict[str, ImageSet] = {
        name: digits.subset(range(first, last)) for name, (first, last) in PARTS.items()
    }
    manifest = make_manifest(alpha=0.05)
    preprocessing = bundle.Preprocessing(PREPROCESSING)
    classifier: TrustedClassifier = bundle.assemble(
        manifest,
        model,
        calibrate(model, preprocessing, parts["calibration_a"], parts["calibration_b"]),
        settings=Significance(alpha=0.05, coverage=0.9),
    )
    torch.manual_seed(0)
    comparator = resnet(len(CLASSES), SIDE).eval()
    test_images = fitted(parts["test"], preprocessing)
    reported = report_sets(test_images, side=SIDE, count=LIMIT, class_names=CLASSES)
    sets = OodCollection(
        sets=(*reported.sets, development_sets(test_images, side=SIDE, count=LIMIT)[0]),
        left_out=reported.left_out,
    )
    reference = classifier.reference
    assert reference is not None
    scorer = Scorer(model=classifier, reference=reference, batch_size=100)
    return Material(
        classifier=classifier,
        manifest=manifest,
        **parts,
        sets=sets,
        scorer=scorer,
        test_scores=scorer.images(test_images, "test images", finish=True),
        set_scores={s.name: scorer.ood(s, finish=True) for s in sets.sets},
        comparator=comparator,
        limit=LIMIT,
        draws=DRAWS,
    )
