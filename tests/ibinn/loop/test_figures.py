"""Numbers, page and record of the loop, from answers and metrics that are made up."""

import json
import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from ibinn.loop.figures import (
    evidence,
    expected_accuracy,
    flag_rate,
    labelled_accuracy,
    labelled_ece,
    over_time,
    phase_figures,
    suspended,
    truths_of_accepted,
)
from ibinn.loop.judging import Judged, Worth, top_label_ece
from ibinn.loop.page import write_page
from ibinn.loop.scenario import Scenario
from ibinn.loop.story import Outcome
from ibinn.loop.timeline import Timeline
from ibinn.loop.traffic import Seen
from ibinn.loop.verdict import shortcomings, write_record
from ibinn.loop.watching import Sample, read_metrics
from ibinn.reliability import ece_of_bins, top_label_reliability
from ibinn.types import Verdict

METRICS = """# TYPE ibinn_labelled counter
ibinn_labelled_total{bin="13",model="a-b"} 40
ibinn_labelled_total{bin="14",model="a-b"} 60
# TYPE ibinn_correct counter
ibinn_correct_total{bin="13",model="a-b"} 30
ibinn_correct_total{bin="14",model="a-b"} 60
# TYPE ibinn_confidence_sum counter
ibinn_confidence_sum_total{bin="13",model="a-b"} 36
ibinn_confidence_sum_total{bin="14",model="a-b"} 58
# TYPE ibinn_something_else counter
ibinn_something_else_total 7
"""


def sample(at_s: float, values: Mapping[tuple[str, str, str], float]) -> Sample:
    return Sample(
        at_s=at_s,
        values={(name, frozenset({(key, label)})): v for (name, key, label), v in values.items()},
        alerts=(),
    )


def labels(at_s: float, count: float, correct: float, confidence: float) -> Sample:
    return sample(
        at_s,
        {
            ("ibinn_labelled_total", "bin", "14"): count,
            ("ibinn_correct_total", "bin", "14"): correct,
            ("ibinn_confidence_sum_total", "bin", "14"): confidence,
            ("ibinn_guarantee_suspended", "model", "a-b"): float(at_s > 10),
            ("ibinn_drift_log_evidence", "detector", "p_values"): at_s,
            ("ibinn_drift_log_threshold", "detector", "p_values"): 4.0,
        },
    )


def answered(at_s: float, *, right: bool = True, unknown: bool = False, held: bool = True) -> Seen:
    return Seen(
        at_s=at_s,
        phase="normal",
        image="train-00000",
        truth="1",
        noisy=False,
        record_id="r",
        answer="1" if right else "7",
        confidence=0.9,
        verdict=Verdict.UNKNOWN if unknown else Verdict.NOT_FLAGGED,
        p_value=0.5,
        held=held,
        weights="ab",
        labelled=True,
    )


def worth(*, ece: float = 0.01, accuracy: float = 0.98, missing: float = 0.95) -> Worth:
    return Worth(
        count=100, accuracy=accuracy, confidence=0.97, ece=ece, unknown=0.01,
        missing_recognised=missing, missing_count=10,
    )  # fmt: skip


def outcome() -> Outcome:
    """A loop that came out as it must."""
    seen = tuple(answered(float(n), unknown=n >= 300, held=n < 310) for n in range(600))
    samples = tuple(
        labels(float(n), count=n, correct=n if n < 300 else 300 + (n - 300) / 2, confidence=n)
        for n in range(600)
    )
    stretches = {"normal": (0, 299), "noise": (300, 449), "arrival": (450, 520)}
    phases = [
        phase_figures(name, name, seen[first:last], samples[first], samples[last])
        for name, (first, last) in stretches.items()
    ]
    recovered = [answered(float(n)) for n in range(520, 599)]
    phases.append(phase_figures("recovery", "again", recovered, samples[520], samples[599]))
    base = Judged(
        weights="a", clean=worth(missing=0.0), clean_known=worth(),
        drifted=worth(ece=0.7, missing=0.0), drifted_known=worth(ece=0.7),
    )  # fmt: skip
    promoted = Judged(
        weights="b", clean=worth(), clean_known=worth(), drifted=worth(), drifted_known=worth()
    )
    return Outcome(
        phases=tuple(phases), seen=seen, samples=samples, base=base, promoted=promoted,
        delay_images=10, labels=500, database="SQLite", alerts=("IbinnGuaranteeSuspended",),
        retraining={
            "mode": "fine-tune", "taxonomy": {"added": {"9": 70}},
            "steps": [{"name": "export", "left_out": 0, "left": 500, "words": "<all>"}],
            "sources": [{"name": "a/line-1", "standing": "trusted", "images": 500,
                         "reason": "listed"}],
        },
        decision={
            "figures": [{"kind": "accuracy", "subject": "", "against": "current", "count": 100,
                         "candidate": 0.98, "reference": 0.97, "bound": 0.001, "margin": 0.01,
                         "outcome": "passed"}],
        },
        recorded={"ibinn_top_label_ece, model a": ((1.0, 0.1), (2.0, 0.2))},
        seconds={"images": 1.0},
    )  # fmt: skip


def test_the_calibration_error_is_that_of_the_library(rng: np.random.Generator) -> None:
    p = rng.dirichlet(np.ones(10), size=500)
    truth = rng.integers(0, 10, 500)
    mine = top_label_ece(p.max(axis=1).tolist(), (p.argmax(axis=1) == truth).tolist())
    assert mine == pytest.approx(ece_of_bins(top_label_reliability(p, truth)), abs=1e-12)


def test_metrics_are_read_by_name_and_label() -> None:
    values = read_metrics(METRICS)
    found = Sample(at_s=1.0, values=values, alerts=())
    assert found.total("ibinn_labelled_total") == 100
    assert found.total("ibinn_labelled_total", bin="13") == 40
    assert found.by("ibinn_correct_total", "bin") == {"13": 30.0, "14": 60.0}
    assert not any(name == "ibinn_something_else_total" for name, _ in values)


def test_figures_of_counters_are_those_between_two_readings() -> None:
    nothing = sample(0.0, {})
    found = Sample(at_s=1.0, values=read_metrics(METRICS), alerts=())
    assert labelled_ece(nothing, found) == pytest.approx((6 + 2) / 100)
    assert labelled_accuracy(nothing, found) == pytest.approx(0.9)
    assert labelled_ece(found, found) is None
    assert expected_accuracy(nothing, found) is None


def test_curves_move_when_the_traffic_does() -> None:
    found = outcome()
    rate = flag_rate(found.seen)
    assert rate.value[0] == 0.0
    assert rate.value[-1] == 1.0
    assert suspended(found.samples).value[[0, -1]].tolist() == [0.0, 1.0]
    error = over_time(found.samples, "error", "ece")
    assert len(error.at_s) == 0  # six seconds of one label a second are fewer than thirty
    assert truths_of_accepted(found.seen).value[0] == 1.0
    (curve,) = evidence(found.samples)
    assert (curve.name, curve.value[4]) == ("p_values", 1.0)


def test_a_loop_that_came_out_well_has_no_shortcomings() -> None:
    assert shortcomings(outcome()) == []


def test_every_shortcoming_is_told() -> None:
    import dataclasses

    found = outcome()
    bad = dataclasses.replace(
        found,
        delay_images=None,
        alerts=("IbinnNoScrape",),
        promoted=dataclasses.replace(
            found.promoted, drifted=worth(ece=0.5, missing=0.2), clean=worth(missing=0.3)
        ),
        base=dataclasses.replace(found.base, clean_known=worth(accuracy=0.5)),
        phases=tuple(
            dataclasses.replace(phase, held_at_end=not phase.held_at_end, unknown=0.5,
                                labelled_ece=None)
            for phase in found.phases
        ),
    )  # fmt: skip
    told = "; ".join(shortcomings(bad))
    for words in (
        "suspended on normal traffic", "knows 50.0%", "raised no alarm", "share of UNKNOWN",
        "error of the labelled", "no alert", "new calibration did not hold", "at most half",
        "30.0% of its held-out images as they are", "20.0% of its held-out images noisy",
    ):  # fmt: skip
        assert words in told
    late = dataclasses.replace(found, delay_images=501)
    assert shortcomings(late) == ["the alarm came after 501 noisy images, expected at most 500"]


def test_the_page_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    timeline = Timeline(Console(file=StringIO(), width=100))
    timeline.tell("alarm", "SUSPENDED (<score>)", name="suspended")
    path = write_page(outcome(), timeline.events, (), tmp_path / "index.html")
    text = path.read_text(encoding="utf-8")
    assert text.count("<svg") == 8
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text)
    assert "&lt;score&gt;" in text
    assert "&lt;all&gt;" in text
    assert "Everything came out as it must" in text


def test_a_page_tells_what_failed(tmp_path: Path) -> None:
    path = write_page(outcome(), (), ("it is <late>",), tmp_path / "index.html")
    assert "it is &lt;late&gt;" in path.read_text(encoding="utf-8")


def test_the_record_holds_every_figure_and_every_answer(tmp_path: Path) -> None:
    found = outcome()
    write_record(found, Scenario(), (), (), tmp_path / "loop.json")
    record = json.loads((tmp_path / "loop.json").read_text(encoding="utf-8"))
    assert record["ok"] is True
    assert record["held_out"]["base"]["drifted"]["ece"] == 0.7
    assert [phase["name"] for phase in record["phases"]] == [
        "normal", "noise", "arrival", "recovery",
    ]  # fmt: skip
    lines = (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(found.seen)
    assert json.loads(lines[0])["record_id"] == "r"


def test_the_timeline_prints_minutes_and_keeps_events(capsys: pytest.CaptureFixture[str]) -> None:
    timeline = Timeline(Console(width=80, highlight=False))
    timeline.tell("step", "begins")
    timeline.tell("good", "is well", name="mark")
    assert [event.text for event in timeline.events] == ["begins", "is well"]
    assert re.match(r" 0:0\d  begins", capsys.readouterr().out)
