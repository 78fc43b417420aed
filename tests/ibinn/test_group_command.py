"""`ibinn judge-group` on folders, with the tiny model of the digits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from ibinn.group_command import judge_group
from tests.ibinn.bundles import write_bundle
from training.data import open_data

app = typer.Typer()
app.command()(judge_group)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits that served no calibration."""
    folder = tmp_path_factory.mktemp("usual")
    digits = open_data("digits").train
    order = np.random.default_rng(0).permutation(len(digits))
    for i in order[200:240]:
        Image.fromarray(digits.load(int(i))).save(folder / f"{i:04d}.png")
    return folder


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    rng = np.random.default_rng(1)
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_a_folder_of_usual_images_is_not_flagged_and_one_of_noise_is(bundle, usual, odd):
    result = run(usual, odd, "--bundle", bundle)
    assert result.exit_code == 0, result.output
    first, second = result.output.split(str(odd), 1)
    assert "NOT FLAGGED" in first
    assert "40 images" in first
    assert "No image is named unknown" in first
    assert "UNLIKE THE CALIBRATION IMAGES" in second
    assert "combined.excess" in second


def test_as_json_there_is_one_object_per_folder_with_the_unknown_images(bundle, usual, odd):
    result = run(usual, odd, "--bundle", bundle, "--json", "--q", "0.3")
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert first["folder"] == str(usual)
    assert not first["answer"]["flagged"]
    assert second["answer"]["flagged"]
    assert second["answer"]["count"] == 12
    assert len(second["unknown"]) == 12
    assert all(image["p_adjusted"] <= 0.3 for image in second["unknown"])
    assert second["answer"]["tests"][0]["name"] == "log_q_x.typicality"


def test_files_that_are_no_images_are_told_and_the_others_judged(bundle, usual, tmp_path):
    for path in list(usual.iterdir())[:5]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "broken.png").write_bytes(b"nothing")
    result = run(tmp_path, "--bundle", bundle)
    assert result.exit_code == 1
    assert "broken.png" in result.stderr
    assert "5 images" in result.stdout


def test_what_cannot_be_judged_is_refused_with_code_2(bundle, usual, tmp_path):
    for arguments, message in (
        ((tmp_path / "nowhere", "--bundle", bundle), "is not a folder"),
        ((tmp_path, "--bundle", bundle), "holds 0 images"),
        ((usual, "--bundle", bundle, "--q", "2"), "false discovery rate q is 2"),
        ((usual, "--bundle", bundle, "--alpha", "0"), "significance α is 0"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2
        assert message in result.stderr
    uncalibrated = tmp_path / "bundle"
    write_bundle(uncalibrated, calibrated=False)
    result = run(usual, "--bundle", uncalibrated)
    assert result.exit_code == 2
    assert "is not calibrated" in result.stderr
