"""The files of deployment/monitoring, and the metrics that they speak of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from service.monitoring import Monitor, shared

FOLDER = Path(__file__).parents[3] / "deployment" / "monitoring"
PROMTOOL_ABSENT = "no promtool on the PATH: install Debian's package prometheus"

_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
_NAME = re.compile(r"(?<![\w:\"=])(?:[a-z_]+:)?ibinn[_:][a-z0-9_]+")


def load(path: str) -> Any:
    return yaml.safe_load((FOLDER / path).read_text(encoding="utf-8"))


def rules(path: str) -> list[dict[str, Any]]:
    """The rules of a file, whatever their group."""
    return [rule for group in load(path)["groups"] for rule in group["rules"]]


def dashboards() -> dict[str, dict[str, Any]]:
    """Every dashboard by its file's name."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((FOLDER / "dashboards").glob("*.json"))
    }


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """The panels that draw something."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def names(expr: str) -> set[str]:
    """The service's metrics and the recorded series that an expression reads."""
    return set(_NAME.findall(expr))


def counted(folder: Path) -> set[str]:
    """Names of every sample that a server may show.

    Args:
        folder: An empty one, for the metrics of a server with several workers.
    """
    monitor = Monitor()
    monitor.watch_records(waiting=lambda: 0, reachable=lambda: True, image_bytes=lambda: 0)
    registries: tuple[CollectorRegistry, ...] = (monitor.registry, shared.Sum(folder).registry)
    return {
        metric.name + suffix
        for registry in registries
        for metric in registry.collect()
        for suffix in _SUFFIXES[metric.type]
    }
