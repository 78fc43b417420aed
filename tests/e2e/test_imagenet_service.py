"""A checkpoint in the released layout becomes a service in two commands, at its full size."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from ibinn import bundle
from ibinn.classifier import GenerativeClassifier
from ibinn.client import Client
from ibinn.flow import IbInn50Config
from ibinn.images import PreprocessingConfig
from ibinn.latent import GaussianMixture, MixtureConfig
from ibinn.manifest import Manifest, Training
from ibinn.types import Verdict
from tests.ibinn.networks import randomise

BIN = Path(sys.executable).parent
TIMEOUT_S = 300
MOST_NATS = 1e-2
"""Largest completeness error of a heatmap."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * TIMEOUT_S)]


def run(*command: object) -> str:
    """What a command of this environment prints."""
    name, *arguments = map(str, command)
    done = subprocess.run(
        [str(BIN / name), *arguments], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights in the released layout, 77,486,672 parameters."""
    folder = tmp_path_factory.mktemp("released")
    config = IbInn50Config(pooling="published")
    network = randomise(config.build())
    generator = torch.Generator().manual_seed(1)
    means = MixtureConfig(rank=128, class_dims=3072)
    mixture = GaussianMixture(1000, network.dims, means, generator=generator)
    manifest = Manifest(
        name="random",
        architecture={"name": "ib-inn-50", "pooling": "published"},
        mixture={"rank": 128, "class_dims": 3072},
        preprocessing=PreprocessingConfig(
            side=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        ).to_dict(),
        classes=tuple(f"class {number}" for number in range(1000)),
        taxonomy_version="1",
        alpha=0.01,
        conformal_coverage=0.95,
        intended_use="Tests.",
        training_data="None: random weights.",
        training=Training(
            command="none", seconds=0.0, machine="none", config={}, split_sha256={}, libraries={}
        ),
    )
    bundle.save(manifest, GenerativeClassifier(network, mixture), None, folder / "made")
    file = folder / "random.avg.pt"
    run("ibinn-train", "export-checkpoint", folder / "made", "--out", file)
    return file


@pytest.fixture(scope="module")
def served(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the imported checkpoint."""
    imported = tmp_path_factory.mktemp("imported") / "bundle"
    said = run("ibinn-train", "import-checkpoint", released, "--out", imported)
    assert "not calibrated" in said.lower()
    process = subprocess.Popen(
        [str(BIN / "ibinn-serve"), "--bundle", str(imported), "--port", "0", "--metrics-port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        ready = next(filter(None, (re.search(r"grpc=(\S+)", line) for line in process.stdout)))
        yield ready[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def photograph() -> bytes:
    data = pytest.importorskip("skimage.data")
    file = io.BytesIO()
    Image.fromarray(data.coffee()).save(file, "JPEG", quality=90)
    return file.getvalue()


def test_a_photograph_is_classified_without_a_verdict_that_nothing_supports(
    served: str, photograph: bytes
) -> None:
    with Client(served, timeout_s=60) as client:
        model = client.model()
        answer = client.classify(photograph)
    assert (model.parameters, len(model.classes)) == (77_486_672, 1000)
    assert not model.calibrated
    assert "coffee mug" in model.classes
    assert answer.verdict is Verdict.NOT_ASSESSED
    assert sum(found.probability for found in answer.classes) == pytest.approx(1.0, abs=1e-3)


def test_a_heatmap_of_seven_by_seven_cells_adds_up(served: str, photograph: bytes) -> None:
    with Client(served, timeout_s=60) as client:
        explanation = client.explain(photograph, classes=["coffee mug", "espresso"])
    names = [heatmap.class_name for heatmap in explanation.heatmaps]
    assert names == ["coffee mug", "espresso"]
    for heatmap in explanation.heatmaps:
        assert heatmap.values.shape == (7, 7)
        error = abs(float(heatmap.values.sum()) - heatmap.log_posterior)
        print(f"{heatmap.class_name}: completeness error {error:.1e} nats")
        assert error <= MOST_NATS
        assert heatmap.completeness_error <= MOST_NATS
