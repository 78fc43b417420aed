"""`Client` and `AsyncClient`: one call for each RPC."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, cast

import grpc
import grpc.aio

from ibinn.client import answers, models
from ibinn.client.failures import remote_error
from ibinn.client.payload import Payload, to_bytes
from ibinn.client.requests import explain_request
from ibinn.types import (
    ContrastChoice,
    ExplainOptions,
    Explanation,
    HeatmapSize,
    ModelInfo,
    Prediction,
)
from ibinn.v1 import classification_service_pb2 as service
from ibinn.v1.classification_service_pb2_grpc import ClassificationServiceStub

DEFAULT_TIMEOUT_S = 30.0
_MAX_ANSWER_BYTES = 64 * 2**20
_OPTIONS = (("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),)


class Client:
    """Asks a server; blocks until the answer is there. Usable from several threads.

    Args:
        target: The server's address, ``host:port``.
        timeout_s: Time for each call, unless the call says otherwise; None waits for ever.
        credentials: For a server behind TLS; None sends in the clear.

    Every call raises a subclass of `ibinn.errors.RemoteError` if there is no result, and
    `ibinn.errors.ImageError` if an image cannot even be read here.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._channel = (
            grpc.insecure_channel(target, options=_OPTIONS)
            if credentials is None
            else grpc.secure_channel(target, credentials, options=_OPTIONS)
        )
        self._stub: Any = ClassificationServiceStub(self._channel)

    def classify(self, image: Payload, *, timeout_s: float | None = None) -> Prediction:
        """The answer for one image.

        Args:
            image: Encoded bytes, a path, a PIL image, or a uint8 array (H, W, 3) or (H, W).
            timeout_s: Time for this call; None: the client's.
        """
        request = service.ClassifyRequest(image=to_bytes(image))
        response = cast(
            service.ClassifyResponse, self._call(self._stub.Classify, request, timeout_s)
        )
        return answers.prediction(response.classification)

    def explain(
        self,
        image: Payload,
        *,
        classes: Sequence[str] | None = None,
        contrast: ContrastChoice | None = None,
        heatmap_size: HeatmapSize = HeatmapSize.GRID,
        timeout_s: float | None = None,
    ) -> Explanation:
        """Heatmaps for one image, and its answer.

        Args:
            image: As for `classify`.
            classes: Names of the classes to explain; None: the three most probable.
            contrast: Two classes to weigh against each other; None: no contrast.
            heatmap_size: How finely heatmaps and contrast are drawn.
            timeout_s: Time for this call; None: the client's.
        """
        options = ExplainOptions(
            classes=tuple(classes or ()), contrast=contrast, heatmap_size=heatmap_size
        )
        request = explain_request(to_bytes(image), options)
        response = cast(service.ExplainResponse, self._call(self._stub.Explain, request, timeout_s))
        return answers.explanation(response)

    def model(self, *, timeout_s: float | None = None) -> ModelInfo:
        """What the server's model is."""
        response = cast(
            service.GetModelResponse,
            self._call(self._stub.GetModel, service.GetModelRequest(), timeout_s),
        )
        return models.model_info(response.model)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, method: Any, request: object, timeout_s: float | None) -> object:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            return method(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise remote_error(error, target=self._target, timeout_s=timeout_s) from error


class AsyncClient:
    """Asks a server from asyncio code; the same calls, results and errors as `Client`.

    Args:
        target: The server's address, ``host:port``.
        timeout_s: Time for each call, unless the call says otherwise; None waits for ever.
        credentials: For a server behind TLS; None sends in the clear.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._channel = (
            grpc.aio.insecure_channel(target, options=_OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
        )
        self._stub: Any = ClassificationServiceStub(self._channel)

    async def classify(self, image: Payload, *, timeout_s: float | None = None) -> Prediction:
        """The answer for one image; see `Client.classify`."""
        request = service.ClassifyRequest(image=to_bytes(image))
        response = cast(
            service.ClassifyResponse, await self._call(self._stub.Classify, request, timeout_s)
        )
        return answers.prediction(response.classification)

    async def explain(
        self,
        image: Payload,
        *,
        classes: Sequence[str] | None = None,
        contrast: ContrastChoice | None = None,
        heatmap_size: HeatmapSize = HeatmapSize.GRID,
        timeout_s: float | None = None,
    ) -> Explanation:
        """Heatmaps for one image, and its answer; see `Client.explain`."""
        options = ExplainOptions(
            classes=tuple(classes or ()), contrast=contrast, heatmap_size=heatmap_size
        )
        request = explain_request(to_bytes(image), options)
        response = cast(
            service.ExplainResponse, await self._call(self._stub.Explain, request, timeout_s)
        )
        return answers.explanation(response)

    async def model(self, *, timeout_s: float | None = None) -> ModelInfo:
        """What the server's model is."""
        response = cast(
            service.GetModelResponse,
            await self._call(self._stub.GetModel, service.GetModelRequest(), timeout_s),
        )
        return models.model_info(response.model)

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _call(self, method: Any, request: object, timeout_s: float | None) -> object:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            return await method(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise remote_error(error, target=self._target, timeout_s=timeout_s) from error
