"""From a trained model to its bundle: calibration, evaluation, report."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import torch

from ibinn import bundle
from ibinn.flow.architectures import to_dict as architecture_to_dict
from ibinn.images import Preprocessing
from ibinn.manifest import Manifest, Training
from training import config as configs
from training.calibrate import COVERAGES, calibrate
from training.comparator import train_on
from training.config import FitConfig
from training.evaluation import Evaluation
from training.fit import Prepared
from training.image_set import ImageSet
from training.loop import Trained
from training.ood_sets import FULL_COUNT
from training.recipes import described
from training.scoring import Progress
from training.splits import Role, role_set
from training.trust_report import (
    Extent,
    OodFolders,
    evaluate_bundle,
    put_into_bundle,
    report_files,
)

_LIBRARIES = ("torch", "torchvision", "timm", "lightning", "numpy", "scikit-learn", "pillow")


def finish(
    trained: Trained,
    config: FitConfig,
    prepared: Prepared,
    out: Path,
    *,
    command: str,
    ood: OodFolders,
    with_baseline: bool = False,
    ood_count: int = FULL_COUNT,
    device: torch.device,
    progress: Progress | None = None,
    taxonomy_version: str = "1",
    extra: Mapping[str, str] | None = None,
) -> Evaluation:
    """Round, calibrate, evaluate and write ``out/bundle`` with its report.

    Args:
        trained: From the loop.
        config: The run.
        prepared: Its data.
        out: Folder of the run.
        command: The command that trained it, for the manifest.
        ood: Out-of-distribution data.
        with_baseline: Train a ResNet for as many epochs, and compare.
        ood_count: Most images of each out-of-distribution set.
        device: Where to compute.
        progress: Called as the evaluation goes on.
        taxonomy_version: Version of the class list.
        extra: Further text files for the bundle, by name.
    """
    manifest, roles = write_calibrated(
        trained,
        config,
        prepared,
        out,
        command=command,
        device=device,
        taxonomy_version=taxonomy_version,
        extra=extra,
    )
    folder = out / "bundle"
    classifier = bundle.load(folder, device=device)
    comparator = None
    if with_baseline:
        comparator = out / "resnet.safetensors"
        train_on(
            manifest,
            config,
            roles[Role.TRAIN],
            run=out,
            out=comparator,
            command=command,
            device=device,
        )
    evaluation = evaluate_bundle(
        classifier,
        manifest,
        roles,
        ood=ood,
        curve=trained.curve,
        extent=Extent(comparator=comparator, ood_count=ood_count),
        progress=progress,
    )
    put_into_bundle(folder, evaluation, report_files(evaluation, classifier), trained.curve)
    return evaluation


def write_calibrated(
    trained: Trained,
    config: FitConfig,
    prepared: Prepared,
    out: Path,
    *,
    command: str,
    device: torch.device,
    taxonomy_version: str = "1",
    extra: Mapping[str, str] | None = None,
) -> tuple[Manifest, dict[Role, ImageSet]]:
    """Round, calibrate and write ``out/bundle`` without a report.

    Args:
        trained, config, prepared, out, command, device, taxonomy_version, extra: As in `finish`.

    Returns:
        The manifest that was written, and the images of each role.
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
        taxonomy_version=taxonomy_version,
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
    written = bundle.save(manifest, trained.model, reference, out / "bundle", extra=extra)
    return written, roles


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
