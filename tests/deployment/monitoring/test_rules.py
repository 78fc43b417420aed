"""Rules, alerts, runbook and provisioning, as far as no Prometheus is needed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deployment.monitoring import check, generate, recording
from tests.deployment.monitoring.files import (
    FOLDER,
    PROMTOOL_ABSENT,
    counted,
    load,
    names,
    rules,
)

ALERTS = {rule["alert"]: rule for rule in rules("rules/alerts.yml")}
RUNBOOK = (FOLDER / "RUNBOOK.md").read_text(encoding="utf-8")
ASKED = ("What it means", "How to look", "What to do", "What not to do")


def test_every_metric_that_a_rule_reads_exists(tmp_path: Path) -> None:
    known = counted(tmp_path) | recording.records()
    for rule in (*rules("rules/recording.yml"), *ALERTS.values()):
        missing = names(rule["expr"]) - known
        assert not missing, f"{rule.get('record') or rule.get('alert')} reads {missing}"


def test_every_series_is_recorded_for_every_window_after_those_that_it_reads() -> None:
    for group in load("rules/recording.yml")["groups"]:
        window = group["name"].removeprefix("ibinn_")
        before: set[str] = set()
        for rule in group["rules"]:
            assert rule["labels"] == {"window": window}
            assert names(rule["expr"]) & recording.records() <= before
            before.add(rule["record"])
        assert before == recording.records()


def test_the_long_windows_are_computed_often_enough_to_be_seen() -> None:
    lookback_s = 300
    for group in load("rules/recording.yml")["groups"]:
        minutes = int(str(group.get("interval", "1m")).removesuffix("m"))
        assert 60 * minutes < lookback_s


def test_generated_files_are_current() -> None:
    assert generate.outdated() == ()


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_who_and_where_to_read_on(name: str) -> None:
    rule = ALERTS[name]
    told = rule["annotations"]
    assert set(told) == {"summary", "description", "runbook_url"}
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert told["runbook_url"] == f"deployment/monitoring/RUNBOOK.md#{name.lower()}"


def test_every_alert_has_a_section_of_the_runbook_and_every_section_an_alert() -> None:
    sections = re.split(r"^## ", RUNBOOK, flags=re.MULTILINE)[1:]
    assert {section.split("\n", 1)[0] for section in sections} == set(ALERTS)
    assert len(sections) == len(ALERTS)
    for section in sections:
        found = re.findall(r"^\*\*(.+?)\.\*\*", section, flags=re.MULTILINE)
        assert tuple(found) == ASKED, section.split("\n", 1)[0]


def test_every_alert_fires_in_a_unit_test_and_is_silent_in_another() -> None:
    fires: set[str] = set()
    silent = 0
    for path in sorted((FOLDER / "tests").glob("*.yml")):
        for test in load(f"tests/{path.name}")["tests"]:
            for asked in test["promql_expr_test"]:
                if "ALERTS" in asked["expr"]:
                    fires |= {
                        re.sub(r'.*alertname="(\w+)".*', r"\1", sample["labels"])
                        for sample in asked["exp_samples"]
                    }
                    silent += not asked["exp_samples"]
    assert fires == set(ALERTS)
    assert silent


def test_unit_tests_compute_every_group_figures_before_alerts() -> None:
    groups = [
        group["name"]
        for path in ("rules/recording.yml", "rules/alerts.yml")
        for group in load(path)["groups"]
    ]
    for path in sorted((FOLDER / "tests").glob("*.yml")):
        assert load(f"tests/{path.name}")["group_eval_order"] == groups


def test_alerts_that_start_retraining_reach_the_operators_too() -> None:
    routes = load("alertmanager.yml")["route"]["routes"]
    retraining = next(route for route in routes if route["receiver"] == "retraining")
    assert retraining["matchers"] == ['action="retrain"']
    assert retraining["continue"]
    after = routes[routes.index(retraining) + 1 :]
    assert any(route["receiver"] == "operators" and "matchers" not in route for route in after)
    receivers = {receiver["name"] for receiver in load("alertmanager.yml")["receivers"]}
    assert {route["receiver"] for route in routes} <= receivers
    assert any(rule["labels"].get("action") == "retrain" for rule in ALERTS.values())


def test_prometheus_reads_the_rules_and_names_the_job_as_they_do() -> None:
    config = load("prometheus.yml")
    found = {path for pattern in config["rule_files"] for path in FOLDER.glob(pattern)}
    assert {path.name for path in found} == {"recording.yml", "alerts.yml"}
    assert "ibinn" in {job["job_name"] for job in config["scrape_configs"]}
    assert 'job="ibinn"' in ALERTS["IbinnNoScrape"]["expr"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason=PROMTOOL_ABSENT)
def test_promtool_finds_nothing_wrong_and_hand_computed_figures_agree() -> None:
    for command in check.commands("promtool"):
        if command[1] == "check" or command[-1].endswith("calibration.yml"):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


def test_without_promtool_the_check_says_so_and_fails_only_where_it_is_required() -> None:
    for value, status in (("", 0), ("true", 1)):
        done = subprocess.run(
            [sys.executable, "-m", "deployment.monitoring.check"],
            cwd=FOLDER.parents[1],
            env={"PATH": "", "CI": value},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status
        assert "promtool is not on the PATH; install" in done.stderr
