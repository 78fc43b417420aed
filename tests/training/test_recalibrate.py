"""Recalibration leaves the weights alone; a report in a bundle touches neither."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ibinn import bundle, manifest
from ibinn.errors import DataError
from tests.ibinn.bundles import (
    ARCHITECTURE,
    PREPROCESSING,
    make_manifest,
    make_model,
    make_reference,
)
from tests.training.tiny_runs import tiny_config
from training.checkpoint import CurvePoint
from training.comparator import train_comparator
from training.config import to_dict
from training.data import open_data
from training.recalibrate import recalibrate
from training.roles import known_roles, roles_of
from training.splits import Role, SplitConfig, make_splits
from training.trust_report import CURVE_FILE, curve_text, read_curve

SPLIT = SplitConfig(validation=0.05, calibration_a=0.2, calibration_b=0.2, test=0.2)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A bundle that says it was trained on a split of the digits."""
    model = make_model()
    bundle.round_subnetworks(model)
    config = tiny_config(
        architecture=ARCHITECTURE, preprocessing=PREPROCESSING, split=SPLIT, alpha=0.05
    )
    split = make_splits(open_data("digits"), SPLIT)
    found = make_manifest()
    training = replace(
        found.training,
        config=to_dict(config),
        split_sha256={role.value: digest for role, digest in split.sha256.items()},
    )
    folder = tmp_path / "bundle"
    bundle.save(
        make_manifest(training=training, metrics={"top1": 0.5}),
        model,
        make_reference(),
        folder,
        extra={"report.html": "<p>old</p>", "report.json": "{}", CURVE_FILE: curve_text([POINT])},
    )
    return folder


POINT = CurvePoint(
    step=1,
    epoch=0.5,
    loss=1.0,
    nll_per_dim=1.0,
    log_posterior=-1.0,
    accuracy=0.5,
    learning_rate=0.1,
    images_per_s=10.0,
)


def test_recalibration_changes_the_calibration_and_not_the_weights(trained: Path) -> None:
    before = manifest.verify(trained)
    roles = roles_of(before, "digits")
    after = recalibrate(trained, roles, trained, device=torch.device("cpu"))
    assert after.weights_digest == before.weights_digest
    assert after.calibration_digest != before.calibration_digest
    loaded = bundle.load(trained)
    assert loaded.reference is not None
    assert loaded.reference.count_b == len(roles[Role.CALIBRATION_B])
    held_out = loaded.reference.held_out
    assert held_out is not None
    assert len(held_out) == loaded.reference.count_b


def test_recalibration_drops_figures_of_the_old_one_and_keeps_the_curve(trained: Path) -> None:
    before = manifest.verify(trained)
    after = recalibrate(trained, roles_of(before, "digits"), trained, device=torch.device("cpu"))
    assert after.metrics == {}
    assert not (trained / "report.html").exists()
    assert "report.json" not in after.files
    assert read_curve(trained / CURVE_FILE) == (POINT,)


def test_recalibrating_twice_gives_the_same_calibration(trained: Path, tmp_path: Path) -> None:
    roles = roles_of(manifest.verify(trained), "digits")
    cpu = torch.device("cpu")
    first = recalibrate(trained, roles, tmp_path / "first", device=cpu)
    second = recalibrate(trained, roles, tmp_path / "second", device=cpu)
    assert first.calibration_digest == second.calibration_digest


def test_roles_are_those_of_the_run_or_refused(trained: Path) -> None:
    found = manifest.verify(trained)
    changed = replace(
        found,
        training=replace(
            found.training, split_sha256={**found.training.split_sha256, "test": "0" * 64}
        ),
    )
    with pytest.raises(DataError, match="give the data of the training run"):
        roles_of(changed, "digits")
    with pytest.raises(DataError, match="give the data of the training run"):
        train_comparator(changed, "digits", run=trained, out=trained / "resnet", command="")
    assert Role.TRAIN in known_roles(found, "digits")


def test_files_are_added_to_a_bundle_without_changing_what_it_was(trained: Path) -> None:
    before = manifest.verify(trained)
    bundle.add_files(before, trained, {"report.html": "<p>new</p>", "more.txt": "more"})
    after = manifest.verify(trained)
    assert after.weights_digest == before.weights_digest
    assert after.calibration_digest == before.calibration_digest
    assert set(after.files) == {*before.files, "more.txt"}
    assert json.loads((trained / manifest.FILE).read_text())["files"]["more.txt"]
