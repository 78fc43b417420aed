"""A process that loads a bundle, classifies one photograph, and says in JSON what it took.

    python -m tests.benchmarks.imagenet.child BUNDLE PHOTOGRAPH ENGINE

It is idle when it has imported torch and nothing else that is large; what is ours comes after. Its
peak is the kernel's: the most that lay in memory at any time.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

MB = 1e6


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


def lead(folder: Path, photograph: Path, engine: str) -> Life:
    """Load, classify, say."""
    import torch

    torch.ones(64, 64) @ torch.ones(64, 64)  # what starts with the first product is torch's own
    idle = _status_mb("VmRSS")

    from ibinn import bundle
    from ibinn.inference import ENGINES

    (chosen,) = (known for known in ENGINES if known == engine)
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
    print(json.dumps(asdict(lead(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))))
