"""From a bundle and data to its trust report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ibinn import bundle
from ibinn.manifest import Manifest, verify
from ibinn.trusted import TrustedClassifier
from training import report
from training.chapters.base import Material
from training.chapters.registry import Chapter, measure
from training.checkpoint import CurvePoint
from training.comparator import COMPARATORS, judged
from training.discriminative import SoftmaxClassifier, load_softmax, resnet
from training.evaluate import evaluate
from training.evaluation import Baseline, Evaluation
from training.image_set import ImageSet
from training.ood_sets import FULL_COUNT, OodCollection, report_sets
from training.report_figures import Samples
from training.scoring import Progress, Scored, Scorer, fitted
from training.splits import Role

CURVE_FILE = "curve.jsonl"
"""The training's figures, inside the bundle, so that a report can be made again from it."""

SAMPLED_CLASSES = 20
SAMPLES = 8
SAMPLE_TEMPERATURE = 0.8
"""Samples in the report: of how many classes, how many each, how far from the mean."""

SAMPLED_PIXELS = SAMPLED_CLASSES * SAMPLES * 128**2
"""Fewer where they would show more pixels than this: the report is one file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OodFolders:
    """Where the data sets for out-of-distribution images are, if at all.

    Attributes:
        mnist: torchvision's MNIST layout.
        tiny_imagenet: ``val/<wnid>/*.JPEG``.
    """

    mnist: Path | None = None
    tiny_imagenet: Path | None = None

    @staticmethod
    def under(folder: Path) -> OodFolders:
        """What there is of ``mnist`` and ``tiny-imagenet`` in a folder."""
        mnist, tiny = folder / "mnist", folder / "tiny-imagenet"
        return OodFolders(
            mnist=mnist if mnist.is_dir() else None,
            tiny_imagenet=tiny if tiny.is_dir() else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much a report measures beside the figures of the model itself.

    Attributes:
        chapters: Names of chapters; see `training.chapters.registry`.
        limit: Most images that a costly chapter looks at per condition.
        ood_count: Most images of each out-of-distribution set.
        comparator: Weights that `ibinn-train comparator` wrote, or None.
    """

    chapters: tuple[str, ...] = ()
    limit: int = 1_000
    ood_count: int = FULL_COUNT
    comparator: Path | None = None


def default_comparator(name: str) -> Path | None:
    """The comparator of a bundle of this repository, or None."""
    path = COMPARATORS / f"{name}.safetensors"
    return path if path.is_file() else None


def evaluate_bundle(
    classifier: TrustedClassifier,
    manifest: Manifest,
    roles: Mapping[Role, ImageSet],
    *,
    ood: OodFolders,
    curve: Sequence[CurvePoint] = (),
    extent: Extent | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a bundle on test images and on every out-of-distribution set there is.

    Args:
        classifier: The bundle's.
        manifest: Of the bundle.
        roles: Test images, and those of the other roles where the split is known.
        ood: Data sets of other images.
        curve: Figures of the training.
        extent: Which chapters to add; None: none.
        progress: Called as the evaluation goes on.
    """
    extent = extent or Extent()
    test = roles[Role.TEST]
    sets = report_sets(
        fitted(test, classifier.preprocessing),
        side=classifier.info.input_side,
        mnist=ood.mnist,
        tiny_imagenet=ood.tiny_imagenet,
        class_names=classifier.info.classes,
        count=extent.ood_count,
    )
    network: SoftmaxClassifier | None = None
    baseline: Baseline | None = None
    if extent.comparator is not None:
        network = resnet(len(manifest.classes), classifier.info.input_side)
        load_softmax(network, extent.comparator)
        baseline = judged(manifest, test, extent.comparator)

    def chapters(
        scorer: Scorer, test_scores: Scored, set_scores: Mapping[str, Scored]
    ) -> tuple[Chapter, ...]:
        material = _material(
            classifier,
            manifest,
            roles,
            sets,
            scorer=scorer,
            test_scores=test_scores,
            set_scores=set_scores,
            comparator=network,
            limit=extent.limit,
            progress=progress,
        )
        return measure(extent.chapters, material)

    minutes = manifest.training.seconds / 60
    return evaluate(
        classifier,
        test,
        sets,
        test_name=f"{len(test):,} test images of {manifest.training_data.partition(':')[0]}",
        calibration=roles.get(Role.CALIBRATION_B),
        curve=curve,
        baseline=baseline,
        facts=(
            ("command", manifest.training.command),
            ("training time", f"{minutes:.1f} min"),
            ("machine", manifest.training.machine),
            *((f"{name}", version) for name, version in manifest.training.libraries.items()),
        ),
        chapters=chapters,
        progress=progress,
    )


def _material(
    classifier: TrustedClassifier,
    manifest: Manifest,
    roles: Mapping[Role, ImageSet],
    sets: OodCollection,
    *,
    scorer: Scorer,
    test_scores: Scored,
    set_scores: Mapping[str, Scored],
    comparator: SoftmaxClassifier | None,
    limit: int,
    progress: Progress | None,
) -> Material:
    def part(role: Role) -> ImageSet | None:
        images = roles.get(role)
        return images if images is not None and len(images) else None

    return Material(
        classifier=classifier,
        manifest=manifest,
        test=roles[Role.TEST],
        train=part(Role.TRAIN),
        validation=part(Role.VALIDATION),
        calibration_a=part(Role.CALIBRATION_A),
        calibration_b=part(Role.CALIBRATION_B),
        sets=sets,
        scorer=scorer,
        test_scores=test_scores,
        set_scores=set_scores,
        comparator=comparator,
        limit=limit,
        progress=progress,
    )


def report_files(evaluation: Evaluation, classifier: TrustedClassifier) -> dict[str, str]:
    """``report.html`` with images that the model makes of each class, and ``report.json``."""
    most = SAMPLED_PIXELS // classifier.info.input_side**2
    each = max(1, min(SAMPLES, most // SAMPLED_CLASSES))
    names = classifier.info.classes[: max(1, min(SAMPLED_CLASSES, most // each))]
    samples = Samples(
        class_names=names,
        images=np.stack(
            [classifier.sample(name, each, temperature=SAMPLE_TEMPERATURE) for name in names]
        ),
        note=f"z ~ mean + {SAMPLE_TEMPERATURE:g} N(0, I), seed 0",
    )
    return {
        report.HTML_FILE: report.render_html(evaluation, samples=samples),
        report.JSON_FILE: report.render_json(evaluation),
    }


def put_into_bundle(
    folder: Path, evaluation: Evaluation, files: Mapping[str, str], curve: Sequence[CurvePoint]
) -> Manifest:
    """Write a report and its figures into a bundle; weights and calibration stay as they are."""
    found = verify(folder)
    extra = dict(files)
    if curve:
        extra[CURVE_FILE] = curve_text(curve)
    written = replace(found, metrics=evaluation.headline(), detections=evaluation.detections())
    return bundle.add_files(written, folder, extra)


def curve_text(curve: Sequence[CurvePoint]) -> str:
    """The training's figures as JSON lines."""
    return "".join(json.dumps(asdict(point)) + "\n" for point in curve)


def read_curve(path: Path) -> tuple[CurvePoint, ...]:
    """What `curve_text` wrote; nothing where there is no such file."""
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(CurvePoint(**json.loads(line)) for line in lines)
