"""Whether configuration, rules, their unit tests and the dashboards are right.

    python -m deployment.monitoring.check

Exit code 1 where something is wrong. Without promtool (of Debian's package `prometheus`) its parts
are left out with a message, except where the variable CI says true: there it is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from deployment.monitoring import generate

FOLDER = generate.FOLDER


def commands(promtool: str) -> Iterator[tuple[str, ...]]:
    """What promtool is to check."""
    yield promtool, "check", "config", str(FOLDER / "prometheus.yml")
    yield promtool, "check", "rules", *_files("rules")
    # One process for each file, so that they share the cores.
    for path in _files("tests"):
        yield promtool, "test", "rules", path


def main() -> int:
    """The exit code."""
    outdated = generate.outdated()
    for path in outdated:
        print(
            f"monitoring: {path.relative_to(FOLDER)} is not current; run "
            "python -m deployment.monitoring.generate",
            file=sys.stderr,
        )
    promtool = shutil.which("promtool")
    if promtool is not None:
        return 1 if _failed(promtool) or outdated else 0
    required = os.environ.get("CI", "").lower() in ("1", "true")
    print(
        "monitoring: rules and their tests are "
        + ("not checked, which is a failure here: " if required else "NOT checked: ")
        + "promtool is not on the PATH; install Debian's package prometheus",
        file=sys.stderr,
    )
    return 1 if required or outdated else 0


def _failed(promtool: str) -> bool:
    running = [
        (
            " ".join(command),
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True),
        )
        for command in commands(promtool)
    ]
    failed = False
    for command, process in running:
        said = process.communicate()[0]
        if process.returncode:
            failed = True
            print(f"monitoring: {command} failed:\n{said}", file=sys.stderr)
    return failed


def _files(folder: str) -> tuple[str, ...]:
    return tuple(str(path) for path in sorted(Path(FOLDER / folder).glob("*.yml")))


if __name__ == "__main__":
    sys.exit(main())
