"""A model of ImageNet's size: what loading it and asking it costs in time and memory.

77 million random weights are drawn, written, and loaded by a fresh process, with the engine that
servers take by default and as they were trained.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ibinn import bundle, weights
from ibinn.classifier import GenerativeClassifier
from ibinn.flow.ib_inn_50 import IbInn50Config
from ibinn.images import PreprocessingConfig
from ibinn.latent import GaussianMixture, MixtureConfig
from tests.ibinn.bundles import make_manifest
from tests.ibinn.networks import randomise

pytestmark = pytest.mark.slow

CLASSES = tuple(f"class {number}" for number in range(1000))
PARAMETERS = 77_486_672
MIB = 2**20

ASK = """
import json, sys, time
import numpy as np
import torch


def resident(entry):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(entry)).split()[1])


# Waiting threads count as working ones where others want the cores too.
torch.set_num_threads(1)
idle = resident("VmRSS")
from ibinn import bundle, inference
import ibinn.trusted

found = {"form_processor_s": 0.0}
make = inference.make


def timed(*given, **named):
    processor = time.process_time()
    form = make(*given, **named)
    found["form_processor_s"] = time.process_time() - processor
    return form


inference.make = timed
processor, start = time.process_time(), time.perf_counter()
classifier = bundle.load(sys.argv[1], engine=sys.argv[2])
found["load_s"] = time.perf_counter() - start
found["load_processor_s"] = time.process_time() - processor
found["load_bytes"] = resident("VmHWM") - idle
pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
answer = classifier.classify(pixels)
found["classify_bytes"] = resident("VmHWM") - idle
found["verdict"] = answer.verdict.value
found["classes"] = len(answer.classes)
processor = time.process_time()
explanation = classifier.explain(pixels)
found["first_explain_processor_s"] = time.process_time() - processor
processor = time.process_time()
explanation = classifier.explain(pixels)
found["explain_processor_s"] = time.process_time() - processor
found["explain_bytes"] = resident("VmHWM") - idle
found["shape"] = list(explanation.heatmaps[0].values.shape)
found["completeness_error"] = float(classifier.completeness_errors(pixels[None])[0])
found["parameters"] = classifier.info.parameters
found["engine"] = classifier.form.engine if classifier.form else "plain"
found["compiler"] = "torch._dynamo" in sys.modules
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uncalibrated bundle of IB-INN-50 with random weights."""
    path = tmp_path_factory.mktemp("big") / "bundle"
    config = IbInn50Config(pooling="published")
    mixture = MixtureConfig(rank=128, class_dims=3072)
    network = config.build()
    randomise(network)
    model = GenerativeClassifier(network, GaussianMixture(len(CLASSES), network.dims, mixture))
    preprocessing = PreprocessingConfig(
        side=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    found = make_manifest(
        config,
        mixture=dataclasses.asdict(mixture),
        classes=CLASSES,
        preprocessing=preprocessing.to_dict(),
    )
    bundle.save(found, model.eval(), None, path)
    return path


@pytest.fixture(scope="module", params=["auto", "plain"])
def found(request: pytest.FixtureRequest, folder: Path) -> dict[str, Any]:
    """What a fresh process measured, by engine."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(folder), request.param],
        capture_output=True,
        text=True,
        check=True,
    )
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def test_a_model_of_a_thousand_classes_answers_and_explains(found: dict[str, Any]) -> None:
    assert found["engine"] in ("openvino", "plain")
    assert found["parameters"] == PARAMETERS
    assert (found["verdict"], found["classes"]) == ("NOT_ASSESSED", len(CLASSES))
    assert found["shape"] == [7, 7]
    assert found["completeness_error"] < 1e-2


def test_a_request_takes_at_most_twice_the_weights_and_200_mb(
    found: dict[str, Any], folder: Path
) -> None:
    size = (folder / weights.WEIGHTS).stat().st_size
    assert size == pytest.approx(4 * PARAMETERS, rel=0.01)
    for step in ("load_bytes", "classify_bytes", "explain_bytes"):
        assert found[step] <= 2 * size + 200_000_000, (step, found[step] / MIB)


def test_loading_takes_under_three_seconds(found: dict[str, Any]) -> None:
    # Processor time of one thread, not the clock's: others may compute on this machine. It leaves
    # out waiting for the disk, and work that two threads would share. A form is made after that.
    assert found["load_processor_s"] - found["form_processor_s"] < 3.0, found
    assert found["form_processor_s"] < 6.0, found
    assert not found["compiler"]


def test_an_explanation_takes_about_a_second(found: dict[str, Any]) -> None:
    assert found["explain_processor_s"] < 2.0, found
    # Norms of the classes' means in each cell are computed at the first.
    assert found["first_explain_processor_s"] < 5.0, found
