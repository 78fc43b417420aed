"""A predictor that answers at once, and requests to ask it with."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ibinn.errors import IbinnError, ImageDecodeError, NotServingError
from ibinn.types import Prediction, Receipt, ServerTiming
from service.call import Call, Caller, Role, Route
from service.models.registry import Models
from service.models.served import Served
from service.oip import oip_routes
from service.oip.v2 import open_inference_grpc_pb2 as oip
from tests.service.stub import INFO, StubClassifier, make_prediction

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def served(*, name: str = "stub", weights: str = "a" * 64, **changes: Any) -> Served:
    versions = dataclasses.replace(INFO.versions, weights=weights)
    info = dataclasses.replace(INFO, name=name, versions=versions, **changes)
    return Served.of(StubClassifier(info=info))


class FakePredictor:
    """Answers `make_prediction()`; an image that begins with ``bad`` cannot be decoded."""

    def __init__(self, *models: Served) -> None:
        self.models = Models()
        for model in reversed(models or (served(),)):
            self.models.set_default(model)
        self.draining = False
        self.seen: list[tuple[bytes | Pixels, Call, str]] = []
        self.prediction = make_prediction()
        self.errors: dict[bytes, IbinnError] = {
            b"bad": ImageDecodeError("image cannot be decoded; send the complete file")
        }
        self.before: Callable[[], None] = lambda: None

    def model(self, selector: str = "") -> Served:
        if self.draining:
            raise NotServingError("the server is stopping")
        return self.models.resolve(selector)

    async def classify(self, image: bytes, call: Call, *, model: str = "") -> Prediction:
        self.seen.append((image, call, model))
        self.before()
        if image in self.errors:
            raise self.errors[image]
        return self._answer(len(self.seen))

    async def classify_pixels(self, pixels: Pixels, call: Call, *, model: str = "") -> Prediction:
        self.seen.append((pixels, call, model))
        return self._answer(len(self.seen))

    def _answer(self, number: int) -> Prediction:
        timing = ServerTiming(prepare_s=0.0, queue_s=0.0, compute_s=0.0, total_s=0.0, batch_size=1)
        receipt = Receipt(
            record_id=f"record-{number}",
            received_time=dataclasses.MISSING,  # type: ignore[arg-type]
            timing=timing,
        )
        return dataclasses.replace(self.prediction, receipt=receipt)


@dataclasses.dataclass(slots=True)
class Asking:
    """Calls the façade's methods as the border does."""

    predictor: FakePredictor = dataclasses.field(default_factory=FakePredictor)
    charged: list[int] = dataclasses.field(default_factory=list)

    def route(self, method: str) -> Route:
        return {route.method: route for route in oip_routes(self.predictor)}[method]

    async def ask(self, method: str, request: Any, *, deadline: float = math.inf) -> Any:
        route = self.route(method)
        assert isinstance(request, route.request)
        assert route.unary is not None
        call = Call(
            method=method,
            request_id="r",
            caller=Caller(name="someone", roles=frozenset({Role.CLASSIFY})),
            deadline=deadline,
            charge=self.charged.append,
        )
        return await route.unary(request, call)

    async def infer(self, request: oip.ModelInferRequest, **options: Any) -> Any:
        return await self.ask("ModelInfer", request, **options)


def joined(*elements: bytes) -> bytes:
    return b"".join(len(e).to_bytes(4, "little") + e for e in elements)


def split(raw: bytes) -> list[str]:
    found = []
    while raw:
        length = int.from_bytes(raw[:4], "little")
        found.append(raw[4 : 4 + length].decode())
        raw = raw[4 + length :]
    return found


def encoded(*images: bytes, raw: bool = True, **fields: Any) -> oip.ModelInferRequest:
    """A request with encoded images."""
    request = oip.ModelInferRequest(model_name="stub", **fields)
    tensor = request.inputs.add(name="image", datatype="BYTES", shape=[len(images)])
    if raw:
        request.raw_input_contents.append(joined(*images))
    else:
        tensor.contents.bytes_contents.extend(images)
    return request


def decoded(pixels: Pixels, *, raw: bool = True) -> oip.ModelInferRequest:
    """A request with decoded images."""
    request = oip.ModelInferRequest(model_name="stub")
    tensor = request.inputs.add(name="pixels", datatype="UINT8", shape=pixels.shape)
    if raw:
        request.raw_input_contents.append(pixels.tobytes())
    else:
        tensor.contents.uint_contents.extend(pixels.ravel().tolist())
    return request


def numbers(response: oip.ModelInferResponse, name: str) -> Any:
    """A raw FP64 output as an array."""
    for index, output in enumerate(response.outputs):
        if output.name == name:
            assert output.datatype == "FP64"
            raw = response.raw_output_contents[index]
            return np.frombuffer(raw, dtype="<f8").reshape(tuple(output.shape))
    raise AssertionError(f"no output {name}")


def texts(response: oip.ModelInferResponse, name: str) -> list[str]:
    """A raw BYTES output as strings."""
    for index, output in enumerate(response.outputs):
        if output.name == name:
            assert output.datatype == "BYTES"
            found = split(response.raw_output_contents[index])
            assert list(output.shape) == [len(found)]
            return found
    raise AssertionError(f"no output {name}")
