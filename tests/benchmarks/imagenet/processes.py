"""Memory of a request, loading, and cold start, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.imagenet import child, material
from tests.benchmarks.imagenet.blocks import Spread
from tests.benchmarks.imagenet.child import Life
from tests.benchmarks.imagenet.figures import Figure
from tests.faults.server import real_server

ROOT = Path(__file__).resolve().parents[3]
ALLOWANCE_MB = 200.0
"""Accepted above twice the weights' size."""


def life(folder: Path, photograph: Path, engine: str) -> Life:
    """A child's life, see `child`.

    Args:
        folder: The bundle; its files are read once before, so that they are in memory.
        photograph: What it classifies.
        engine: Of `ibinn.inference`.
    """
    for file in folder.iterdir():
        file.read_bytes()
    found = subprocess.run(
        [sys.executable, "-m", child.__name__, str(folder), str(photograph), engine],
        cwd=ROOT,
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    return Life(**json.loads(found.stdout.splitlines()[-1]))


def measure(folder: Path, name: str, *, engines: Sequence[str], times: int) -> list[Figure]:
    """Figures ``memory.NAME.*`` and ``load.NAME.*``.

    Args:
        folder: The bundle.
        name: Of the model in the figures.
        engines: The first is what a server takes; its memory is held against the bound.
        times: Children for the first engine; the others get one.
    """
    figures = []
    for engine in engines:
        with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
            file.write(material.photographs()[0])
            file.flush()
            count = times if engine == engines[0] else 1
            lives = [life(folder, Path(file.name), engine) for _ in range(count)]
        first = lives[0]
        above = Spread.of([one.peak_mb - one.idle_mb for one in lives])
        mark = "" if engine == engines[0] else f".{engine}"
        of = f"{count} children, engine {first.engine}"
        figures += [
            Figure.of(
                f"memory.{name}{mark}.request_mb",
                above,
                "MB",
                how="peak of loading and one request, above an idle process with torch imported; "
                + of,
            ),
            Figure.of(
                f"memory.{name}{mark}.loaded_mb",
                Spread.of([one.loaded_mb - one.idle_mb for one in lives]),
                "MB",
                how=f"in memory after loading, above the idle process; {of}",
            ),
            Figure.of(
                f"load.{name}{mark}.seconds",
                Spread.of([one.load_s - one.form_s for one in lives]),
                "s",
                how=f"loading the bundle from files in memory, without making the form; {of}",
            ),
            Figure.of(
                f"load.{name}{mark}.form_s",
                Spread.of([one.form_s for one in lives]),
                "s",
                how=f"making the form; {of}",
            ),
            Figure.of(
                f"load.{name}{mark}.first_request_s",
                Spread.of([one.request_s for one in lives]),
                "s",
                how=f"the first request after loading; {of}",
            ),
        ]
        if engine == engines[0]:
            bound = 2 * first.weights_mb + ALLOWANCE_MB
            figures.append(
                Figure(
                    name=f"memory.{name}.above_bound",
                    value=above.median - bound,
                    unit="MB",
                    how=f"request_mb less {bound:.0f} MB, twice the {first.weights_mb:.0f} MB of "
                    f"weights and {ALLOWANCE_MB:.0f} MB",
                )
            )
    return figures


def cold_start(folder: Path | None, name: str, *, times: int) -> list[Figure]:
    """Figure ``cold_start.NAME.seconds``: from starting `ibinn-serve` to its line that it is ready.

    Args:
        folder: The bundle; None: the embedded one.
        name: Of the model in the figures.
        times: Starts.
    """
    settings = {} if folder is None else {"bundle": folder}
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        with real_server(**settings):
            taken.append(time.perf_counter() - start)
    return [
        Figure.of(
            f"cold_start.{name}.seconds",
            Spread.of(taken),
            "s",
            how=f"ibinn-serve from the start of the process to ready, {times} starts, files in "
            "memory",
        )
    ]
