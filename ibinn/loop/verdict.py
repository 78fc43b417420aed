"""Whether the loop came out as it must, and the record of all its figures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibinn.loop.scenario import Scenario
from ibinn.loop.timeline import Event

if TYPE_CHECKING:
    from ibinn.loop.story import Outcome

LEAST_BASE_ACCURACY = 0.97
"""Of the base model on clean digits of the classes that it knows."""
LEAST_MISSING_RECOGNISED = 0.90
MOST_ECE_LEFT = 0.5
"""Share of the calibration error on drifted images that may be left after the promotion."""
MOST_DELAY_IMAGES = 500
_DRIFTED = "drifted digits of all ten classes"


def shortcomings(outcome: Outcome) -> list[str]:
    """What did not come out as it must; empty if all is well."""
    missing = []
    phases = {figures.name: figures for figures in outcome.phases}
    normal, noise, recovery = phases["normal"], phases["noise"], phases["recovery"]
    if not normal.held_at_end:
        missing.append("the guarantee was suspended on normal traffic")
    if outcome.base.clean_known.accuracy < LEAST_BASE_ACCURACY:
        missing.append(
            f"the base model knows {outcome.base.clean_known.accuracy:.1%} of the digits 0 to 8, "
            f"expected {LEAST_BASE_ACCURACY:.0%}"
        )
    if outcome.delay_images is None:
        missing.append("noise on all traffic raised no alarm")
    elif outcome.delay_images > MOST_DELAY_IMAGES:
        missing.append(
            f"the alarm came after {outcome.delay_images} noisy images, expected at most "
            f"{MOST_DELAY_IMAGES}"
        )
    if noise.unknown <= normal.unknown:
        missing.append("noise did not raise the share of UNKNOWN")
    if not (noise.labelled_ece or 0.0) > (normal.labelled_ece or 0.0):
        missing.append("noise did not raise the calibration error of the labelled")
    if outcome.alerts is not None and not any("Guarantee" in name for name in outcome.alerts):
        missing.append("no alert of Prometheus said that the guarantee is suspended")
    if not recovery.held_at_end:
        missing.append("the guarantee of the new calibration did not hold on recovered traffic")
    before, after = outcome.base.drifted.ece, outcome.promoted.drifted.ece
    if after > MOST_ECE_LEFT * before:
        missing.append(
            f"the calibration error on held-out {_DRIFTED} is {after:.4f} after {before:.4f}; "
            "expected at most half"
        )
    for words, worth in (
        ("as they are", outcome.promoted.clean),
        ("noisy", outcome.promoted.drifted),
    ):
        if worth.missing_recognised < LEAST_MISSING_RECOGNISED:
            missing.append(
                f"the new class is recognised on {worth.missing_recognised:.1%} of its held-out "
                f"images {words}, expected {LEAST_MISSING_RECOGNISED:.0%}"
            )
    return missing


def write_record(
    outcome: Outcome,
    scenario: Scenario,
    events: Sequence[Event],
    missing: Sequence[str],
    path: Path,
) -> None:
    """All figures as JSON, and every image that was sent with its answer as JSON lines beside it.

    Args:
        outcome: What came of the loop.
        scenario: Its numbers.
        events: The timeline.
        missing: From `shortcomings`.
        path: Of the JSON file; the lines go to ``answers.jsonl`` in its folder.
    """
    record: Mapping[str, Any] = {
        "ok": not missing,
        "shortcomings": list(missing),
        "seconds": dict(outcome.seconds),
        "database": outcome.database,
        "alerts": outcome.alerts,
        "delay_images": outcome.delay_images,
        "labels": outcome.labels,
        "phases": [dataclasses.asdict(figures) for figures in outcome.phases],
        "held_out": {
            "base": dataclasses.asdict(outcome.base),
            "promoted": dataclasses.asdict(outcome.promoted),
        },
        "promotion": outcome.decision,
        "retraining": {
            key: outcome.retraining[key] for key in ("mode", "taxonomy", "steps", "sources")
        },
        "scenario": dataclasses.asdict(scenario),
        "timeline": [dataclasses.asdict(event) for event in events],
    }
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with (path.parent / "answers.jsonl").open("w", encoding="utf-8") as file:
        for image in outcome.seen:
            file.write(json.dumps(dataclasses.asdict(image)) + "\n")
