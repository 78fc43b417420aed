"""Requests and answers as bytes, for programs that send the same request many times."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf.duration_pb2 import Duration

from ibinn.v1 import classification_service_pb2 as service

_SERVICE: str = service.DESCRIPTOR.services_by_name["ClassificationService"].full_name
CLASSIFY = f"/{_SERVICE}/Classify"
CLASSIFY_STREAM = f"/{_SERVICE}/ClassifyStream"
EXPLAIN = f"/{_SERVICE}/Explain"

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


def classify_bytes(image: bytes, *, model: str = "") -> bytes:
    """A request to classify one image."""
    return bytes(service.ClassifyRequest(image=image, model=model).SerializeToString())


def explain_bytes(image: bytes, *, model: str = "") -> bytes:
    """A request to explain one image's most probable classes."""
    return bytes(service.ExplainRequest(image=image, model=model).SerializeToString())


def stream_bytes(images: Sequence[bytes], *, timeout_s: float, model: str = "") -> bytes:
    """One message of a stream, with several images; each gives up after `timeout_s`."""
    timeout = Duration()
    timeout.FromNanoseconds(round(timeout_s * 1e9))
    requests = [
        service.ClassifyRequest(image=image, model=model, timeout=timeout) for image in images
    ]
    return bytes(service.ClassifyStreamRequest(requests=requests).SerializeToString())


def stream_results(message: bytes) -> list[tuple[int, str]]:
    """What a stream's message answers: for each image its position and the status' name."""
    return [
        (
            result.index,
            _CODES.get(result.error.code, "UNKNOWN")
            if result.WhichOneof("result") == "error"
            else "OK",
        )
        for result in service.ClassifyStreamResponse.FromString(message).results
    ]
