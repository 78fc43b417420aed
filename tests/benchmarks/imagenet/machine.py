"""What a benchmark ran on, and with what."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks.imagenet.figures import Figure

PACKAGES = ("torch", "openvino", "onnxruntime", "timm", "numpy", "pillow", "grpcio")
BUSY = 0.5
"""Load average above which another program is at work."""


def described(threads: int) -> list[Figure]:
    """Machine, versions and date."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    said = {
        "date": (datetime.now(UTC).isoformat(timespec="seconds"), "start, UTC"),
        "cpu": (_cpu(), "as the kernel names it"),
        "cores": (len(os.sched_getaffinity(0)), "that this process may use"),
        "threads": (threads, "of one forward pass, in every engine"),
        "memory_gb": (round(memory_gb, 1), "of the machine"),
        "system": (f"{platform.system()} {platform.machine()}", "platform"),
        "python": (platform.python_version(), "the interpreter"),
        "compiler": (shutil.which("g++") or "none", "for the engine compile"),
    }
    for name in PACKAGES:
        said[name] = (_version(name), "installed version")
    return [
        Figure(name=f"machine.{name}", value=value, how=how) for name, (value, how) in said.items()
    ]


def load_average(when: str) -> Figure:
    """Runnable processes over the last minute.

    Args:
        when: ``before`` or ``after``.
    """
    return Figure(
        name=f"machine.load_average.{when}",
        value=round(os.getloadavg()[0], 2),
        how=f"of one minute, {when} the measurements; above {BUSY} before them, other programs "
        "ran beside",
    )


def accelerator() -> str:
    """Name of the accelerator, or "none"."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def _cpu() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
