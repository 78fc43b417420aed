"""Asks a server through the public package `tritonclient`; run as a program by the test beside it.

A process of its own: that package and `service.oip` define the same protobuf names.

    python -m tests.e2e.tritonclient_asks HOST:PORT < images      prints one JSON object

Standard input: pickled list of (encoded bytes, uint8 array (H, W, 3)).
"""

from __future__ import annotations

import json
import pickle
import sys
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

MODEL = "ibinn"
NUMBERS = ("posterior", "log_likelihood", "p_values", "bits_per_dim")
TEXTS = ("class", "verdict", "decision")


def bytes_input(images: list[bytes], *, column: bool = False) -> InferInput:
    shape = [len(images), 1] if column else [len(images)]
    tensor = InferInput("image", shape, "BYTES")
    tensor.set_data_from_numpy(np.array(images, dtype=np.object_).reshape(shape))
    return tensor


def pixel_input(pixels: np.ndarray[Any, Any]) -> InferInput:
    tensor = InferInput("pixels", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels)
    return tensor


def answer(client: InferenceServerClient, tensor: InferInput, **options: Any) -> dict[str, Any]:
    result = client.infer(MODEL, [tensor], **options)
    found: dict[str, Any] = {name: result.as_numpy(name).tolist() for name in NUMBERS}
    for name in TEXTS:
        found[name] = [value.decode() for value in result.as_numpy(name)]
    response = result.get_response()
    found["id"] = response.id
    found["version"] = response.model_version
    found["classes"] = json.loads(response.parameters["classes"].string_param)
    found["tests"] = json.loads(response.parameters["tests"].string_param)
    return found


def refused(client: InferenceServerClient, tensor: InferInput, **options: Any) -> list[str]:
    try:
        client.infer(MODEL, [tensor], **options)
    except InferenceServerException as error:
        return [error.status(), error.message()]
    raise AssertionError("the server answered")


def main() -> None:
    images = pickle.load(sys.stdin.buffer)
    encoded = [data for data, _ in images]
    with InferenceServerClient(sys.argv[1]) as client:
        metadata = client.get_model_metadata(MODEL, as_json=True)
        version = metadata["versions"][0]
        verdicts = client.infer(
            MODEL, [bytes_input(encoded)], outputs=[InferRequestedOutput("verdict")]
        )
        found = {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": client.is_model_ready(MODEL),
            "pinned_ready": client.is_model_ready(MODEL, version[:12]),
            "other_ready": client.is_model_ready("other"),
            "server": client.get_server_metadata(as_json=True),
            "model": metadata,
            "encoded": [
                answer(client, bytes_input([data]), request_id=f"image-{index}")
                for index, data in enumerate(encoded)
            ],
            "decoded": [answer(client, pixel_input(pixels)) for _, pixels in images],
            "together": answer(
                client,
                bytes_input(encoded, column=True),
                model_version=version,
                priority=1,
                timeout=30_000_000,
            ),
            "verdicts": [value.decode() for value in verdicts.as_numpy("verdict")],
            "only": [output.name for output in verdicts.get_response().outputs],
            "damaged": refused(client, bytes_input([encoded[0], encoded[1][:50]])),
            "unknown_parameter": refused(
                client, bytes_input(encoded[:1]), parameters={"alpha": 0.5}
            ),
            "unknown_version": refused(client, bytes_input(encoded[:1]), model_version="1"),
        }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
