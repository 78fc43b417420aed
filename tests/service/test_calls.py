"""What every call has: a name, a model, options that weaken nothing, one status; and streams."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo

from ibinn.types import Action, Decision
from ibinn.v1 import answer_pb2 as answer
from ibinn.v1 import classification_service_pb2 as service
from ibinn.v1 import model_pb2
from ibinn.v1.classification_service_pb2_grpc import ClassificationServiceStub
from service import logs
from tests.service.running import PATIENCE_S, Running, failed, running, settings, until
from tests.service.stub import (
    CLASSES,
    INFO,
    UNKNOWN,
    VERSIONS,
    StubClassifier,
    make_prediction,
    png,
)

DECIDED = make_prediction(
    decision=Decision(
        action=Action.ACCEPT, class_name="dog", rule="accept", reason="sure", expected_cost=0.1
    )
)
CLASSIFY = "/ibinn.v1.ClassificationService/Classify"


def stub(run: Running) -> Any:
    return ClassificationServiceStub(run.channel)


def request(value: int = 0, **fields: Any) -> service.ClassifyRequest:
    return service.ClassifyRequest(image=png(value), **fields)


async def test_a_request_keeps_the_name_it_was_given() -> None:
    async with running() as run:
        call = stub(run).Classify(request(request_id="order:17"), metadata=(("x-request-id", "m"),))
        assert (await call).classification.request_id == "order:17"
        call = stub(run).Classify(request(), metadata=(("x-request-id", "from-metadata"),))
        assert (await call).classification.request_id == "from-metadata"


async def test_a_request_without_a_name_is_given_one() -> None:
    async with running() as run:
        names = {(await stub(run).Classify(request())).classification.request_id for _ in range(3)}
        assert len(names) == 3
        assert all(len(name) == 32 for name in names)


async def test_a_refused_request_is_told_its_name() -> None:
    async with running() as run:
        error, details = await failed(
            stub(run).Classify(service.ClassifyRequest(request_id="order:18"))
        )
        assert details[RequestInfo].request_id == "order:18"
        assert dict(error.trailing_metadata())["x-request-id"] == "order:18"


async def test_a_call_refused_at_the_door_is_logged_by_its_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as run:
        status = run.channel.unary_unary("/ibinn.v1.AdminService/GetStatus")
        with caplog.at_level(logging.INFO, logger="service.border"):
            seen: list[tuple[str, str]] = []
            caplog.handler.addFilter(lambda record: seen.append(logs.of_call()) or True)
            await failed(status(b"", metadata=(("x-request-id", "order-19"),)))
    assert seen == [("order-19", "GetStatus")]


async def test_a_name_that_could_deceive_a_log_is_refused() -> None:
    async with running() as run:
        error, details = await failed(
            stub(run).Classify(request(), metadata=(("x-request-id", "a b=c"),))
        )
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert details[ErrorInfo].reason == "REQUEST_INVALID"


@pytest.mark.parametrize("raw", [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x1a\x02\xff\xfe"])
async def test_bytes_that_are_no_message_are_the_callers_fault(raw: bytes) -> None:
    async with running() as run:
        error, details = await failed(run.channel.unary_unary(CLASSIFY)(raw))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "ibinn.v1.ClassifyRequest" in error.details()
        assert details[ErrorInfo].reason == "REQUEST_INVALID"


async def test_a_field_rule_is_told_by_path_before_the_image_is_looked_at() -> None:
    async with running() as run:
        error, details = await failed(stub(run).Classify(request(model="nothing")))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert details[BadRequest].field_violations[0].field == "model"
        assert run.stub.batches == []


async def test_a_pinned_model_answers_or_nobody_does() -> None:
    async with running() as run:
        response = await stub(run).Classify(request(model=VERSIONS.weights[:8]))
        assert response.classification.versions.weights == VERSIONS.weights
        error, details = await failed(stub(run).Classify(request(model="0" * 12)))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert details[ErrorInfo].reason == "MODEL_UNKNOWN"
        assert VERSIONS.weights[:12] in error.details()


async def test_options_shorten_lists_and_change_nothing_else() -> None:
    prediction = dataclasses.replace(UNKNOWN, decision=DECIDED.decision)
    async with running(StubClassifier(prediction)) as run:
        whole = (await stub(run).Classify(request())).classification
        for tests, kept in (
            (service.TEST_DETAIL_ALL, list(whole.tests)),
            (service.TEST_DETAIL_FLAGGED, [test for test in whole.tests if test.flagged]),
            (service.TEST_DETAIL_NONE, []),
        ):
            options = service.AnswerOptions(top_classes=1, tests=tests)
            short = (await stub(run).Classify(request(options=options))).classification
            assert list(short.classes) == list(whole.classes)[:1]
            assert list(short.tests) == kept
            for name in ("verdict", "decision", "combined_test", "conformal_sets", "versions"):
                assert getattr(short, name) == getattr(whole, name)


async def test_the_stop_button_defers_every_answer_of_every_method() -> None:
    async with running(StubClassifier(DECIDED)) as run:
        await run.server.manager.set_mode(abstain_all=True, reason="drill")
        answers = [
            (await stub(run).Classify(request())).classification,
            (await stub(run).Explain(service.ExplainRequest(image=png()))).classification,
            (await results_of(run, [[request(model=VERSIONS.weights)]]))[0].classification,
        ]
        for found in answers:
            assert found.decision.action == answer.ACTION_DEFER
            assert "drill" in found.decision.reason
            assert not found.decision.HasField("class_name")
        described = await stub(run).GetModel(service.GetModelRequest())
        assert described.mode == model_pb2.MODE_ABSTAIN_ALL
        await run.server.manager.set_mode(abstain_all=False)
        free = (await stub(run).Classify(request())).classification
        assert free.decision.action == answer.ACTION_ACCEPT


async def test_get_model_tells_what_is_loaded() -> None:
    async with running() as run:
        response = await stub(run).GetModel(service.GetModelRequest(model=VERSIONS.weights[:10]))
        assert list(response.model.classes) == list(CLASSES)
        (served,) = response.served
        assert served.role == model_pb2.MODEL_ROLE_DEFAULT
        assert served.versions.weights == VERSIONS.weights
        assert response.mode == model_pb2.MODE_NORMAL


async def test_a_requests_own_time_counts_though_the_call_has_more() -> None:
    async with running() as run:
        run.stub.gate.clear()
        held = asyncio.ensure_future(stub(run).Classify(request()))
        await run.entered()
        short = Duration()
        short.FromMilliseconds(50)
        error, _ = await failed(stub(run).Classify(request(timeout=short), timeout=PATIENCE_S))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        run.stub.gate.set()
        await held
        assert run.stub.batch_sizes == [1]
        error, details = await failed(stub(run).Classify(request(timeout=Duration())))
        assert details[BadRequest].field_violations[0].field == "timeout"


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_calls_get_compressed_answers(compression: grpc.Compression) -> None:
    async with running(compression="gzip") as run:
        response = await stub(run).Classify(request(), compression=compression)
        assert response.classification.classes[0].name == "dog"


async def test_the_message_limit_holds_for_what_a_message_unpacks_to() -> None:
    async with running() as run:
        bomb = service.ClassifyRequest(image=bytes(64 * 2**20))
        assert len(gzip.compress(bomb.SerializeToString(), 1)) < 2**20
        error, _ = await failed(stub(run).Classify(bomb, compression=grpc.Compression.Gzip))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert run.metric("ibinn_pending_requests") == 0


# ---------------------------------------------------------------------------------------- streams


async def results_of(
    run: Running, groups: list[list[service.ClassifyRequest]], **options: Any
) -> list[service.ClassifyResult]:
    """Every result of one stream, in the order of the requests."""
    call = stub(run).ClassifyStream(
        iter([service.ClassifyStreamRequest(requests=group) for group in groups]), **options
    )
    results = [result async for response in call for result in response.results]
    assert await call.code() is grpc.StatusCode.OK
    return sorted(results, key=lambda result: result.index)


async def ended(call: Any) -> tuple[list[service.ClassifyResult], grpc.StatusCode]:
    """What came of a stream before it ended, and with which status."""
    results: list[service.ClassifyResult] = []
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for response in call:
            results.extend(response.results)
    return results, await call.code()


async def test_a_stream_answers_every_image_with_its_own_id_and_position() -> None:
    async with running() as run:
        groups = [[request(10 * g + i, request_id=f"{g}.{i}") for i in range(5)] for g in range(6)]
        results = await results_of(run, groups)
        assert [result.request_id for result in results] == [
            entry.request_id for group in groups for entry in group
        ]
        assert [result.index for result in results] == list(range(30))
        single = (await stub(run).Classify(groups[3][2])).classification
        assert results[17].classification.input.sha256_bytes == single.input.sha256_bytes


async def test_an_image_that_fails_does_not_end_its_stream() -> None:
    async with running() as run:
        results = await results_of(
            run, [[request(0), service.ClassifyRequest(image=b"no image"), request(1)]]
        )
        assert [result.WhichOneof("result") for result in results] == [
            "classification",
            "error",
            "classification",
        ]
        error = results[1].error
        assert error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        kinds = {detail.type_url.rpartition(".")[2] for detail in error.details}
        assert kinds == {"ErrorInfo", "BadRequest", "RequestInfo"}
        assert run.metric("ibinn_rejections_total", reason="IMAGE_UNREADABLE") == 1


async def test_a_message_that_breaks_a_rule_ends_its_stream() -> None:
    async with running() as run:
        call = stub(run).ClassifyStream(iter([service.ClassifyStreamRequest()]))
        assert await ended(call) == ([], grpc.StatusCode.INVALID_ARGUMENT)


async def test_a_stream_is_read_no_further_than_its_window() -> None:
    async with running(stream_window=4, max_pending=64) as run:
        run.stub.gate.clear()
        sent = 0

        async def endless() -> AsyncIterator[service.ClassifyStreamRequest]:
            nonlocal sent
            for value in range(100):
                yield service.ClassifyStreamRequest(requests=[request(value)])
                sent += 1

        call = stub(run).ClassifyStream(endless())
        await run.pending(4)
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert run.metric("ibinn_pending_requests") == 4
        run.stub.gate.set()
        count = 0
        async for response in call:
            count += len(response.results)
        assert count == sent == 100


async def test_a_stream_that_is_cancelled_leaves_nothing_behind() -> None:
    async with running() as run:
        run.stub.gate.clear()
        call = stub(run).ClassifyStream(
            iter([service.ClassifyStreamRequest(requests=[request(v) for v in range(20)])])
        )
        await run.pending(20)
        call.cancel()
        await run.pending(0)
        run.stub.gate.set()
        await until(lambda: run.server.predictor.waiting == 0)


async def test_a_stopping_server_answers_what_it_read_of_a_stream_and_ends_it() -> None:
    async with running() as run:
        run.stub.gate.clear()
        hold = asyncio.Event()

        async def open_ended() -> AsyncIterator[service.ClassifyStreamRequest]:
            yield service.ClassifyStreamRequest(requests=[request(v) for v in range(3)])
            await hold.wait()

        call = stub(run).ClassifyStream(open_ended())
        await run.pending(3)
        stopping = asyncio.create_task(run.server.stop())
        await until(lambda: run.server.predictor.draining.is_set())
        run.stub.gate.set()
        results, code = await ended(call)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert [result.HasField("classification") for result in results] == [True] * 3
        hold.set()
        await stopping


async def test_a_callers_rate_counts_the_images_of_a_stream() -> None:
    async with running(caller_rate=0.001, caller_burst=3) as run:
        results = await results_of(run, [[request(v) for v in range(5)]])
        errors = [result.error for result in results if result.HasField("error")]
        assert len(errors) == 2
        assert {error.code for error in errors} == {grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]}
        _, details = await failed(stub(run).Classify(request()))
        assert details[ErrorInfo].reason == "RATE_LIMITED"
        assert details[RetryInfo].retry_delay.seconds > 100


def test_settings_of_the_tests_are_those_of_the_stub() -> None:
    assert settings().max_image_bytes == INFO.max_bytes
