"""The handlers of `ibinn.v1.ClassificationService`: convert, call, convert."""

from __future__ import annotations

import grpc.aio

from ibinn.v1 import classification_service_pb2 as service
from ibinn.v1.classification_service_pb2_grpc import ClassificationServiceServicer
from service import converters
from service.predictor import Predictor

SERVICE_NAME: str = service.DESCRIPTOR.services_by_name["ClassificationService"].full_name


class ClassificationServicer(ClassificationServiceServicer):
    """Answers calls; errors leave as exceptions, which `service.border` makes into statuses."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    async def Classify(  # noqa: N802 - the wire's name
        self, request: service.ClassifyRequest, context: grpc.aio.ServicerContext
    ) -> service.ClassifyResponse:
        """Classifies one image."""
        prediction = await self._predictor.classify(
            request.image, timeout_s=context.time_remaining()
        )
        return converters.classify_response(prediction)

    async def Explain(  # noqa: N802 - the wire's name
        self, request: service.ExplainRequest, context: grpc.aio.ServicerContext
    ) -> service.ExplainResponse:
        """Classifies one image and explains chosen classes."""
        explanation = await self._predictor.explain(
            request.image,
            options=converters.explain_options(request),
            timeout_s=context.time_remaining(),
        )
        return converters.explain_response(explanation)

    async def GetModel(  # noqa: N802 - the wire's name
        self, request: service.GetModelRequest, context: grpc.aio.ServicerContext
    ) -> service.GetModelResponse:
        """States what the model is."""
        return converters.get_model_response(self._predictor.info)
