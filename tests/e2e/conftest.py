"""One run of `make loop` for all tests that look at it."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOOP_WITHIN_S = 15 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopRun:
    """A run of the loop that has ended.

    Attributes:
        out: What it left.
        exit_code: 0 if all came out as it must.
        said: What it printed.
        seconds: How long it took.
    """

    out: Path
    exit_code: int
    said: str
    seconds: float


@pytest.fixture(scope="session")
def loop_run(mnist_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> LoopRun:
    """`make loop` in a folder of its own, the base model trained anew; about six minutes."""
    out = tmp_path_factory.mktemp("loop") / "out"
    command = (sys.executable, "-m", "ibinn.loop", "--out", str(out), "--data", mnist_dir.parent)
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=LOOP_WITHIN_S, check=False
    )
    seconds = time.monotonic() - began
    print(done.stdout)
    return LoopRun(
        out=out, exit_code=done.returncode, said=done.stdout + done.stderr, seconds=seconds
    )
