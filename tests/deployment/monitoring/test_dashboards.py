"""Dashboards as files: complete, current, and about metrics that exist."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from deployment.monitoring import recording
from tests.deployment.monitoring.files import FOLDER, counted, dashboards, load, names, panels

DASHBOARDS = dashboards()


def test_there_is_one_for_each_question() -> None:
    assert set(DASHBOARDS) == {"service", "ood", "calibration", "decisions", "models"}
    addresses = [board["uid"] for board in DASHBOARDS.values()]
    assert len(set(addresses)) == len(addresses)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_has_a_title_a_unit_and_says_what_it_means(name: str) -> None:
    titles = []
    for panel in panels(DASHBOARDS[name]):
        titles.append(panel["title"])
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        assert panel["datasource"]["uid"] == "${source}"
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_metric_that_a_panel_reads_exists(name: str, tmp_path: Path) -> None:
    known = counted(tmp_path) | recording.records()
    for panel in panels(DASHBOARDS[name]):
        for target in panel["targets"]:
            missing = names(target["expr"]) - known
            assert not missing, f"{panel['title']} reads {missing}"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_their_own_numbers_and_places(name: str) -> None:
    board = DASHBOARDS[name]
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    for one, other in itertools.combinations((panel["gridPos"] for panel in board["panels"]), 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart


@pytest.mark.parametrize("name", DASHBOARDS)
def test_variables_that_queries_use_can_be_chosen(name: str) -> None:
    board = DASHBOARDS[name]
    variables = {variable["name"] for variable in board["templating"]["list"]}
    text = " ".join(t["expr"] for panel in panels(board) for t in panel["targets"])
    assert {word for word in ("model", "window") if f"${word}" in text} <= variables
    window = next(v for v in board["templating"]["list"] if v["name"] == "window")
    chosen = {option["value"] for option in window["options"]}
    assert chosen == {recording.ALL, *recording.WINDOWS}


def test_grafana_is_provisioned_with_one_source_and_the_folder_of_the_dashboards() -> None:
    (source,) = load("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "${PROMETHEUS_URL}")
    (provider,) = load("grafana/provisioning/dashboards/ibinn.yml")["providers"]
    assert provider["options"]["path"].endswith("/dashboards/ibinn")
    assert list((FOLDER / "dashboards").glob("*.json"))
