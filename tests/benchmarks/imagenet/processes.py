"""Memory of a request, loading, and cold start, in processes of their own.

    python -m tests.benchmarks.imagenet.processes BUNDLE ENGINE

A child imports torch, loads a bundle, classifies one photograph, and says in JSON what it took. Its
peak is the kernel's: the most that lay in memory at any time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.imagenet.blocks import Spread
from tests.benchmarks.imagenet.figures import Figure
from tests.faults.server import real_server

ROOT = Path(__file__).resolve().parents[3]
MB = 1e6
ALLOWANCE_MB = 200.0
"""Accepted above twice the weights' size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What a child said.

    Attributes:
        engine: What computed.
        idle_mb: In memory with torch imported.
        loaded_mb: In memory after loading.
        peak_mb: Most at any time, up to after the request.
        load_s: Loading, making the form included.
        form_s: Of it, making the form.
        request_s: The first request.
        weights_mb: Size of the parameters and buffers.
    """

    engine: str
    idle_mb: float
    loaded_mb: float
    peak_mb: float
    load_s: float
    form_s: float
    request_s: float
    weights_mb: float


def life(folder: Path, engine: str) -> Life:
    """A child's life.

    Args:
        folder: The bundle; its files are read once before, so that they are in memory.
        engine: Of `ibinn.inference`.
    """
    for file in folder.iterdir():
        file.read_bytes()
    found = subprocess.run(
        [sys.executable, "-m", __name__, str(folder), engine],
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
        times: Children for each engine.
    """
    figures = []
    for engine in engines:
        lives = [life(folder, engine) for _ in range(times)]
        first = lives[0]
        above = Spread.of([one.peak_mb - one.idle_mb for one in lives])
        mark = "" if engine == engines[0] else f".{engine}"
        of = f"{times} children, engine {first.engine}"
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


# ---------------------------------------------------------------------------- inside the child


def _lead(folder: Path, engine: str) -> Life:
    import torch

    from ibinn import bundle
    from ibinn.inference import ENGINES
    from tests.benchmarks.imagenet import material

    (chosen,) = (known for known in ENGINES if known == engine)
    photograph = material.photographs()[0]
    torch.ones(64, 64) @ torch.ones(64, 64)  # what starts with the first product is not ours
    idle = _status_mb("VmRSS")
    start = time.perf_counter()
    classifier = bundle.load(folder, engine=chosen)
    loaded = time.perf_counter()
    loaded_mb = _status_mb("VmRSS")
    classifier.classify(photograph)
    ended = time.perf_counter()
    state = (*classifier.model.parameters(), *classifier.model.buffers())
    return Life(
        engine=classifier.form.engine if classifier.form else "plain",
        idle_mb=idle,
        loaded_mb=loaded_mb,
        peak_mb=_status_mb("VmHWM"),
        load_s=loaded - start,
        form_s=classifier.form.seconds if classifier.form else 0.0,
        request_s=ended - loaded,
        weights_mb=sum(tensor.nbytes for tensor in state) / MB,
    )


def _status_mb(entry: str) -> float:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(f"{entry}:"):
            return int(line.split()[1]) * 1024 / MB
    raise RuntimeError(f"/proc/self/status has no {entry}; this needs Linux")


if __name__ == "__main__":
    print(json.dumps(asdict(_lead(Path(sys.argv[1]), sys.argv[2]))))
