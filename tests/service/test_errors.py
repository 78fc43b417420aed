"""Every way not to get an answer has its status, its details and its exception."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import logging
import struct
import zlib
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from PIL import Image

from ibinn import errors
from ibinn.client import AsyncClient
from ibinn.types import ContrastChoice, HeatmapSize
from ibinn.v1 import classification_service_pb2 as service
from ibinn.v1.classification_service_pb2_grpc import ClassificationServiceStub
from tests.service.running import failed, running, settings
from tests.service.stub import INFO, StubClassifier, png


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says it has 100 megapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100_000)))


def truncated() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, format="JPEG")
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


BAD_IMAGES = {
    "empty": (b"", "IMAGE_UNREADABLE"),
    "truncated": (truncated(), "IMAGE_UNREADABLE"),
    "not_an_image": (b"<html>not an image</html>", "IMAGE_UNREADABLE"),
    "bomb": (bomb(), "IMAGE_TOO_LARGE"),
    "one_byte_too_many": (png() + bytes(INFO.max_bytes), "IMAGE_TOO_LARGE"),
    "as_large_as_grpc_takes": (png() + bytes(2 * INFO.max_bytes), "IMAGE_TOO_LARGE"),
}


@pytest.mark.parametrize("method", ["Classify", "Explain"])
async def test_bad_image_gets_invalid_argument_and_the_server_goes_on(method: str) -> None:
    requests = {"Classify": service.ClassifyRequest, "Explain": service.ExplainRequest}
    async with running() as run:
        call = getattr(ClassificationServiceStub(run.channel), method)
        for name, (data, reason) in BAD_IMAGES.items():
            error, details = await failed(call(requests[method](image=data)))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, name
            assert details[ErrorInfo].reason == reason, name
            assert details[ErrorInfo].domain == "ibinn"
            (violation,) = details[BadRequest].field_violations
            assert violation.field.split(".")[0] == "image"
            assert violation.description == error.details()
            assert (await run.client.classify(png())).top.name == "dog"
        assert run.stub.batch_sizes == [1] * len(BAD_IMAGES)
        for reason in ("IMAGE_UNREADABLE", "IMAGE_TOO_LARGE"):
            assert run.metric("ibinn_rejections_total", reason=reason) == 3


@pytest.mark.parametrize("data", [b"", bytes(2 * INFO.max_bytes), bytes(5 * INFO.max_bytes)])
async def test_client_raises_invalid_image_error_whatever_the_size(data: bytes) -> None:
    async with running() as run:
        with pytest.raises(errors.InvalidImageError):
            await run.client.classify(data)
        assert (await run.client.classify(png())).top.name == "dog"


async def test_bytes_that_are_no_request_do_not_stop_the_server() -> None:
    async with running() as run:
        raw = run.channel.unary_unary("/ibinn.v1.ClassificationService/Classify")
        await failed(raw(b"\xff\xff\xff"))
        assert (await run.client.classify(png())).top.name == "dog"


async def test_full_server_answers_resource_exhausted_with_retry_info() -> None:
    async with running(max_pending=2) as run:
        run.stub.gate.clear()
        first = asyncio.create_task(run.client.classify(png(1)))
        second = asyncio.create_task(run.client.classify(png(2)))
        await run.pending(2)
        call = ClassificationServiceStub(run.channel).Classify
        error, details = await failed(call(service.ClassifyRequest(image=png())))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details[ErrorInfo].reason == "QUEUE_FULL"
        assert details[RetryInfo].retry_delay.ToTimedelta().total_seconds() >= 0.1
        with pytest.raises(errors.OverloadedError) as caught:
            await run.client.classify(png())
        assert caught.value.retry_after_s is not None
        run.stub.gate.set()
        await asyncio.gather(first, second)
        assert (await run.client.classify(png())).top.name == "dog"
        assert run.metric("ibinn_rejections_total", reason="QUEUE_FULL") == 2


async def test_full_server_refuses_before_it_decodes() -> None:
    async with running(max_pending=1) as run:
        run.stub.gate.clear()
        first = asyncio.create_task(run.client.classify(png(1)))
        await run.pending(1)
        with pytest.raises(errors.OverloadedError):
            await run.client.classify(b"not an image")
        run.stub.gate.set()
        await first


async def test_request_that_expires_while_it_waits_is_not_computed() -> None:
    async with running() as run:
        run.stub.gate.clear()
        first = asyncio.create_task(run.client.classify(png(1)))
        await run.entered()
        with pytest.raises(errors.DeadlineError):
            await run.client.classify(png(2), timeout_s=0.2)
        await run.pending(1)
        run.stub.gate.set()
        await first
        await run.client.classify(png(3))
        assert run.stub.batch_sizes == [1, 1]


async def test_server_has_a_time_limit_of_its_own() -> None:
    async with running(request_timeout_s=0.2) as run:
        run.stub.gate.clear()
        call = ClassificationServiceStub(run.channel).Classify
        error, details = await failed(call(service.ClassifyRequest(image=png())))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert details[ErrorInfo].reason == "EXPIRED"
        assert run.metric("ibinn_rejections_total", reason="EXPIRED") == 1


async def test_request_whose_caller_hung_up_is_not_computed() -> None:
    async with running() as run:
        run.stub.gate.clear()
        first = asyncio.create_task(run.client.classify(png(1)))
        await run.entered()
        second = asyncio.create_task(run.client.classify(png(2)))
        await run.pending(2)
        second.cancel()
        await run.pending(1)
        run.stub.gate.set()
        await first
        await run.client.classify(png(3))
        assert run.stub.batch_sizes == [1, 1]
        assert run.metric("ibinn_rejections_total", reason="CANCELLED") == 1


async def test_fault_of_ours_is_internal_with_an_incident_id_and_no_internals(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(StubClassifier(error=RuntimeError("secret path /etc"))) as run:
        call = ClassificationServiceStub(run.channel).Classify
        with caplog.at_level(logging.ERROR):
            error, details = await failed(call(service.ClassifyRequest(image=png())))
        assert error.code() is grpc.StatusCode.INTERNAL
        incident = details[ErrorInfo].metadata["incident_id"]
        assert incident in error.details()
        assert "secret" not in error.details()
        assert "secret" not in str(error.trailing_metadata())
        (record,) = [entry for entry in caplog.records if entry.name == "service.border"]
        assert record.incident == incident  # type: ignore[attr-defined]
        assert "secret" in caplog.text
        with pytest.raises(errors.InternalServerError, match="incident"):
            await run.client.classify(png())
        run.stub.error = None
        assert (await run.client.classify(png())).top.name == "dog"
        assert run.metric("ibinn_rejections_total", reason="INTERNAL") == 2


async def test_class_that_the_model_does_not_know_is_not_found() -> None:
    async with running() as run:
        with pytest.raises(errors.NotFoundError, match="'horse'; it knows cat, dog, ship"):
            await run.client.explain(png(), classes=["cat", "horse"])
        assert run.stub.batches == []


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("classes", {"classes": ["cat", "cat"]}),
        ("contrast.versus", {"contrast": {"class_name": "cat", "versus": "cat"}}),
        ("heatmap_size", {"heatmap_size": 99}),
    ],
)
async def test_option_that_is_not_valid_is_refused_by_name(
    field: str, options: dict[str, Any]
) -> None:
    async with running() as run:
        call = ClassificationServiceStub(run.channel).Explain
        error, details = await failed(call(service.ExplainRequest(image=png(), **options)))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert details[BadRequest].field_violations[0].field == field
        assert details[ErrorInfo].reason == "REQUEST_INVALID"
        assert run.stub.batches == []


async def test_heatmaps_too_large_for_one_answer_are_refused_before_they_are_computed() -> None:
    large = dataclasses.replace(INFO, input_side=1024)
    async with running(StubClassifier(info=large)) as run:
        with pytest.raises(errors.InvalidImageError, match="the limit is 1,000,000"):
            await run.client.explain(png(), heatmap_size=HeatmapSize.IMAGE)
        assert run.stub.batches == []
        assert (await run.client.explain(png(), classes=["cat"])).heatmaps


async def test_contrast_with_a_class_that_the_model_does_not_know_is_not_found() -> None:
    async with running() as run:
        with pytest.raises(errors.NotFoundError, match="'horse'"):
            await run.client.explain(png(), contrast=ContrastChoice(versus="horse"))
        assert run.stub.batches == []


async def test_network_without_heatmaps_is_a_failed_precondition() -> None:
    info = dataclasses.replace(INFO, explainable=False)
    async with running(StubClassifier(info=info)) as run:
        with pytest.raises(errors.PreconditionError, match="has no heatmaps"):
            await run.client.explain(png())
        assert (await run.client.classify(png())).top.name == "dog"


async def test_not_explainable_error_of_the_model_is_a_failed_precondition() -> None:
    error = errors.NotExplainableError("this network has no heatmap")
    async with running(StubClassifier(error=error)) as run:
        with pytest.raises(errors.PreconditionError, match="this network has no heatmap"):
            await run.client.explain(png())


async def test_server_without_a_model_is_unavailable_and_says_when_to_try_again() -> None:
    async with running(loaded=False) as run:
        for call in (run.client.classify(png()), run.client.explain(png()), run.client.model()):
            with pytest.raises(errors.UnavailableError, match="still loading") as caught:
                await call
            assert caught.value.retry_after_s == 1.0


async def test_model_that_cannot_be_loaded_leaves_the_server_unavailable() -> None:
    def broken() -> StubClassifier:
        raise errors.BundleIntegrityError("weights.safetensors is damaged")

    async with running(loaded=False) as run:
        with pytest.raises(errors.BundleIntegrityError):
            await run.server.load(broken)
        with pytest.raises(errors.UnavailableError):
            await run.client.classify(png())


async def test_address_without_a_server_is_named() -> None:
    async with running() as run:
        target = run.addresses.grpc
    async with AsyncClient(target, timeout_s=20) as client:
        with pytest.raises(errors.UnavailableError, match=f"no answer from {target}"):
            await client.model()


async def test_port_in_use_is_a_config_error() -> None:
    from service.server import Server

    async with running() as run:
        port = int(run.addresses.grpc.rsplit(":", 1)[1])
        second = Server(settings(port=port))
        with pytest.raises(errors.ConfigError, match=f"cannot listen on 127.0.0.1:{port}"):
            await second.start()
        await second.stop()
        metrics_port = int(run.addresses.metrics.rsplit(":", 1)[1].removesuffix("/metrics"))
        third = Server(settings(metrics_port=metrics_port))
        with pytest.raises(errors.ConfigError, match="cannot serve metrics"):
            await third.start()
        await third.stop()
