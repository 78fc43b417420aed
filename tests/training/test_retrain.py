"""Retraining from a service's export to a bundle, on digits whose nine the base never saw."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from ibinn import bundle as bundles
from ibinn.manifest import Manifest
from ibinn.records import OUT_OF_SCOPE
from tests.training.feedback import Exporter, Said
from training.cli import app
from training.config import override
from training.console import Console
from training.data import open_data
from training.finish import write_calibrated
from training.fit import Hardware, prepare, train_model
from training.recipes import recipe
from training.retraining.composed import recorded_split
from training.retraining.record import read_record
from training.roles import known_roles, roles_of
from training.splits import Role

pytestmark = pytest.mark.slow

SETTINGS = (
    "architecture.side=8",
    "preprocessing.side=8",
    "architecture.widths=[16]",
    "architecture.blocks=[3]",
    "epochs=8",
    "alpha=0.1",
)
FINE_TUNING = ("--set=epochs=8", "--set=optimizer.learning_rate=0.006")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A base model without the nine, its data, and an export that brings it."""

    data: Path
    base: Path
    export: Path
    manifest: Manifest


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    digits = open_data("digits").train
    rng = np.random.default_rng(0)
    later = []
    for index, item in enumerate(digits.items):
        if item.label == 9 or rng.random() < 0.2:
            later.append(index)
            continue
        path = root / "data" / str(item.label) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.load(index)).save(path)
    config = override(recipe("digits"), SETTINGS)
    run = root / "base"
    prepared = prepare(config, str(root / "data"), run)
    fabric = Hardware(accelerator="cpu").fabric()
    with Console(run, quiet=True) as console:
        trained = train_model(config, prepared, run, fabric=fabric, progress=console)
    assert trained is not None
    manifest, _ = write_calibrated(
        trained, config, prepared, run, command="fit", device=torch.device("cpu")
    )
    export = Exporter()
    for index in rng.permutation(later):
        export.add(digits.load(index), Said(truth=str(digits.items[index].label)))
    export.add(np.full((8, 8, 3), 200, np.uint8), Said(truth=OUT_OF_SCOPE))
    export.write(root / "export")
    return World(data=root / "data", base=run / "bundle", export=root / "export", manifest=manifest)


def retrain(world: World, out: Path, *more: str) -> Result:
    return CliRunner().invoke(
        app,
        [
            "retrain",
            f"--feedback={world.export}",
            f"--base={world.base}",
            f"--data={world.data}",
            f"--out={out}",
            "--trust=inspection/*",
            "--accelerator=cpu",
            "--no-report",
            *more,
        ],
    )


@pytest.fixture(scope="module")
def retrained(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    stopped = retrain(world, out, *FINE_TUNING, "--stop-after=0.01")
    assert stopped.exit_code == 1, stopped.output
    result = retrain(world, out, *FINE_TUNING)
    assert result.exit_code == 0, result.output
    return out


def test_a_stopped_run_goes_on_to_a_bundle_that_knows_the_new_class(
    world: World, retrained: Path
) -> None:
    classifier = bundles.load(retrained / "bundle")
    assert classifier.info.classes == tuple("0123456789")
    assert classifier.info.versions.taxonomy == "2"
    outcome = json.loads((retrained / "outcome.json").read_text())
    assert outcome["feedback"]["before"]["recall"]["9"] == 0.0
    assert outcome["feedback"]["after"]["recall"]["9"] >= 0.9
    assert outcome["old"]["after"]["accuracy"] >= outcome["old"]["before"]["accuracy"] - 0.05
    assert (retrained / "retraining.html").read_text().count("Before and after") == 1


def test_the_bundle_says_what_it_was_made_of(world: World, retrained: Path) -> None:
    record = read_record(retrained / "bundle")
    assert record is not None
    assert record["base"]["weights"] == world.manifest.weights_digest
    assert record["base"]["calibration"] == world.manifest.calibration_digest
    assert record["export"]["ledger"] == {
        "sequence": 2 * record["export"]["count"],
        "hash": "e" * 64,
    }
    assert record["taxonomy"]["added"]["9"] > 100
    assert record["apart"][0]["kind"] == "out_of_scope"
    manifest = bundles.verify(retrained / "bundle")
    assert "retraining.json" in manifest.files
    assert "images of feedback up to entry" in manifest.training_data


def test_old_images_keep_their_roles_and_the_data_opens_again(
    world: World, retrained: Path
) -> None:
    data = str(retrained / "data")
    manifest = bundles.verify(retrained / "bundle")
    roles = roles_of(manifest, data)
    before = roles_of(world.manifest, str(world.data))
    for role in Role:
        assert {i.id for i in before[role].items} <= {i.id for i in roles[role].items}
    assert len(known_roles(manifest, data)[Role.TEST]) == len(roles[Role.TEST])
    split = recorded_split(data)
    assert split is not None
    trained_on = set(split.roles[Role.TRAIN])
    for role in (Role.CALIBRATION_A, Role.CALIBRATION_B, Role.TEST):
        assert not trained_on & {item.id for item in before[role].items}


def test_a_retrained_model_can_be_retrained(world: World, retrained: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    export = Exporter()
    digits = open_data("digits").train
    for index in range(0, 200):
        pixels = digits.load(index).astype(np.int16)
        noisy = np.clip(pixels + rng.normal(0, 60, pixels.shape), 0, 255).astype(np.uint8)
        export.add(noisy, Said(truth=str(digits.items[index].label)))
    again = World(
        data=retrained / "data",
        base=retrained / "bundle",
        export=export.write(tmp_path / "export"),
        manifest=bundles.verify(retrained / "bundle"),
    )
    result = retrain(again, tmp_path / "run", "--set=epochs=1", "--replay=0.5")
    assert result.exit_code == 0, result.output
    record = read_record(tmp_path / "run")
    assert record is not None
    assert record["taxonomy"]["version"] == "2"
    first = read_record(retrained)
    assert first is not None
    assert record["recipe"] == first["recipe"]
    assert record["replay"]["left_out"] > 0


def test_from_scratch_the_recipe_is_the_bases(world: World, tmp_path: Path) -> None:
    result = retrain(world, tmp_path / "run", "--mode=scratch", "--set=epochs=1")
    assert result.exit_code == 0, result.output
    manifest = bundles.verify(tmp_path / "run" / "bundle")
    assert len(manifest.classes) == 10
    assert manifest.training.config["optimizer"] == world.manifest.training.config["optimizer"]


def test_a_folder_of_another_run_is_refused(world: World, retrained: Path) -> None:
    result = retrain(world, retrained, *FINE_TUNING, "--replay=0.5")
    assert result.exit_code == 2
    assert "holds a run with another rule 'replay' (1.0, this one has 0.5)" in result.stderr
    result = retrain(world, retrained, "--set=epochs=6")
    assert "another configuration" in result.stderr


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--mode=fresh", "--mode is 'fresh'; expected fine-tune or scratch"),
        ("--calibrate-on=none", "--calibrate-on is 'none'; expected known or all"),
        ("--share=0", "--share is 0.0; expected a number in (0, 1]"),
        ("--set=split.test=0.3", "--set changes split, which is the base model's"),
        ("--set=architecture.widths=[8]", "or use --mode scratch"),
        ("--data=digits", "give the data of the training run"),
        ("--feedback=nowhere", "is no finished export"),
        ("--base=nowhere", "no model bundle at nowhere"),
        ("--trusted-sources=nowhere", "trusted sources: nowhere cannot be read"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    world: World, tmp_path: Path, option: str, said: str
) -> None:
    result = retrain(world, tmp_path / "run", option)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_without_trusted_or_checked_sources_nothing_is_trained(
    world: World, tmp_path: Path
) -> None:
    arguments = [
        "retrain",
        f"--feedback={world.export}",
        f"--base={world.base}",
        f"--data={world.data}",
        f"--out={tmp_path / 'run'}",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "none is left to train with (left out: quarantine" in result.stderr
