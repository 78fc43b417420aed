"""Whether an advisory service knows of a vulnerability in what constraints.txt names.

A service is believed only if it knows of the old one in `CANARY`: mirrors of the package index
answer for every package and know of none. Where no service answers, or not in time, that is said
in one line and the check passes. A known vulnerability fails it, unless it is among `IGNORED`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CANARY = "jinja2==2.10"
SERVICES = ("pypi", "osv")
LIMIT_S = 60.0
CANARY_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """An advisory that does not concern this project, or that nothing can be done about yet.

    Attributes:
        advisory: Its id or an alias, such as ``PYSEC-2026-1``.
        reason: Why it is ignored.
        until: The last day on which it is.
    """

    advisory: str
    reason: str
    until: date


IGNORED: tuple[Ignored, ...] = ()


def main() -> int:
    """Prints what was found; 1 where it fails the check."""
    end = time.monotonic() + LIMIT_S
    service = next(filter(_knows_the_canary, SERVICES), None)
    if service is None:
        print("audit: no advisory service answers here; constraints.txt was not audited")
        return 0
    report = _report(ROOT / "constraints.txt", service, limit_s=end - time.monotonic())
    if report is None:
        print(f"audit: {service} did not answer within {LIMIT_S:g} s; nothing was audited")
        return 0
    failures = failing(report, IGNORED, today=datetime.now(UTC).date())
    for line in failures:
        print(f"audit: {line}", file=sys.stderr)
    print(f"audit: {summary(report)} by {service}, {len(failures)} to mend")
    return 1 if failures else 0


def failing(report: Any, ignored: Sequence[Ignored], *, today: date) -> list[str]:
    """What fails the check, a line each.

    Args:
        report: JSON of pip-audit.
        ignored: Advisories that do not count before they expire.
        today: The day.
    """
    excused = {entry.advisory for entry in ignored if entry.until >= today}
    lines = []
    for package in report["dependencies"]:
        for found in package.get("vulns", ()):
            names = {found["id"], *found.get("aliases", ())}
            if names & excused:
                continue
            expired = [entry for entry in ignored if entry.advisory in names]
            fixed = ", ".join(found.get("fix_versions", ())) or "no version yet"
            lines.append(
                f"{package['name']} {package['version']}: {found['id']}, mended in {fixed}"
                + "".join(f"; ignored until {entry.until}: {entry.reason}" for entry in expired)
            )
    return lines


def summary(report: Any) -> str:
    """How many packages were looked up, and how many the service does not know."""
    unknown = sum("skip_reason" in package for package in report["dependencies"])
    known = len(report["dependencies"]) - unknown
    return f"{known} packages audited" + (f", {unknown} unknown" if unknown else "")


def _knows_the_canary(service: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"{CANARY}\n")
        report = _report(requirements, service, limit_s=CANARY_LIMIT_S)
    return report is not None and any(package.get("vulns") for package in report["dependencies"])


def _report(requirements: Path, service: str, *, limit_s: float) -> Any:
    """What pip-audit says, as JSON; None where the service does not answer in time."""
    command = [
        *(sys.executable, "-m", "pip_audit", "--requirement", str(requirements)),
        *("--no-deps", "--disable-pip", "--vulnerability-service", service),
        *("--format", "json", "--progress-spinner", "off", "--timeout", "5"),
    ]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=max(limit_s, 1))
        return json.loads(result.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return None


if __name__ == "__main__":
    sys.exit(main())
