"""The methods of `ibinn.v1.ClassificationService`: convert, call, convert."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from ibinn.types import Prediction
from ibinn.v1 import classification_service_pb2 as service
from service import converters, streaming
from service.call import Call, Role, Route
from service.monitoring import Monitor
from service.predictor import Predictor
from service.status import failure

SERVICE_NAME: str = service.DESCRIPTOR.services_by_name["ClassificationService"].full_name

Describe = Callable[[service.GetModelResponse], None]
"""Adds to GetModel's answer what the server holds beside the model asked about."""


class ClassificationServicer:
    """Answers calls; errors leave as exceptions, which `service.border` makes into statuses.

    Args:
        predictor: Answers for images.
        monitor: Counts images of a stream that got an error.
        stream_window: Most unanswered images of one stream.
        describe: Completes GetModel's answer.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        monitor: Monitor,
        stream_window: int,
        describe: Describe,
    ) -> None:
        self._predictor = predictor
        self._monitor = monitor
        self._stream_window = stream_window
        self._describe = describe

    def routes(self) -> list[Route]:
        """The service's methods."""
        return [
            Route(
                method="Classify",
                role=Role.CLASSIFY,
                request=service.ClassifyRequest,
                unary=self.classify,
                images=1,
            ),
            Route(
                method="ClassifyStream",
                role=Role.CLASSIFY,
                request=service.ClassifyStreamRequest,
                stream=self.classify_stream,
            ),
            Route(
                method="Explain",
                role=Role.EXPLAIN,
                request=service.ExplainRequest,
                unary=self.explain,
                images=1,
            ),
            Route(
                method="GetModel",
                role=Role.CLASSIFY,
                request=service.GetModelRequest,
                unary=self.get_model,
            ),
        ]

    async def classify(
        self, request: service.ClassifyRequest, call: Call
    ) -> service.ClassifyResponse:
        """Classifies one image."""
        prediction = await self._prediction(request, call)
        return converters.classify_response(prediction, request.options)

    async def _prediction(self, request: service.ClassifyRequest, call: Call) -> Prediction:
        return await self._predictor.classify(
            request.image,
            call,
            model=request.model,
            timeout_s=converters.timeout_s(request),
            group_id=request.group_id,
        )

    async def classify_stream(
        self, messages: AsyncIterator[service.ClassifyStreamRequest], call: Call
    ) -> AsyncIterator[service.ClassifyStreamResponse]:
        """Classifies images as they come; a result that is an error does not end the call."""

        async def answer(index: int, request: service.ClassifyRequest) -> service.ClassifyResult:
            named = replace(call, request_id=request.request_id or uuid.uuid4().hex)
            result = service.ClassifyResult(request_id=named.request_id, index=index)
            try:
                call.charge(1)
                prediction = await self._prediction(request, named)
                converters.fill(result.classification, prediction, request.options)
            except Exception as error:  # noqa: BLE001 - it belongs to this image, not to the call
                told = failure(error, request_id=named.request_id)
                self._monitor.rejection(told.reason)
                result.error.CopyFrom(told.status())
            return result

        groups = (list(message.requests) async for message in messages)
        async for results in streaming.answered(
            groups, answer, window=self._stream_window, stop=self._predictor.draining
        ):
            yield service.ClassifyStreamResponse(results=results)

    async def explain(self, request: service.ExplainRequest, call: Call) -> service.ExplainResponse:
        """Classifies one image and explains chosen classes."""
        explanation = await self._predictor.explain(
            request.image,
            call,
            options=converters.explain_options(request),
            model=request.model,
            group_id=request.group_id,
        )
        return converters.explain_response(explanation, request.options)

    async def get_model(
        self, request: service.GetModelRequest, call: Call
    ) -> service.GetModelResponse:
        """States what a model is, and which there are."""
        response = converters.get_model_response(self._predictor.model(request.model).info)
        self._describe(response)
        return response
