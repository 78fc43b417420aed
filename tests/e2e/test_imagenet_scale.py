"""The ImageNet recipes on their real path: fit, calibrate, report, serve, classify, explain.

A few steps on two cores train nothing worth having; what is held here is that 200 classes and
150,528 dimensions go through every command and come out as answers.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from ibinn import bundle
from ibinn.client import Client
from ibinn.types import Prediction, Verdict
from tests.e2e.test_train_serve import read_until, run, started

MOST_NATS = 1e-2
"""Largest completeness error of a heatmap."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A recipe cut down to a few steps.

    Attributes:
        recipe: Its name.
        classes: Number of classes of the data.
        images: Training images of each class.
        settings: What is set; no compiler, no bf16 and smaller batches for two cores.
        dims: Of the latent space.
    """

    recipe: str
    classes: int
    images: int
    settings: tuple[str, ...]
    dims: int


TINY = Case(
    recipe="tiny-imagenet",
    classes=200,
    images=10,
    settings=(
        # Muon's orthogonalisation costs a CPU more than the batch does.
        *("optimizer.name=adamw", "optimizer.learning_rate=0.001"),
        *("max_steps=50", "batch_size=4", "reestimate_images=64"),
        *("split.validation=0.01", "split.calibration_a=0.05", "split.calibration_b=0.05"),
    ),
    dims=3 * 64**2,
)
IMAGENET = Case(
    recipe="imagenet",
    classes=20,
    images=20,
    settings=(
        *("max_steps=20", "batch_size=4", "reestimate_images=32"),
        *("split.validation=0.02", "split.calibration_a=0.08", "split.calibration_b=0.1"),
    ),
    dims=3 * 224**2,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A finished run.

    Attributes:
        case: What was run.
        out: Its folder.
        photographs: Images of its classes that it was not trained on.
    """

    case: Case
    out: Path
    photographs: tuple[Path, ...]


def subset(tiny_imagenet: Path, folder: Path, case: Case) -> tuple[Path, ...]:
    """Copies some of the data into a folder; gives further images of the same classes."""
    for name in sorted(path.name for path in (tiny_imagenet / "train").iterdir())[: case.classes]:
        for part, count in (("train", case.images), ("val", 1)):
            (folder / part / name).mkdir(parents=True)
            for path in sorted((tiny_imagenet / part / name).iterdir())[:count]:
                shutil.copy(path, folder / part / name)
    first = sorted(path.name for path in (tiny_imagenet / "val").iterdir())[0]
    return tuple(sorted((tiny_imagenet / "val" / first).iterdir())[1:4])


@pytest.fixture(scope="module", params=[TINY, IMAGENET], ids=lambda case: case.recipe)
def trained(
    request: pytest.FixtureRequest,
    tiny_imagenet_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """A run of the real command, with its calibration and its report."""
    case: Case = request.param
    folder = tmp_path_factory.mktemp(case.recipe)
    photographs = subset(tiny_imagenet_dir, folder / "data", case)
    settings = (*case.settings, "compile=false", "bf16_subnetworks=false", "workers=1")
    before = time.monotonic()
    done = run(
        *("ibinn-train", "fit", "--recipe", case.recipe, "--data", folder / "data"),
        *("--out", folder / "run", "--accelerator", "cpu", "--ood-count", 5),
        *("--ood-data", tiny_imagenet_dir.parent, "--set", "alpha=0.05"),
        *(part for setting in settings for part in ("--set", setting)),
    )
    print(f"fit --recipe {case.recipe} took {time.monotonic() - before:.0f} s")
    assert done.returncode == 0, done.stdout + done.stderr
    return Run(case=case, out=folder / "run", photographs=photographs)


def test_the_recipe_trains_and_leaves_a_calibrated_bundle_with_its_report(trained: Run) -> None:
    points = [json.loads(line) for line in (trained.out / "curve.jsonl").read_text().splitlines()]
    last = points[-1]
    print(f"{trained.case.recipe}: {last['images_per_s']:.2f} images/s, loss {last['loss']:.2f}")
    assert f"max_steps={last['step']}" in trained.case.settings
    assert last["images_per_s"] > 0
    found = bundle.verify(trained.out / "bundle")
    assert len(found.classes) == trained.case.classes
    assert "tench" not in found.classes  # Tiny ImageNet has none
    assert "goldfish" in found.classes
    assert {"report.html", "reference.safetensors"} <= set(found.files)
    report = json.loads((trained.out / "bundle" / "report.json").read_text(encoding="utf-8"))
    assert {entry["name"] for entry in report["sets"]} >= {"rotation", "noise-0.1"}
    assert report["completeness"]["worst"] <= MOST_NATS


def test_the_bundle_is_served_classified_and_explained(trained: Run) -> None:
    local = bundle.load(trained.out / "bundle")
    assert local.network.dims == trained.case.dims
    serve = ("--bundle", trained.out / "bundle", "--port", "0", "--metrics-port", "0")
    before = time.monotonic()
    with started("ibinn-serve", *serve, stream="stdout") as server:
        address = read_until(server, r"grpc=(127\.0\.0\.1:\d+)")[1]
        ready = time.monotonic() - before
        with Client(address, timeout_s=120) as client:
            asked = time.monotonic()
            answers = [client.classify(path) for path in trained.photographs]
            classified = (time.monotonic() - asked) / len(answers)
            asked = time.monotonic()
            explanation = client.explain(trained.photographs[0])
            explained = time.monotonic() - asked
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0
    print(
        f"{trained.case.recipe}: serving after {ready:.1f} s, an answer in {classified:.2f} s, an "
        f"explanation in {explained:.2f} s"
    )
    for path, answer in zip(trained.photographs, answers, strict=True):
        expected = local.classify(path)
        assert isinstance(expected, Prediction)
        assert answer.verdict is not Verdict.NOT_ASSESSED
        assert answer.top.name in local.info.classes
        assert answer.top.probability == pytest.approx(expected.top.probability, abs=1e-3)
        assert answer.versions == expected.versions
    assert explanation.heatmaps
    for heatmap in explanation.heatmaps:
        assert heatmap.completeness_error <= MOST_NATS
