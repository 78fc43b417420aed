"""Writes the files that are made by programs: recording rules and dashboards.

python -m deployment.monitoring.generate           writes them
python -m deployment.monitoring.generate --check   exit code 1 where one is not current
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from deployment.monitoring import recording
from deployment.monitoring.pages.calibration import CALIBRATION
from deployment.monitoring.pages.decisions import DECISIONS
from deployment.monitoring.pages.models import MODELS
from deployment.monitoring.pages.ood import OOD
from deployment.monitoring.pages.service import SERVICE

FOLDER = Path(__file__).parent
DASHBOARDS = (SERVICE, OOD, CALIBRATION, DECISIONS, MODELS)


def made() -> Iterator[tuple[Path, str]]:
    """Every file with its text."""
    yield FOLDER / "rules" / "recording.yml", recording.text()
    for dashboard in DASHBOARDS:
        yield FOLDER / "dashboards" / f"{dashboard.name}.json", dashboard.text()


def outdated() -> tuple[Path, ...]:
    """The files that are missing or say something else."""
    return tuple(
        path
        for path, text in made()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    )


def main() -> int:
    """The exit code."""
    if sys.argv[1:] == ["--check"]:
        for path in outdated():
            print(
                f"{path.relative_to(Path.cwd())} is not current; run "
                "python -m deployment.monitoring.generate",
                file=sys.stderr,
            )
        return 1 if outdated() else 0
    for path, text in made():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
