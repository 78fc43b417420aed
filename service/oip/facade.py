"""The methods of `inference.GRPCInferenceService`: check, classify, convert."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ibinn import __version__
from ibinn.errors import ImageError, NotServingError, UnknownModelError
from ibinn.types import Prediction
from service.call import Call, Role, Route
from service.models.registry import Models
from service.models.served import Served
from service.oip import naming, outputs, parameters
from service.oip.inputs import (
    DATATYPES,
    IMAGE,
    MOST_TYPED_VALUES,
    PIXELS,
    Images,
    Pixels,
    images,
    only_input,
)
from service.oip.v2 import open_inference_grpc_pb2 as oip

SERVICE_NAME: str = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
PLATFORM = "ibinn"
_SHAPES = {IMAGE: (-1,), PIXELS: (-1, -1, -1, 3)}
_MANY_VALUES = 2**16
"""Typed values from which on unpacking them is worth a thread."""


class Predictor(Protocol):
    """What the façade needs of `service.predictor.Predictor`."""

    models: Models

    def model(self, selector: str = "") -> Served:
        """The model that answers; raises NotServingError where none does."""

    async def classify(self, image: bytes, call: Call, *, model: str = "") -> Prediction:
        """The answer for one encoded image."""

    async def classify_pixels(self, pixels: Pixels, call: Call, *, model: str = "") -> Prediction:
        """The answer for one decoded image."""


def oip_routes(predictor: Predictor) -> list[Route]:
    """The service's methods.

    Args:
        predictor: Answers for images.
    """
    facade = _Facade(predictor)
    return [
        Route(
            method="ServerLive", role=None, request=oip.ServerLiveRequest, unary=facade.server_live
        ),
        Route(
            method="ServerReady",
            role=None,
            request=oip.ServerReadyRequest,
            unary=facade.server_ready,
        ),
        Route(
            method="ModelReady", role=None, request=oip.ModelReadyRequest, unary=facade.model_ready
        ),
        Route(
            method="ServerMetadata",
            role=None,
            request=oip.ServerMetadataRequest,
            unary=facade.server_metadata,
        ),
        Route(
            method="ModelMetadata",
            role=Role.CLASSIFY,
            request=oip.ModelMetadataRequest,
            unary=facade.model_metadata,
        ),
        Route(
            method="ModelInfer",
            role=Role.CLASSIFY,
            request=oip.ModelInferRequest,
            unary=facade.model_infer,
        ),
    ]


class _Facade:
    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    async def server_live(
        self, request: oip.ServerLiveRequest, call: Call
    ) -> oip.ServerLiveResponse:
        return oip.ServerLiveResponse(live=True)

    async def server_ready(
        self, request: oip.ServerReadyRequest, call: Call
    ) -> oip.ServerReadyResponse:
        try:
            self._predictor.model()
        except NotServingError:
            return oip.ServerReadyResponse(ready=False)
        return oip.ServerReadyResponse(ready=True)

    async def model_ready(
        self, request: oip.ModelReadyRequest, call: Call
    ) -> oip.ModelReadyResponse:
        try:
            self._find(request.name, request.version)
        except (NotServingError, UnknownModelError):
            return oip.ModelReadyResponse(ready=False)
        return oip.ModelReadyResponse(ready=True)

    async def server_metadata(
        self, request: oip.ServerMetadataRequest, call: Call
    ) -> oip.ServerMetadataResponse:
        return oip.ServerMetadataResponse(name="ibinn", version=__version__)

    async def model_metadata(
        self, request: oip.ModelMetadataRequest, call: Call
    ) -> oip.ModelMetadataResponse:
        served = self._find(request.name, request.version)
        versions = dict.fromkeys(
            other.digest for other in naming.named(self._predictor.models, request.name)
        )
        response = oip.ModelMetadataResponse(
            name=served.info.name, versions=versions, platform=PLATFORM
        )
        for name, datatype in DATATYPES.items():
            response.inputs.add(name=name, datatype=datatype, shape=_SHAPES[name])
        for output in outputs.OUTPUTS.values():
            response.outputs.add(
                name=output.name, datatype=output.datatype, shape=output.shape(-1, served.info)
            )
        return response

    async def model_infer(
        self, request: oip.ModelInferRequest, call: Call
    ) -> oip.ModelInferResponse:
        # What is counted before it is walked through comes first.
        wanted = outputs.wanted(request)
        only_input(request)
        timeout_s = parameters.timeout_s(request)
        served = self._find(request.model_name, request.model_version)
        found = await _unpacked(request, served)
        call.charge(found.count)
        if timeout_s is not None:
            call = replace(call, deadline=min(call.deadline, time.monotonic() + timeout_s))
        answers = await self._classified(request, found, call)
        return outputs.response(
            request, answers[0][0], [prediction for _, prediction in answers], wanted, raw=found.raw
        )

    async def _classified(
        self, request: oip.ModelInferRequest, found: Images, call: Call
    ) -> list[tuple[Served, Prediction]]:
        """Answers for all images, each with the model that gave it, which is the same for all.

        The tasks begin one after the other with nothing between them, and each finds its model
        first, so that no exchange of models comes between two images of a request.
        """

        async def answer(image: bytes | Pixels) -> tuple[Served, Prediction]:
            served = self._find(request.model_name, request.model_version)
            classified: Coroutine[Any, Any, Prediction] = (
                self._predictor.classify(image, call, model=served.digest)
                if isinstance(image, bytes)
                else self._predictor.classify_pixels(image, call, model=served.digest)
            )
            return served, await classified

        tasks: list[asyncio.Task[tuple[Served, Prediction]]] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(answer(image)) for image in found.all()]
        except ExceptionGroup as errors:
            raise _first(tasks, found) from errors
        return [task.result() for task in tasks]

    def _find(self, name: str, version: str) -> Served:
        self._predictor.model()  # raises where the server is stopping
        return naming.find(self._predictor.models, name, version)


async def _unpacked(request: oip.ModelInferRequest, served: Served) -> Images:
    values = len(request.inputs[0].contents.uint_contents)
    if _MANY_VALUES < values <= MOST_TYPED_VALUES:
        return await asyncio.to_thread(images, request, served.info)
    return images(request, served.info)


def _first(
    tasks: Sequence[asyncio.Task[tuple[Served, Prediction]]], found: Images
) -> BaseException:
    """The error to tell of several: the first image's, with its number if it is about the image."""
    index, error = next(
        (index, error)
        for index, task in enumerate(tasks)
        if not task.cancelled() and (error := task.exception()) is not None
    )
    if not isinstance(error, ImageError):
        return error
    named = found.field if found.raw else f"{found.field}[{index}]"
    return type(error)(f"image {index} of {len(tasks)} (from 0): {error}", field=named)
