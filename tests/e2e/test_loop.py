"""`make loop` on real digits: drift noticed, truths heard, a model retrained, promoted, served."""

from __future__ import annotations

import json
import re
import shutil
from typing import Any

import pytest

from tests.e2e.conftest import LOOP_WITHIN_S, LoopRun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LOOP_WITHIN_S + 60)]


@pytest.fixture(scope="module")
def record(loop_run: LoopRun) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((loop_run.out / "loop.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def phases(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {phase["name"]: phase for phase in record["phases"]}


def test_it_ends_well_within_fifteen_minutes_and_prints_its_timeline(loop_run: LoopRun) -> None:
    assert loop_run.exit_code == 0, loop_run.said
    assert loop_run.seconds < LOOP_WITHIN_S
    assert re.search(r"^loop: ok, [\d,]+ images in \d+\.\d minutes$", loop_run.said, re.MULTILINE)
    for words in ("normal traffic", "Gaussian noise of severity 3", "SUSPENDED", "retraining",
                  "without a restart"):  # fmt: skip
        assert re.search(rf"^ *\d+:\d\d  .*{words}", loop_run.said, re.MULTILINE), words


def test_the_guarantee_holds_on_normal_traffic_and_is_suspended_under_noise(
    phases: dict[str, dict[str, Any]], record: dict[str, Any]
) -> None:
    assert phases["normal"]["held_at_end"]
    assert not phases["noise"]["held_at_end"]
    assert not phases["arrival"]["held_at_end"]
    assert record["delay_images"] <= 500


def test_flag_rate_and_calibration_move_with_the_drift(phases: dict[str, dict[str, Any]]) -> None:
    normal, noise, arrival = (phases[name] for name in ("normal", "noise", "arrival"))
    assert normal["unknown"] < 0.05 < noise["unknown"]
    assert normal["labelled_ece"] < 0.1 < noise["labelled_ece"]
    assert normal["ece"] < 0.05 < arrival["ece"]
    # Without labels, on accepted images: close on normal traffic; a new class is not seen by it.
    assert abs(normal["expected_accuracy"] - normal["accepted_accuracy"]) < 0.03
    assert arrival["accepted_accuracy"] < normal["accepted_accuracy"]


def test_an_alert_of_prometheus_fires(record: dict[str, Any]) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("no program prometheus on the PATH")
    if record["alerts"] is None:
        pytest.skip("no rules in deployment/monitoring")
    assert "IbinnGuaranteeSuspended" in record["alerts"]


def test_the_new_model_is_calibrated_on_drifted_images_and_knows_the_new_class(
    record: dict[str, Any],
) -> None:
    base, promoted = record["held_out"]["base"], record["held_out"]["promoted"]
    assert promoted["drifted"]["ece"] <= 0.5 * base["drifted"]["ece"]
    for images in ("clean", "drifted"):
        assert promoted[images]["missing_count"] >= 200
        assert promoted[images]["missing_recognised"] >= 0.9
    assert base["clean_known"]["accuracy"] >= 0.97


def test_the_promotion_was_decided_by_figures_and_approved_by_a_person(
    record: dict[str, Any], loop_run: LoopRun
) -> None:
    assert {figure["outcome"] for figure in record["promotion"]["figures"]} == {"passed"}
    approval = json.loads((loop_run.out / "decision" / "approval.json").read_text("utf-8"))
    assert approval["by"]


def test_a_stranger_who_gives_wrong_labels_is_not_heard(record: dict[str, Any]) -> None:
    standing = {
        source["name"].rpartition("/")[2]: source["standing"]
        for source in record["retraining"]["sources"]
    }
    assert standing.pop("stranger") == "quarantined"
    assert set(standing.values()) == {"trusted"}


def test_the_guarantee_holds_again_for_the_new_calibration(
    phases: dict[str, dict[str, Any]],
) -> None:
    recovery = phases["recovery"]
    assert recovery["held_at_end"]
    assert recovery["accuracy"] > 0.9
    assert recovery["ece"] < 0.5 * phases["arrival"]["ece"]


def test_it_leaves_a_page_that_loads_nothing(loop_run: LoopRun) -> None:
    page = (loop_run.out / "index.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 7
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)


def test_no_token_stands_in_a_log(loop_run: LoopRun) -> None:
    tokens = [path.read_text() for path in (loop_run.out / "tokens").iterdir()]
    assert len(tokens) == 3
    for path in (loop_run.out / "logs").iterdir():
        text = path.read_text(errors="replace")
        assert not any(token in text for token in tokens)
