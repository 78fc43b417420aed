"""The command `ibinn-train`: one line and exit code 2 for everything that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ibinn import manifest
from tests.ibinn.bundles import write_bundle
from tests.training.image_folders import write_folder
from training.cli import app
from training.recipes import RECIPES

TINY = (
    "--recipe=digits",
    "--accelerator=cpu",
    "--set=architecture.side=8",
    "--set=preprocessing.side=8",
    "--set=architecture.widths=[4]",
    "--set=architecture.blocks=[1]",
    "--set=batch_size=4",
    "--set=epochs=3",
    "--set=alpha=0.3",
)


def ibinn_train(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def refused(*arguments: str) -> str:
    """The one line that the command says before it ends with exit code 2."""
    result = ibinn_train(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    line, *rest = result.stderr.splitlines()
    assert rest == []
    assert line.startswith("ibinn-train: ")
    return line


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data", {"bolt": 20, "nut": 20})


def fit(data: Path | str, out: Path, *more: str) -> tuple[str, ...]:
    return ("fit", *TINY, f"--data={data}", f"--out={out}", *more)


def test_recipes_are_listed_with_what_they_are() -> None:
    result = ibinn_train("recipes")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(RECIPES)
    assert "solar cells" in result.stdout


def test_a_recipe_is_shown_whole() -> None:
    result = ibinn_train("recipes", "--show", "digits")
    assert json.loads(result.stdout)["optimizer"]["name"] == "muon"
    assert "there are: digits" in refused("recipes", "--show", "nothing")


def test_an_unknown_recipe_and_key_are_named(data: Path, tmp_path: Path) -> None:
    line = refused("fit", "--recipe=nothing", f"--data={data}", f"--out={tmp_path / 'run'}")
    assert "recipe is 'nothing'; there are: digits, cifar10-small" in line
    line = refused(*fit(data, tmp_path / "run", "--set", "epohcs=3"))
    assert "unknown key 'epohcs'; there are: accumulate, alpha" in line
    line = refused(*fit(data, tmp_path / "run", "--set", "epochs=few"))
    assert "epochs is 'few'" in line
    assert not (tmp_path / "run").exists()


def test_data_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    one_class = write_folder(tmp_path / "one", {"bolt": 3})
    line = refused(*fit(one_class, tmp_path / "run"))
    assert "has one class only (bolt); a classifier needs at least two" in line
    line = refused(*fit(tmp_path / "nowhere", tmp_path / "run"))
    assert "does not exist; expected a folder with one subfolder per class" in line


def test_an_unreadable_file_is_named_or_skipped_and_counted(data: Path, tmp_path: Path) -> None:
    (data / "nut" / "broken.png").write_bytes(b"not an image")
    line = refused(*fit(data, tmp_path / "run"))
    assert "1 of 41 files cannot be read: nut/broken.png (" in line
    assert "--skip-unreadable" in line
    result = ibinn_train(*fit(data, tmp_path / "run", "--skip-unreadable", "--stop-after=0"))
    assert result.exit_code == 1, result.output
    assert "1 unreadable files skipped, such as nut/broken.png: " in result.stderr
    assert "data: 2 classes; images: " in result.stderr
    assert "the same command goes on from here" in result.stderr


def test_a_run_that_was_stopped_goes_on(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stop = ibinn_train(*fit(data, out, "--stop-after=0"))
    assert stop.exit_code == 1, stop.output
    curve = (out / "curve.jsonl").read_text()
    steps = [json.loads(line)["step"] for line in curve.splitlines()]
    # What a killed run wrote after its checkpoint is written again, once.
    (out / "curve.jsonl").write_text(curve + curve.replace(f'"step": {steps[-1]}', '"step": 99'))
    other = ibinn_train(*fit(data, out, "--set=seed=3"))
    assert other.exit_code == 2
    assert "checkpoint.pt: written by a run with another configuration" in other.stderr
    assert "going on" not in other.stderr
    again = ibinn_train(*fit(data, out, "--stop-after=0", "--set=checkpoint_every_s=1e9"))
    assert f"going on after step {steps[-1]}" in again.stderr
    found = [json.loads(line)["step"] for line in (out / "curve.jsonl").read_text().splitlines()]
    assert found == [steps[0], 2 * steps[0]]


def test_an_accelerator_that_is_not_there_is_said(data: Path, tmp_path: Path) -> None:
    line = refused(*fit(data, tmp_path / "run", "--accelerator=abacus"))
    assert "accelerator is 'abacus' with 1 devices" in line


def test_too_small_an_alpha_is_refused_before_the_training(data: Path, tmp_path: Path) -> None:
    line = refused(*fit(data, tmp_path / "run", "--set=alpha=0.01"))
    assert "calibration images are available, 99 are needed" in line


def test_a_bundle_that_cannot_be_used_is_said(data: Path, tmp_path: Path) -> None:
    arguments = (f"--data={data}", f"--out={tmp_path / 'report'}")
    assert "no model bundle at" in refused("evaluate", str(tmp_path / "nowhere"), *arguments)
    write_bundle(tmp_path / "bundle")
    (tmp_path / "bundle" / manifest.FILE).write_text("{}")
    line = refused("evaluate", str(tmp_path / "bundle"), *arguments)
    assert "format version is None" in line
    assert not (tmp_path / "report").exists()


def test_the_doctor_examines_a_folder(data: Path) -> None:
    (data / "nut" / "broken.png").write_bytes(b"not an image")
    result = ibinn_train("doctor", str(data))
    assert result.exit_code == 0, result.output
    assert "broken.png" in result.stdout
    assert "has one class only" in refused("doctor", str(data / ".."))
