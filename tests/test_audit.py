"""The decisions of the dependency audit; no service is asked."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TODAY = date(2026, 5, 4)


@pytest.fixture(scope="module")
def audit() -> Iterator[ModuleType]:
    path = Path(__file__).resolve().parents[1] / ".ci" / "audit.py"
    spec = importlib.util.spec_from_file_location("audit_under_test", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def report(*packages: dict[str, Any]) -> dict[str, Any]:
    return {"dependencies": [{"name": "sound", "version": "1", "vulns": []}, *packages]}


def vulnerable() -> dict[str, Any]:
    found = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.1"]}
    return {"name": "holed", "version": "2.0", "vulns": [found]}


def answers(monkeypatch: pytest.MonkeyPatch, audit: ModuleType, canary: Any, packages: Any) -> None:
    def answer(requirements: Path, service: str, *, limit_s: float) -> Any:
        return packages if requirements.name == "constraints.txt" else canary

    monkeypatch.setattr(audit, "_report", answer)


def test_vulnerability_fails_and_names_the_version_that_mends_it(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch, audit, report(vulnerable()), report(vulnerable()))
    assert audit.main() == 1
    captured = capsys.readouterr()
    assert captured.err == "audit: holed 2.0: PYSEC-1, mended in 2.1\n"
    assert captured.out == "audit: 2 packages audited by pypi, 1 to mend\n"


def test_packages_without_advisory_pass(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = {"name": "own", "skip_reason": "not found"}
    answers(monkeypatch, audit, report(vulnerable()), report(unknown))
    assert audit.main() == 0
    assert capsys.readouterr().out == "audit: 1 packages audited, 1 unknown by pypi, 0 to mend\n"


@pytest.mark.parametrize(
    "canary",
    [None, report(), report({"name": "jinja2", "skip_reason": "not found"})],
    ids=["no answer", "knows nothing", "does not know it"],
)
def test_service_that_knows_no_advisories_is_not_believed(
    audit: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    canary: Any,
) -> None:
    answers(monkeypatch, audit, canary, report(vulnerable()))
    assert audit.main() == 0
    assert capsys.readouterr().out == (
        "audit: no advisory service answers here; constraints.txt was not audited\n"
    )


def test_service_that_falls_silent_passes_in_one_line(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch, audit, report(vulnerable()), None)
    assert audit.main() == 0
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize("name", ["PYSEC-1", "CVE-1"])
def test_ignored_advisory_counts_again_after_its_last_day(audit: ModuleType, name: str) -> None:
    ignored = [audit.Ignored(advisory=name, reason="not reachable", until=TODAY)]
    assert audit.failing(report(vulnerable()), ignored, today=TODAY) == []
    (line,) = audit.failing(report(vulnerable()), ignored, today=date(2026, 5, 5))
    assert line.endswith("ignored until 2026-05-04: not reachable")


def test_every_ignored_advisory_has_a_reason(audit: ModuleType) -> None:
    assert all(entry.reason for entry in audit.IGNORED)
