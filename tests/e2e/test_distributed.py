"""Many processes train as one does, and go on when one of them is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.e2e import distributed_run
from training import checkpoint as checkpoints
from training.loop import CHECKPOINT

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 240
FIGURES = ("loss", "nll_per_dim", "log_posterior", "accuracy")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * WITHIN_S)]


def start(out: Path) -> subprocess.Popen[bytes]:
    """Two processes under torchrun, which starts them again if one fails."""
    out.mkdir()
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    options = ("--nproc-per-node=2", "--max-restarts=1", "-m", distributed_run.__name__, str(out))
    with (out / "log").open("wb") as log:
        return subprocess.Popen(
            [*launcher, *options],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
        )


def finished(process: subprocess.Popen[bytes], out: Path) -> dict[str, Any]:
    """What the run left."""
    try:
        code = process.wait(timeout=WITHIN_S)
    finally:
        process.kill()
        process.wait()
    assert code == 0, (out / "log").read_text()
    found: dict[str, Any] = json.loads((out / "result.json").read_text())
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing interrupted."""
    out = tmp_path_factory.mktemp("distributed") / "whole"
    finished(start(out), out)
    return out


def test_two_processes_give_the_losses_of_one(whole: Path, tmp_path: Path) -> None:
    distributed_run.main(tmp_path)
    one = json.loads((tmp_path / "result.json").read_text())
    two = json.loads((whole / "result.json").read_text())
    assert [point["step"] for point in two["curve"]] == list(range(10, 61, 10))
    worst = 0.0
    for expected, found in zip(one["curve"], two["curve"], strict=True):
        for name in (*FIGURES, "validation_accuracy", "validation_bits_per_dim"):
            worst = max(worst, abs(found[name] - expected[name]))
    print(f"largest difference of a loss or figure: {worst:.1e}")
    assert worst <= 1e-5
    # Among them batch-norm statistics that each process estimated from its part of the images.
    expected, found = torch.load(tmp_path / "weights.pt"), torch.load(whole / "weights.pt")
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_a_killed_worker_is_started_again_and_the_run_ends_as_if_nothing_was(
    whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    process = start(out)
    deadline = time.monotonic() + WITHIN_S
    while not (out / CHECKPOINT).exists():
        assert process.poll() is None, (out / "log").read_text()
        assert time.monotonic() < deadline
        try:
            process.wait(timeout=0.02)
        except subprocess.TimeoutExpired:
            continue
    (second,) = [int(p.stem) for p in out.glob("*.pid") if p.read_text() == "1"]
    began = time.monotonic()
    os.kill(second, signal.SIGKILL)
    killed_at = checkpoints.load(out / CHECKPOINT).step
    result = finished(process, out)
    print(f"killed after step {killed_at}; started again and done {time.monotonic() - began:.0f} s")
    assert killed_at < distributed_run.STEPS
    assert len(list(out.glob("*.pid"))) == 4
    # The second start did what the checkpoint did not hold.
    assert result["steps"][0] > 1
    assert result["steps"][-1] == distributed_run.STEPS
    expected = json.loads((whole / "result.json").read_text())
    for before, after in zip(expected["curve"], result["curve"], strict=True):
        for name in FIGURES:
            # Sums of two processes, added in another order.
            assert after[name] == pytest.approx(before[name], rel=1e-12)
    weights = torch.load(out / "weights.pt")
    for name, value in torch.load(whole / "weights.pt").items():
        assert torch.equal(weights[name], value), name
