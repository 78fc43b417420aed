"""The protocol's methods behind the border: a real server with a stub for a model."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.oip import SERVICE_NAME
from service.oip.v2 import open_inference_grpc_pb2 as oip
from service.oip.v2.open_inference_grpc_pb2_grpc import GRPCInferenceServiceStub
from tests.service.oip.fake_predictor import decoded, encoded, numbers, texts
from tests.service.running import Running, failed, running
from tests.service.stub import StubClassifier, png


def stub_of(server: Running) -> Any:
    return GRPCInferenceServiceStub(server.channel)


async def test_images_of_a_request_share_a_batch_and_are_counted_as_answers() -> None:
    classifier = StubClassifier()
    async with running(classifier) as server:
        response = await stub_of(server).ModelInfer(encoded(*(png(value) for value in range(8))))
        assert texts(response, "class") == ["dog"] * 8
        assert len(set(texts(response, "record_id"))) == 8
        assert sum(classifier.batch_sizes) == 8
        assert len(classifier.batches) < 8
        requests = server.metric("ibinn_requests_total", method="ModelInfer", code="OK")
        assert requests == 1


async def test_decoded_images_reach_the_model() -> None:
    async with running() as server:
        response = await stub_of(server).ModelInfer(decoded(np.zeros((3, 5, 6, 3), np.uint8)))
        assert numbers(response, "posterior").shape == (3, 3)


async def test_a_refusal_names_the_field() -> None:
    async with running() as server:
        request = encoded(png())
        request.inputs[0].shape[0] = -5
        error, details = await failed(stub_of(server).ModelInfer(request))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert details[BadRequest].field_violations[0].field == "inputs[0].shape"
        assert details[ErrorInfo].reason == "REQUEST_INVALID"


async def test_a_damaged_image_is_named() -> None:
    async with running() as server:
        request = encoded(png(), png()[:30], raw=False)
        error, details = await failed(stub_of(server).ModelInfer(request))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        field = details[BadRequest].field_violations[0].field
        assert field == "inputs[0].contents.bytes_contents[1]"
        assert details[ErrorInfo].reason == "IMAGE_UNREADABLE"


async def test_an_unknown_model_is_not_found() -> None:
    async with running() as server:
        request = oip.ModelMetadataRequest(name="nothing")
        error, _ = await failed(stub_of(server).ModelMetadata(request))
        assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_a_server_without_a_model_lives_and_is_not_ready() -> None:
    async with running(loaded=False) as server:
        stub = stub_of(server)
        assert (await stub.ServerLive(oip.ServerLiveRequest())).live
        assert not (await stub.ServerReady(oip.ServerReadyRequest())).ready
        error, _ = await failed(stub.ModelInfer(encoded(png())))
        assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_health_knows_the_service() -> None:
    async with running() as server:
        health = health_pb2_grpc.HealthStub(server.channel)
        found = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE_NAME))
        assert found.status == health_pb2.HealthCheckResponse.SERVING


async def test_every_image_counts_against_the_callers_rate() -> None:
    async with running(caller_rate=1.0, caller_burst=3) as server:
        stub = stub_of(server)
        await stub.ModelInfer(encoded(png(), png()))
        error, details = await failed(stub.ModelInfer(encoded(png(), png())))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details[ErrorInfo].reason == "RATE_LIMITED"
