"""A tiny untrained model of the digits with its calibration, and bundles of it."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ibinn import bundle, manifest
from ibinn.classifier import GenerativeClassifier
from ibinn.flow.architectures import ArchitectureConfig, SmallConfig, to_dict
from ibinn.images import Preprocessing, PreprocessingConfig
from ibinn.latent import GaussianMixture, MixtureConfig
from ibinn.manifest import Manifest, Training
from ibinn.reference import Reference
from training.calibrate import calibrate
from training.data import open_data

SIDE = 8
CLASSES = tuple(str(digit) for digit in range(10))
ARCHITECTURE = SmallConfig(side=SIDE, widths=(6, 6), blocks=(1, 1))
PREPROCESSING = PreprocessingConfig(side=SIDE, mean=(0.3, 0.3, 0.3), std=(0.4, 0.4, 0.4))
COUNT_B = 60


def make_model(
    architecture: ArchitectureConfig = ARCHITECTURE, *, seed: int = 0
) -> GenerativeClassifier:
    """A model whose couplings do something, unlike freshly built ones."""
    torch.manual_seed(seed)
    network = architecture.build()
    mixture = GaussianMixture(len(CLASSES), network.dims)
    model = GenerativeClassifier(network, mixture)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@cache
def make_reference(*, seed: int = 0) -> Reference:
    """Calibration of `make_model()` on 60 digits each for part A and B, other ones per seed."""
    model = make_model()
    bundle.round_subnetworks(model)
    digits = open_data("digits").train
    order = np.random.default_rng(seed).permutation(len(digits))
    parts = order[:COUNT_B], order[COUNT_B : 2 * COUNT_B]
    part_a, part_b = (digits.subset(part.tolist()) for part in parts)
    return calibrate(model, Preprocessing(PREPROCESSING), part_a, part_b)


def make_manifest(architecture: ArchitectureConfig = ARCHITECTURE, **changes: Any) -> Manifest:
    """The manifest of the tiny model, files not filled in."""
    found = Manifest(
        name="tiny",
        architecture=to_dict(architecture),
        mixture=dataclasses.asdict(MixtureConfig()),
        preprocessing=PREPROCESSING.to_dict(),
        classes=CLASSES,
        taxonomy_version="1",
        alpha=0.05,
        conformal_coverage=0.9,
        intended_use="Tests.",
        training_data="None: übungshalber.",
        training=Training(
            command="none", seconds=0.0, machine="any", config={}, split_sha256={}, libraries={}
        ),
    )
    return dataclasses.replace(found, **changes)


def write_bundle(
    folder: Path, *, calibrated: bool = True, seed: int = 0, **changes: Any
) -> GenerativeClassifier:
    """Save a bundle of the tiny model, rounded; returns the model."""
    model = make_model()
    bundle.round_subnetworks(model)
    bundle.save(
        make_manifest(**changes),
        model,
        make_reference(seed=seed) if calibrated else None,
        folder,
        extra={"report.html": "<p>report</p>", "report.json": "{}"},
    )
    return model


def rewrite_manifest(folder: Path, **entries: Any) -> None:
    """Set entries (None: remove them) of a manifest, with the digests that then belong to it."""
    path = folder / manifest.FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    for name, value in entries.items():
        if value is None:
            content.pop(name)
        else:
            content[name] = value
    content["sha256"] = manifest._own_digest(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def rehash(folder: Path, name: str) -> None:
    """State the present sha256 of a file in the manifest."""
    files = json.loads((folder / manifest.FILE).read_text(encoding="utf-8"))["files"]
    rewrite_manifest(folder, files=files | {name: manifest.file_sha256(folder / name)})
