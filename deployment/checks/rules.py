"""The Prometheus operator's form of the rules: the same groups, as one object of Kubernetes.

python -m deployment.checks.rules           writes it
python -m deployment.checks.rules --check   exit code 1 where it is not current
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import yaml

from deployment.checks.found import FOLDER, loaded

FILE = FOLDER / "kubernetes" / "monitoring" / "rules.yaml"
_HEADER = """\
# Made by `python -m deployment.checks.rules`; change deployment/monitoring/rules.
"""


def text() -> str:
    """What the file is to hold."""
    groups = []
    for path in sorted((FOLDER / "monitoring" / "rules").glob("*.yml")):
        groups += loaded(path.read_text(encoding="utf-8"))["groups"]
    made = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "ibinn"},
        "spec": {"groups": groups},
    }
    return _HEADER + yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=1000)


def findings() -> Iterator[str]:
    """Whether the file says what the rules say."""
    if not FILE.is_file() or FILE.read_text(encoding="utf-8") != text():
        yield f"{FILE.relative_to(FOLDER)} is not current; run python -m deployment.checks.rules"


def main() -> int:
    """The exit code."""
    if sys.argv[1:] == ["--check"]:
        found = list(findings())
        print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
        return int(bool(found))
    FILE.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
