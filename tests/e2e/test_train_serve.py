"""From data to answers with the real commands: doctor, fit, kill, resume, serve, classify."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

from ibinn import bundle
from ibinn.client import Client
from ibinn.types import Prediction
from training import checkpoint as checkpoints
from training.checkpoint import Checkpoint, CurvePoint
from training.data import open_data

BIN = Path(sys.executable).parent
TIMEOUT_S = 540

TINY = (
    *("--recipe", "digits", "--data", "digits", "--accelerator", "cpu"),
    *("--set", "architecture.widths=[8, 8]", "--set", "architecture.blocks=[1, 1]"),
    *("--set", "epochs=4", "--set", "batch_size=8", "--set", "checkpoint_every_s=0"),
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * TIMEOUT_S)]


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment to its end."""
    name, *arguments = map(str, command)
    return subprocess.run(
        [str(BIN / name), *arguments], capture_output=True, text=True, timeout=TIMEOUT_S
    )


@contextmanager
def started(*command: object, stream: str = "stderr") -> Iterator[subprocess.Popen[str]]:
    """A command of this environment that goes on until the test ends it."""
    name, *arguments = map(str, command)
    process = subprocess.Popen(
        [str(BIN / name), *arguments],
        stdout=subprocess.PIPE if stream == "stdout" else subprocess.DEVNULL,
        stderr=subprocess.PIPE if stream == "stderr" else subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """The first line of a command's output that the pattern fits."""
    stream = process.stderr or process.stdout
    assert stream is not None
    lines = []
    for line in stream:
        lines.append(line)
        if match := re.search(pattern, line):
            return match
    raise AssertionError(f"ended without {pattern!r}: {''.join(lines)}")


def digit(path: Path, index: int) -> Path:
    """A test image as people would have it: a PNG of a digit."""
    Image.fromarray(open_data("digits").train.load(index)).save(path)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the recipe for digits."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    before = time.monotonic()
    result = run("ibinn-train", "fit", "--recipe", "digits", "--data", "digits", "--out", out)
    print(f"fit --recipe digits took {time.monotonic() - before:.0f} s")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "written: " in result.stdout
    return out


def test_the_doctor_says_what_the_digits_can_promise() -> None:
    result = run("ibinn-train", "doctor", "digits", "--recipe", "digits")
    assert result.returncode == 0, result.stderr
    assert "1,797" in result.stdout
    assert "α" in result.stdout


def test_fit_leaves_a_verified_bundle_with_its_report(trained: Path) -> None:
    found = bundle.verify(trained / "bundle")
    assert set(found.files) >= {"weights.safetensors", "reference.safetensors", "report.html"}
    assert found.metrics["top1"] >= 0.95
    assert found.training.command.startswith("ibinn-train fit --recipe digits")
    page = (trained / "bundle" / "report.html").read_text(encoding="utf-8")
    assert "<html" in page
    # It opens without a network.
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert json.loads((trained / "bundle" / "report.json").read_text(encoding="utf-8"))
    size = sum(path.stat().st_size for path in (trained / "bundle").iterdir())
    assert size < 16 * 2**20


def test_the_server_answers_with_the_trained_model(trained: Path, tmp_path: Path) -> None:
    # Digits that the model has not been trained on.
    split = json.loads((trained / "split.json").read_text(encoding="utf-8"))
    held_out = set(split["roles"]["test"])
    digits = open_data("digits").train
    chosen = [i for i, item in enumerate(digits.items) if item.id in held_out][:10]
    paths = [digit(tmp_path / f"{index}.png", index) for index in chosen]
    local = bundle.load(trained / "bundle")
    serve = ("--bundle", trained / "bundle", "--port", "0", "--metrics-port", "0")
    with started("ibinn-serve", *serve, stream="stdout") as server:
        address = read_until(server, r"grpc=(127\.0\.0\.1:\d+)")[1]

        shown = run("ibinn", "classify", *paths, "--server", address, "--json")
        assert shown.returncode == 0, shown.stderr

        with Client(address) as client:
            answers = [client.classify(path) for path in paths]
            explanation = client.explain(paths[0])
            assert client.model() == local.info

        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0

    right = 0
    for index, path, answer in zip(chosen, paths, answers, strict=True):
        expected = local.classify(path)
        assert isinstance(expected, Prediction)
        assert answer.top.name == expected.top.name
        assert answer.top.probability == pytest.approx(expected.top.probability, abs=1e-4)
        assert (answer.verdict, answer.versions) == (expected.verdict, expected.versions)
        assert answer.receipt is not None
        assert f'"{answer.verdict}"' in shown.stdout
        right += answer.top.name == digits.class_names[digits.items[index].label]
    assert right >= 8
    for heatmap in explanation.heatmaps:
        assert heatmap.completeness_error < 1e-3


def test_a_bundle_is_evaluated_again_on_the_same_test_images(trained: Path, tmp_path: Path) -> None:
    result = run(
        "ibinn-train", "evaluate", trained / "bundle", "--data", "digits", "--out", tmp_path
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "report.html").exists()
    first = json.loads((trained / "bundle" / "report.json").read_text(encoding="utf-8"))
    again = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert again["test_name"] == first["test_name"]
    top1 = f"{bundle.verify(trained / 'bundle').metrics['top1']:.4g}"
    assert re.search(rf"top1\s+{re.escape(top1)}\b", result.stdout)


def figures(curve: tuple[CurvePoint, ...]) -> list[CurvePoint]:
    return [dataclasses.replace(point, images_per_s=0.0, loader_share=0.0) for point in curve]


def trained_and_killed(out: Path) -> Checkpoint:
    """Run the tiny recipe to the end of its training, and not on to the report."""
    with started("ibinn-train", "fit", *TINY, "--out", out) as process:
        read_until(process, "calibrating")
    return checkpoints.load(out / "checkpoint.pt")


def test_a_run_killed_at_a_random_moment_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    before = time.monotonic()
    whole = trained_and_killed(tmp_path / "whole")
    seconds = whole.seconds
    assert time.monotonic() - before > seconds

    out = tmp_path / "killed"
    killed_at = []
    for _ in range(2):
        with started("ibinn-train", "fit", *TINY, "--out", out) as process:
            read_until(process, "^(epoch|going on)")
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=random.uniform(0.0, seconds / 4))
            process.send_signal(signal.SIGKILL)
            assert process.wait(timeout=60) == -signal.SIGKILL
        killed_at.append(checkpoints.load(out / "checkpoint.pt").step)
    print(f"killed after the checkpoints of steps {killed_at} of {whole.step}")
    resumed = trained_and_killed(out)

    assert killed_at[0] < whole.step
    assert resumed.step == whole.step
    assert figures(resumed.curve) == figures(whole.curve)
    for name, value in whole.average.items():
        assert torch.equal(resumed.average[name], value), name
    lines = (out / "curve.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [point.step for point in whole.curve]


def test_two_processes_train_together_stop_together_and_go_on(tmp_path: Path) -> None:
    command = ("ibinn-train", "fit", *TINY, "--devices", "2", "--out", tmp_path)
    stopped = run(*command, "--stop-after", "0")
    assert stopped.returncode == 1, stopped.stderr
    first = checkpoints.load(tmp_path / "checkpoint.pt")
    assert first.step == 50
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    last = checkpoints.load(tmp_path / "checkpoint.pt")
    assert last.curve[0] == first.curve[0]
    assert last.step == 4 * 98
    assert last.curve[-1].loss < last.curve[0].loss
    assert bundle.verify(tmp_path / "bundle").metrics["top1"] > 0.5
