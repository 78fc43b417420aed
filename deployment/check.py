"""Whether the files in deployment/ are valid; run by `make check`.

python -m deployment.check           exit code 1 where something is wrong

A check whose program is absent is skipped, and says so; where CI=true that is a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator

from deployment.checks import compose, containers, kubernetes
from deployment.checks.found import ROOT, ToolMissingError


def monitoring() -> Iterator[str]:
    """What is wrong with rules, configuration and dashboards: `deployment.monitoring.check`."""
    done = subprocess.run(
        [sys.executable, "-m", "deployment.monitoring.check"], cwd=ROOT, check=False
    )
    if done.returncode:
        yield f"deployment.monitoring.check ended with {done.returncode}"


CHECKS: dict[str, Callable[[], Iterable[str]]] = {
    "containers": containers.findings,
    "compose": compose.findings,
    "kubernetes": kubernetes.findings,
    "monitoring": monitoring,
}


def main() -> int:
    """The exit code."""
    failed = False
    for name, findings in CHECKS.items():
        try:
            found = list(findings())
        except ToolMissingError as missing:
            fatal = os.environ.get("CI") == "true"
            print(f"deployment: {name}: {'FAILED' if fatal else 'SKIPPED'}: {missing}")
            failed |= fatal
            continue
        for line in found:
            print(f"deployment: {name}: {line}", file=sys.stderr)
        print(f"deployment: {name}: {f'{len(found)} to mend' if found else 'ok'}")
        failed |= bool(found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
