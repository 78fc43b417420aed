"""A run from its data on: roles settled, folder kept, test images that were never trained on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ibinn.errors import AlphaTooSmallError, ConfigError, DataError
from tests.ibinn.bundles import make_manifest
from tests.training.image_folders import write_folder
from tests.training.tiny_runs import Recorder, tiny_config
from training.config import FitConfig, from_dict, to_dict
from training.fit import Hardware, build_model, held_out_images, prepare, train_model
from training.loop import CHECKPOINT
from training.splits import Role, SplitConfig, SplitManifest

SPLIT = SplitConfig(validation=0.1, calibration_a=0.2, calibration_b=0.2, test=0.2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty images of two classes."""
    return write_folder(tmp_path / "data", {"bolt": 20, "nut": 20})


def small_config(**changes: Any) -> FitConfig:
    values: dict[str, Any] = {"split": SPLIT, "epochs": 1, "batch_size": 4, "alpha": 0.2}
    return tiny_config(**(values | changes))


def test_the_run_folder_gets_the_split_and_the_configuration(folder: Path, tmp_path: Path) -> None:
    config = small_config()
    prepared = prepare(config, str(folder), tmp_path / "run")
    assert SplitManifest.load(tmp_path / "run" / "split.json") == prepared.manifest
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert from_dict(stored) == config
    assert len(prepared.manifest.roles[Role.CALIBRATION_B]) == 8
    again = prepare(config, str(folder), tmp_path / "again")
    assert again.split_digest == prepared.split_digest
    other = dataclasses.replace(config, split=dataclasses.replace(SPLIT, seed=1))
    assert prepare(other, str(folder), tmp_path / "other").split_digest != prepared.split_digest


def test_a_run_that_is_there_keeps_its_configuration(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    prepare(small_config(), str(folder), out)
    (out / CHECKPOINT).write_bytes(b"of that run")
    prepare(small_config(seed=5), str(folder), out)
    assert json.loads((out / "config.json").read_text()) == to_dict(small_config())


def test_an_alpha_that_cannot_be_tested_is_refused_before_the_training(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(AlphaTooSmallError, match="8 calibration images are available, 19 are"):
        prepare(small_config(alpha=0.05), str(folder), tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_said(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"out is .*file/run, which cannot be made"):
        prepare(small_config(), str(folder), tmp_path / "file" / "run")


def test_the_same_seed_builds_the_same_model() -> None:
    first, second = (build_model(tiny_config(), 3).state_dict() for _ in range(2))
    other = build_model(tiny_config(seed=1), 3).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["mixture.means"], other["mixture.means"])


def test_a_folder_of_images_trains(folder: Path, tmp_path: Path) -> None:
    config = small_config()
    out = tmp_path / "run"
    prepared = prepare(config, str(folder), out)
    fabric = Hardware(accelerator="cpu").fabric()
    trained = train_model(config, prepared, out, fabric=fabric, progress=Recorder())
    assert trained is not None
    assert trained.model.mixture.classes == 2
    assert trained.steps == len(prepared.manifest.roles[Role.TRAIN]) // 4


def trained_on(prepared_digests: dict[str, str], config: FitConfig) -> Any:
    found = make_manifest()
    training = dataclasses.replace(
        found.training, config=to_dict(config), split_sha256=prepared_digests
    )
    return dataclasses.replace(found, training=training)


def test_a_bundle_is_judged_on_the_test_part_of_its_own_split(folder: Path, tmp_path: Path) -> None:
    config = small_config()
    prepared = prepare(config, str(folder), tmp_path / "run")
    digests = {role.value: digest for role, digest in prepared.manifest.sha256.items()}
    images = held_out_images(trained_on(digests, config), str(folder))
    assert {item.id for item in images.items} == set(prepared.manifest.roles[Role.TEST])
    other = write_folder(tmp_path / "other", {"bolt": 20, "nut": 20}, first_seed=500)
    with pytest.raises(DataError, match="may have been trained on; give the data of the training"):
        held_out_images(trained_on(digests, config), str(other))


def test_a_test_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    counts = {"train/bolt": 3, "train/nut": 3, "test/bolt": 2, "test/nut": 2}
    data = write_folder(tmp_path / "data", counts)
    images = held_out_images(trained_on({}, small_config()), str(data))
    assert len(images) == 4


@pytest.mark.parametrize(("accelerator", "devices"), [("abacus", 1), ("cpu", 0), ("cpu", -3)])
def test_hardware_that_is_not_there_is_said(accelerator: str, devices: int) -> None:
    with pytest.raises(ConfigError, match=f"accelerator is '{accelerator}' with {devices} devices"):
        Hardware(accelerator=accelerator, devices=devices).fabric()


def test_torchrun_decides_on_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match=r"--devices is 3 and torchrun has started 2 .*leave"):
        Hardware(accelerator="cpu", devices=3).fabric()


def test_of_many_processes_only_the_first_writes_the_folder(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = prepare(small_config(), str(folder), out)
    for path in out.iterdir():
        path.unlink()
    second = prepare(small_config(), str(folder), out, write=False)
    assert second.split_digest == first.split_digest
    assert not list(out.iterdir())


def test_restarts_that_would_find_dead_processes_are_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    with pytest.raises(ConfigError, match="set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        Hardware(accelerator="cpu").fabric()
