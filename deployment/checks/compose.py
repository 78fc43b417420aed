"""compose.yaml: its schema, what it refers to, and the project's own rules for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from compose_spec import PyCompose

from deployment.checks.found import FOLDER, loaded

FILE = FOLDER / "compose.yaml"
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?P<rule>:-|:\?)?(?P<text>[^}]*)\}")
_SECRET = re.compile(r"(?i)(password|secret|token|api_?key)$")


def findings() -> Iterator[str]:
    """What is wrong with compose.yaml."""
    text = FILE.read_text(encoding="utf-8")
    for found in _VARIABLE.finditer(text):
        if not found["rule"] or (found["rule"] == ":?" and not found["text"]):
            yield f"{found[0]} needs a default (:-) or an error that says what to do (:?)"
    yield from wrong(filled(text))


def filled(text: str) -> str:
    """The file with defaults in place of variables, and ``/given`` for those without one."""
    return _VARIABLE.sub(
        lambda found: found["text"] if found["rule"] == ":-" else "/given",
        text,
    )


def wrong(text: str) -> Iterator[str]:
    """What is wrong with a compose file without variables."""
    spec: dict[str, Any] = loaded(text)
    try:
        PyCompose.from_yaml(yaml.safe_dump(spec))
    except ValueError as error:
        yield str(error)
        return
    for name, service in spec["services"].items():
        for problem in (*_references(spec, service), *_rules(service)):
            yield f"{name}: {problem}"


def _references(spec: dict[str, Any], service: dict[str, Any]) -> Iterator[str]:
    for kind in ("secrets", "configs"):
        for one in service.get(kind, ()):
            source = one if isinstance(one, str) else one["source"]
            if source not in spec.get(kind, {}):
                yield f"{source!r} is not among the {kind}"
    for other in service.get("depends_on", {}):
        if other not in spec["services"]:
            yield f"it depends on {other!r}, which is no service"
    for volume in service.get("volumes", ()):
        source = volume.split(":")[0]
        if source.startswith("."):
            if not (FOLDER / source).exists():
                yield f"{source} does not exist"
        elif not source.startswith("/") and source not in spec.get("volumes", {}):
            yield f"{source!r} is not among the volumes"
    if "build" in service and not (FOLDER.parent / service["build"]["dockerfile"]).is_file():
        yield f"{service['build']['dockerfile']} does not exist"


def _rules(service: dict[str, Any]) -> Iterator[str]:
    limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
    if not {"cpus", "memory"} <= limits.keys():
        yield "deploy.resources.limits need cpus and memory"
    tag = service["image"].rpartition("/")[2].partition(":")[2]
    if tag in {"", "latest"}:
        yield f"image {service['image']} needs a tag other than latest"
    # Our images bring their own health check.
    if "healthcheck" not in service and "build" not in service:
        yield "it has no healthcheck"
    if not service.get("read_only"):
        yield "its root file system is not read_only"
    for port in service.get("ports", ()):
        if not port.startswith("127.0.0.1:"):
            yield f"port {port} is published beyond this machine"
    for key, value in (service.get("environment") or {}).items():
        if _SECRET.search(key) and not str(value).startswith("/"):
            yield f"{key} is in the environment; use a file of `secrets`"
