"""A client of another inference server gets the numbers that ours gets, from a real server."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ibinn import samples
from ibinn.client import Client
from ibinn.types import ModelInfo, Prediction
from tests.e2e.test_train_serve import read_until, started

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-5

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Seen:
    """What both clients got for the same images, each image in a call of its own."""

    def __init__(self) -> None:
        chosen = (*samples.thumbnails()[:4], samples.digit(), samples.noise())
        self.images = [sample.data for sample in chosen]
        self.pixels = [
            np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in self.images
        ]
        with started(
            "ibinn-serve", "--port", "0", "--metrics-port", "0", stream="stdout"
        ) as server:
            address = read_until(server, r"grpc=(127\.0\.0\.1:\d+)")[1]
            with Client(address) as client:
                self.info: ModelInfo = client.model()
                self.encoded: list[Prediction] = [client.classify(data) for data in self.images]
                self.decoded: list[Prediction] = [client.classify(array) for array in self.pixels]
            done = subprocess.run(
                [sys.executable, "-m", "tests.e2e.tritonclient_asks", address],
                input=pickle.dumps(list(zip(self.images, self.pixels, strict=True))),
                capture_output=True,
                cwd=ROOT,
                timeout=200,
            )
        assert done.returncode == 0, done.stderr.decode()
        self.theirs: dict[str, Any] = json.loads(done.stdout)


@pytest.fixture(scope="module")
def seen() -> Seen:
    pytest.importorskip("rapidjson")  # comes with tritonclient, which is not imported here
    return Seen()


def check(theirs: dict[str, Any], row: int, ours: Prediction, info: ModelInfo) -> None:
    """One row of their answer says the same as our answer."""
    posterior, log_likelihood = theirs["posterior"][row], theirs["log_likelihood"][row]
    for score in ours.classes:
        assert posterior[score.index] == pytest.approx(score.probability, abs=TOLERANCE)
        expected = pytest.approx(score.log_likelihood, rel=TOLERANCE)
        assert log_likelihood[score.index] == expected
    assert ours.combined is not None
    p_values = {result.name: result.p_value for result in (*ours.tests, ours.combined)}
    assert theirs["tests"] == [test.name for test in info.tests] == list(p_values)
    assert theirs["p_values"][row] == pytest.approx(list(p_values.values()), abs=TOLERANCE)
    assert theirs["bits_per_dim"][row] == pytest.approx(ours.bits_per_dim, abs=TOLERANCE)
    assert theirs["class"][row] == ours.top.name
    assert theirs["verdict"][row] == ours.verdict.value
    assert theirs["classes"] == list(info.classes)
    assert theirs["version"] == info.versions.weights


def test_server_and_model_are_ready_and_described(seen: Seen) -> None:
    theirs = seen.theirs
    assert [theirs[name] for name in ("live", "ready", "model_ready", "pinned_ready")] == [True] * 4
    assert theirs["other_ready"] is False
    assert theirs["server"]["name"] == "ibinn"
    assert theirs["model"]["name"] == seen.info.name
    assert theirs["model"]["versions"] == [seen.info.versions.weights]
    shapes = {tensor["name"]: tensor["shape"] for tensor in theirs["model"]["outputs"]}
    assert shapes["posterior"] == ["-1", str(len(seen.info.classes))]
    assert shapes["p_values"] == ["-1", str(len(seen.info.tests))]


def test_encoded_images_get_the_numbers_of_our_client(seen: Seen) -> None:
    for index, (theirs, ours) in enumerate(zip(seen.theirs["encoded"], seen.encoded, strict=True)):
        check(theirs, 0, ours, seen.info)
        assert theirs["id"] == f"image-{index}"


def test_decoded_images_get_the_numbers_of_our_client(seen: Seen) -> None:
    for theirs, ours in zip(seen.theirs["decoded"], seen.decoded, strict=True):
        check(theirs, 0, ours, seen.info)


def test_images_of_one_request_are_answered_in_order(seen: Seen) -> None:
    assert seen.theirs["together"]["class"] == [answer.top.name for answer in seen.encoded]
    assert seen.theirs["verdicts"] == [answer.verdict.value for answer in seen.encoded]
    assert seen.theirs["only"] == ["verdict"]
    assert {"UNKNOWN"} < set(seen.theirs["verdicts"])


def test_refusals_say_what_is_wrong(seen: Seen) -> None:
    status, message = seen.theirs["damaged"]
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert message.startswith("image 1 of 2 (from 0): ")
    status, message = seen.theirs["unknown_parameter"]
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert "the server knows no such parameter" in message
    status, message = seen.theirs["unknown_version"]
    assert status == "StatusCode.NOT_FOUND"
    assert "no version '1'" in message
