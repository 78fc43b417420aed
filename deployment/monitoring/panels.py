"""What a panel and a dashboard of Grafana are, and how they are written as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployment.monitoring.recording import ALL, WINDOWS

WIDTH = 24
"""Columns of Grafana's grid."""

MODEL = '{model=~"$model"}'
OF_MODEL = '{window="$window", model=~"$model"}'
OF_WINDOW = '{window="$window"}'

_SOURCE = {"type": "prometheus", "uid": "${source}"}
_SCHEMA = 38


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query and how its series are called.

    Attributes:
        expr: PromQL; ``$window`` and ``$model`` are filled in.
        legend: With ``{{label}}`` for a label's value.
    """

    expr: str
    legend: str


def recorded(record: str, legend: str, *, of: str = OF_MODEL) -> Query:
    """A series of the recording rules over the chosen window."""
    return Query(expr=f"{record}{of}", legend=legend)


def interval(record: str, legend: str) -> tuple[Query, ...]:
    """A share of the recording rules with the ends of its 95 % interval."""
    return (
        recorded(record, legend),
        recorded(f"{record}_lower", f"{legend}, 95 % from"),
        recorded(f"{record}_upper", f"{legend}, 95 % to"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One plot, number or table.

    Attributes:
        title: What is shown.
        description: What it means and how it misleads.
        unit: Of Grafana, such as ``percentunit``, ``s`` or ``short``.
        queries: What is drawn.
        kind: ``timeseries``, ``stat``, ``bargauge`` or ``table``.
        width: In columns of `WIDTH`.
        most: Upper end of the axis; None: chosen by the data.
    """

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    width: int = 12
    most: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Panels under a heading.

    Attributes:
        title: The heading.
        panels: From left to right, wrapped.
    """

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """A page.

    Attributes:
        name: Of its file; ``ibinn-NAME`` is its address.
        title: Its heading.
        description: What it answers.
        rows: From top to bottom.
        by_model: Whether models can be chosen.
    """

    name: str
    title: str
    description: str
    rows: Sequence[Row]
    by_model: bool = False

    def text(self) -> str:
        """The JSON that Grafana reads."""
        return json.dumps(self._content(), indent=2, ensure_ascii=False) + "\n"

    def _content(self) -> dict[str, Any]:
        variables = [_source(), _window(), *([_model()] if self.by_model else [])]
        return {
            "uid": f"ibinn-{self.name}",
            "title": self.title,
            "description": self.description,
            "tags": ["ibinn"],
            "schemaVersion": _SCHEMA,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-6h", "to": "now"},
            "timezone": "utc",
            "links": [_links()],
            "templating": {"list": variables},
            "annotations": {"list": [_alarms()]},
            "panels": list(_placed(self.rows)),
        }


def _placed(rows: Sequence[Row]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        found.append(_heading(row.title, y=y, number=len(found) + 1))
        y, x, tallest = y + 1, 0, 0
        for panel in row.panels:
            height = 4 if panel.kind == "stat" else 8
            if x + panel.width > WIDTH:
                y, x, tallest = y + tallest, 0, 0
            place = {"x": x, "y": y, "w": panel.width, "h": height}
            found.append(_panel(panel, place, number=len(found) + 1))
            x, tallest = x + panel.width, max(tallest, height)
        y += tallest
    return found


def _heading(title: str, *, y: int, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        "panels": [],
    }


def _panel(panel: Panel, place: Mapping[str, int], *, number: int) -> dict[str, Any]:
    limits: dict[str, Any] = {} if panel.most is None else {"min": 0, "max": panel.most}
    instant = panel.kind != "timeseries"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": dict(place),
        "fieldConfig": {"defaults": {"unit": panel.unit, **limits}, "overrides": []},
        "options": _options(panel.kind),
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "instant": instant,
                "range": not instant,
                "format": "table" if panel.kind == "table" else "time_series",
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def _options(kind: str) -> dict[str, Any]:
    if kind == "timeseries":
        return {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    if kind == "table":
        return {"showHeader": True}
    reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if kind == "bargauge":
        return {"reduceOptions": reduced, "orientation": "horizontal", "displayMode": "basic"}
    return {"reduceOptions": reduced, "textMode": "auto", "colorMode": "value"}


def _source() -> dict[str, Any]:
    return {
        "name": "source",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
    }


def _window() -> dict[str, Any]:
    names = (*WINDOWS, ALL)
    return {
        "name": "window",
        "label": "Window",
        "description": f"Over how long figures are computed; {ALL}: since the servers started.",
        "type": "custom",
        "query": ",".join(names),
        "options": [{"text": w, "value": w, "selected": w == "1h"} for w in names],
        "current": {"text": "1h", "value": "1h"},
    }


def _model() -> dict[str, Any]:
    return {
        "name": "model",
        "label": "Model",
        "description": "First digits of the weights' and of the calibration's digest.",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": "label_values(ibinn_answered_total, model)", "refId": "model"},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _links() -> dict[str, Any]:
    return {
        "title": "ibinn",
        "type": "dashboards",
        "tags": ["ibinn"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
    }


def _alarms() -> dict[str, Any]:
    return {
        "name": "Guarantee suspended",
        "datasource": _SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": "max by (model) (ibinn_guarantee_suspended) == 1",
        "titleFormat": "Guarantee of {{model}} suspended",
        "step": "60s",
    }
