"""From a trained model to its bundle: calibration, evaluation, report."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ibinn import bundle
from ibinn.flow.architectures import to_dict as architecture_to_dict
from ibinn.images import Preprocessing
from ibinn.manifest import Manifest, Training
from ibinn.trusted import TrustedClassifier
from training import config as configs
from training import report
from training.baseline import train_baseline
from training.calibrate import COVERAGES, calibrate
from training.checkpoint import CurvePoint
from training.config import FitConfig
from training.evaluate import evaluate
from training.evaluation import Baseline, Evaluation
from training.fit import Prepared
from training.image_set import ImageSet
from training.loop import Trained
from training.ood_sets import report_sets
from training.recipes import described
from training.report_figures import Samples
from training.scoring import Progress, fitted
from training.splits import Role, role_set

_LIBRARIES = ("torch", "torchvision", "timm", "lightning", "numpy", "scikit-learn", "pillow")


SAMPLED_CLASSES = 20
SAMPLES = 8
SAMPLE_TEMPERATURE = 0.8
"""Samples in the report: of how many classes, how many each, how far from the mean."""


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


def finish(
    trained: Trained,
    config: FitConfig,
    prepared: Prepared,
    out: Path,
    *,
    command: str,
    ood: OodFolders,
    with_baseline: bool = False,
    device: torch.device,
    progress: Progress | None = None,
) -> Evaluation:
    """Round, calibrate, evaluate and write ``out/bundle`` with its report.

    Args:
        trained: From the loop.
        config: The run.
        prepared: Its data.
        out: Folder of the run.
        command: The command that trained it, for the manifest.
        ood: Out-of-distribution data.
        with_baseline: Train a ResNet for as long as the model took.
        device: Where to compute.
        progress: Called as the evaluation goes on.
    """
    config = described(
        config, data=prepared.source.name, class_names=prepared.source.train.class_names
    )
    preprocessing = Preprocessing(config.preprocessing)
    roles = {role: role_set(prepared.source, prepared.manifest, role) for role in Role}
    # Figures are those of the model as it is stored.
    bundle.round_subnetworks(trained.model)
    reference = calibrate(
        trained.model,
        preprocessing,
        roles[Role.CALIBRATION_A],
        roles[Role.CALIBRATION_B],
        coverages=tuple(sorted({*COVERAGES, config.conformal_coverage})),
        seed=config.seed,
    )
    manifest = Manifest(
        name=out.resolve().name,
        architecture=architecture_to_dict(config.architecture),
        mixture=dataclasses.asdict(config.mixture),
        preprocessing=config.preprocessing.to_dict(),
        classes=prepared.source.train.class_names,
        taxonomy_version="1",
        alpha=config.alpha,
        conformal_coverage=config.conformal_coverage,
        intended_use=config.intended_use,
        training_data=config.training_data,
        training=Training(
            command=command,
            seconds=trained.seconds,
            machine=machine(device),
            config=configs.to_dict(config),
            split_sha256={role.value: d for role, d in prepared.manifest.sha256.items()},
            libraries=library_versions(),
        ),
    )
    folder = out / "bundle"
    manifest = bundle.save(manifest, trained.model, reference, folder)
    classifier = bundle.load(folder, device=device)
    baseline = None
    if with_baseline:
        baseline = train_baseline(
            roles[Role.TRAIN],
            roles[Role.TEST],
            preprocessing,
            config,
            seconds=trained.seconds,
            device=device,
        )
    evaluation = evaluate_bundle(
        classifier,
        manifest,
        roles[Role.TEST],
        calibration=roles[Role.CALIBRATION_B],
        ood=ood,
        curve=trained.curve,
        baseline=baseline,
        progress=progress,
    )
    files = report_files(evaluation, classifier)
    bundle.save(
        replace(manifest, metrics=evaluation.headline(), detections=evaluation.detections()),
        trained.model.cpu(),
        reference,
        folder,
        extra=files,
    )
    return evaluation


def evaluate_bundle(
    classifier: TrustedClassifier,
    manifest: Manifest,
    test: ImageSet,
    *,
    calibration: ImageSet | None,
    ood: OodFolders,
    curve: tuple[CurvePoint, ...] = (),
    baseline: Baseline | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a bundle on test images and on every out-of-distribution set there is."""
    sets = report_sets(
        fitted(test, classifier.preprocessing),
        side=classifier.info.input_side,
        mnist=ood.mnist,
        tiny_imagenet=ood.tiny_imagenet,
        class_names=classifier.info.classes,
    )
    minutes = manifest.training.seconds / 60
    return evaluate(
        classifier,
        test,
        sets,
        test_name=f"{len(test):,} test images of {manifest.training_data.partition(':')[0]}",
        calibration=calibration,
        curve=curve,
        baseline=baseline,
        facts=(
            ("command", manifest.training.command),
            ("training time", f"{minutes:.1f} min"),
            ("machine", manifest.training.machine),
            *((f"{name}", version) for name, version in manifest.training.libraries.items()),
        ),
        progress=progress,
    )


def report_files(evaluation: Evaluation, classifier: TrustedClassifier) -> dict[str, str]:
    """``report.html`` with images that the model makes of each class, and ``report.json``."""
    names = classifier.info.classes[:SAMPLED_CLASSES]
    samples = Samples(
        class_names=names,
        images=np.stack(
            [classifier.sample(name, SAMPLES, temperature=SAMPLE_TEMPERATURE) for name in names]
        ),
        note=f"z ~ mean + {SAMPLE_TEMPERATURE:g} N(0, I), seed 0",
    )
    return {
        report.HTML_FILE: report.render_html(evaluation, samples=samples),
        report.JSON_FILE: report.render_json(evaluation),
    }


def machine(device: torch.device) -> str:
    """Type of the machine that computes, in words."""
    if device.type == "cuda":
        return f"one {torch.cuda.get_device_name(device)}"
    return f"{os.cpu_count()} cores, {_processor()}"


def library_versions() -> Mapping[str, str]:
    """Versions of the libraries that decide the numbers."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        versions[name] = importlib.metadata.version(name)
    return versions


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
