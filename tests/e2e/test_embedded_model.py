"""The embedded model keeps what its report states, and what it was accepted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibinn import bundle, manifest
from ibinn.assessment import COMBINED
from ibinn.types import Verdict
from training.chapters.registry import TITLES
from training.data import open_data
from training.loader import eval_batches

LARGEST_BUNDLE_BYTES = 16 * 2**20
LEAST_TOP1 = 0.78
BARRED = ("rotation", "noise-0.1", "digits", "tiny-imagenet")


@pytest.fixture(scope="module")
def report(embedded_bundle: Path) -> dict[str, Any]:
    """``report.json`` of the embedded model."""
    content: dict[str, Any] = json.loads((embedded_bundle / "report.json").read_text("utf-8"))
    return content


def test_bundle_is_intact_and_small(embedded_bundle: Path) -> None:
    manifest.verify(embedded_bundle)
    size = sum(file.stat().st_size for file in embedded_bundle.iterdir())
    assert size <= LARGEST_BUNDLE_BYTES


def test_report_is_about_these_weights_and_this_calibration(
    embedded_bundle: Path, report: dict[str, Any]
) -> None:
    found = manifest.read(embedded_bundle)
    assert report["model"]["weights"] == found.weights_digest
    assert report["model"]["calibration"] == found.calibration_digest
    assert found.metrics["top1"] == pytest.approx(report["accuracy"]["value"])


def test_reported_accuracy_and_exactness_meet_their_bars(report: dict[str, Any]) -> None:
    assert report["test_count"] == 10_000
    assert report["accuracy"]["value"] >= LEAST_TOP1
    assert report["completeness"]["worst"] < 1e-3
    assert report["round_trip"]["worst"] < 1e-4


def test_every_reported_flag_count_lies_in_its_interval(report: dict[str, Any]) -> None:
    counts = [(row["test"], at) for row in report["false_flags"] for at in row["at"]]
    assert {at["alpha"] for _, at in counts} >= {0.01, 0.05}
    assert [(test, at) for test, at in counts if not at["right"]] == []


def test_every_set_is_reported_with_and_without_the_jpeg_step(report: dict[str, Any]) -> None:
    expected = {"rotation", "noise-0.1", "noise-0.015", "digits", "tiny-imagenet"}
    assert {row["name"] for row in report["sets"]} == expected
    assert {row["name"] for row in report["without_jpeg"]["sets"]} == expected


def auroc(report: dict[str, Any], ood: str, test: str) -> float:
    entry = next(s for s in report["sets"] if s["name"] == ood)
    return next(d["report"]["auroc"] for d in entry["detection"] if d["test"] == test)


def test_the_combined_test_finds_the_barred_sets(report: dict[str, Any]) -> None:
    combined = [auroc(report, ood, COMBINED) for ood in BARRED]
    published = [auroc(report, ood, "log_q_x.typicality") for ood in BARRED]
    assert min(combined) >= 0.85
    assert np.mean(combined) >= 0.93
    assert np.mean(combined) >= np.mean(published) + 0.10
    assert all(abs(control["auroc"] - 0.5) <= 0.02 for control in report["controls"])


def test_calibration_after_temperature_stays_near_its_floor(report: dict[str, Any]) -> None:
    after = report["calibrated"]
    assert after["top_label_ece"] <= 1.5 * after["top_label_ece_floor"]
    mean = after["thesis"]["with_mean_confidence"]["geometric_mean"]
    assert mean <= 1.5 * after["thesis_floor_with_mean_confidence"]["geometric_mean"]


def test_every_chapter_was_measured(report: dict[str, Any]) -> None:
    assert set(report["chapters"]) == set(TITLES)
    assert [name for name, result in report["chapters"].items() if set(result) == {"reason"}] == []


@pytest.mark.slow
def test_an_auditor_finds_the_reported_figures_again(
    embedded_bundle: Path, cifar10_dir: Path, report: dict[str, Any]
) -> None:
    classifier = bundle.load(embedded_bundle)
    images = open_data(str(cifar10_dir)).test
    assert images is not None
    correct = unknown = 0
    bits = []
    for batch in eval_batches(images, classifier.preprocessing, batch_size=100):
        scores = classifier.score(batch.images.numpy())
        correct += int((scores.probabilities.argmax(axis=1) == batch.labels.numpy()).sum())
        unknown += sum(verdict is Verdict.UNKNOWN for verdict in scores.verdicts)
        bits.append(scores.bits_per_dim)
    # Another machine rounds convolutions differently: a few images sit on a boundary.
    assert correct / len(images) == pytest.approx(report["accuracy"]["value"], abs=5e-4)
    shipped = next(row for row in report["false_flags"] if row["test"] == COMBINED)
    at = next(at for at in shipped["at"] if at["alpha"] == report["model"]["alpha"])
    assert unknown == pytest.approx(at["flags"], abs=5)
    assert np.concatenate(bits).mean() == pytest.approx(report["bits_per_dim"], abs=1e-3)
