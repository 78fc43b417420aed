"""Spans continue the caller's trace, tell where the time went, and hold nothing of the image."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from ibinn.errors import ConfigError
from ibinn.types import Prediction, Receipt, ServerTiming
from ibinn.v1.classification_service_pb2 import ClassifyRequest
from ibinn.v1.classification_service_pb2_grpc import ClassificationServiceStub
from service import otel, traces
from service.settings import Settings
from tests.service.running import running
from tests.service.stub import make_prediction, png

METHOD = "ibinn.v1.ClassificationService/Classify"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
TIMING = ServerTiming(prepare_s=0.25, queue_s=0.5, compute_s=1.0, total_s=1.8, batch_size=7)


def answer() -> Prediction:
    receipt = Receipt(
        record_id="f" * 32, received_time=datetime(2026, 5, 4, tzinfo=UTC), timing=TIMING
    )
    return dataclasses.replace(make_prediction(), receipt=receipt)


@pytest.fixture
def memory() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(memory: InMemorySpanExporter) -> otel.Exported:
    return otel.Exported(SimpleSpanProcessor(memory))


def test_span_continues_the_callers_trace(
    tracer: otel.Exported, memory: InMemorySpanExporter
) -> None:
    metadata = (("user-agent", "x"), ("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01"))
    with tracer.span(METHOD, metadata) as span:
        span.named("my-request")
        span.ended("OK")
    (found,) = memory.get_finished_spans()
    assert found.name == METHOD
    assert f"{found.context.trace_id:032x}" == TRACE_ID
    assert f"{found.parent.span_id:016x}" == PARENT_ID
    assert found.attributes == {
        "rpc.system": "grpc",
        "rpc.service": "ibinn.v1.ClassificationService",
        "rpc.method": "Classify",
        "ibinn.request_id": "my-request",
        "rpc.grpc.status_code": 0,
    }


@pytest.mark.parametrize("header", ["", "nonsense", f"00-{'0' * 32}-{PARENT_ID}-01"])
def test_bad_traceparent_begins_a_new_trace(
    tracer: otel.Exported, memory: InMemorySpanExporter, header: str
) -> None:
    with tracer.span(METHOD, (("traceparent", header),)):
        pass
    (found,) = memory.get_finished_spans()
    assert found.parent is None


def test_steps_of_an_answer_are_children_one_after_another(
    tracer: otel.Exported, memory: InMemorySpanExporter
) -> None:
    with tracer.span(METHOD, ()) as span:
        traces.answered(answer())
        span.ended("OK")
    *steps, call = memory.get_finished_spans()
    assert [step.name for step in steps] == ["decode", "queue", "compute"]
    assert all(step.parent.span_id == call.context.span_id for step in steps)
    assert [(step.end_time - step.start_time) / 1e9 for step in steps] == pytest.approx(
        [0.25, 0.5, 1.0]
    )
    assert steps[0].end_time == steps[1].start_time
    assert steps[1].end_time == steps[2].start_time
    assert call.attributes["ibinn.batch_size"] == 7
    assert call.attributes["ibinn.model"] == "a" * 12
    assert call.attributes["ibinn.verdict"] == "NOT_FLAGGED"
    told = {key for span in (*steps, call) for key in span.attributes}
    assert told <= {
        *("rpc.system", "rpc.service", "rpc.method", "rpc.grpc.status_code"),
        *("ibinn.batch_size", "ibinn.model", "ibinn.verdict"),
    }


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("OK", StatusCode.UNSET),
        ("INVALID_ARGUMENT", StatusCode.UNSET),
        ("RESOURCE_EXHAUSTED", StatusCode.UNSET),
        ("INTERNAL", StatusCode.ERROR),
        ("DEADLINE_EXCEEDED", StatusCode.ERROR),
    ],
)
def test_only_faults_of_the_server_are_errors(
    tracer: otel.Exported, memory: InMemorySpanExporter, code: str, status: StatusCode
) -> None:
    with tracer.span(METHOD, ()) as span:
        span.ended(code, "REASON")
    (found,) = memory.get_finished_spans()
    assert found.status.status_code is status
    assert found.attributes["ibinn.reason"] == "REASON"


async def test_answers_of_concurrent_calls_go_to_their_own_spans(
    tracer: otel.Exported, memory: InMemorySpanExporter
) -> None:
    turn = asyncio.Barrier(2)

    async def call(batch_size: int) -> None:
        with tracer.span(f"{METHOD}{batch_size}", ()):
            await turn.wait()
            prediction = answer()
            timing = dataclasses.replace(TIMING, batch_size=batch_size)
            receipt = dataclasses.replace(prediction.receipt, timing=timing)
            traces.answered(dataclasses.replace(prediction, receipt=receipt))
            await turn.wait()

    await asyncio.gather(asyncio.create_task(call(1)), asyncio.create_task(call(2)))
    calls = [span for span in memory.get_finished_spans() if span.name.startswith(METHOD)]
    assert {(span.name, span.attributes["ibinn.batch_size"]) for span in calls} == {
        (f"{METHOD}1", 1),
        (f"{METHOD}2", 2),
    }


def test_without_a_collector_nothing_happens() -> None:
    tracer = traces.tracer_of(Settings())
    with tracer.span(METHOD, (("traceparent", "x"),)) as span:
        span.named("a")
        traces.answered(answer())
        span.ended("OK")
    tracer.close()
    assert isinstance(tracer, traces.Silent)


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.address = ""
        self.requests: list[Any] = []

    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: object
    ) -> object:
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector on this machine."""
    found = Collector()
    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(found, server)
    found.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield found
    server.stop(None).wait()


def test_spans_reach_a_collector_before_the_server_ends(collector: Collector) -> None:
    tracer = traces.tracer_of(Settings(traces=collector.address))
    with tracer.span(METHOD, ()) as span:
        traces.answered(answer())
        span.ended("OK")
    tracer.close()
    (request,) = collector.requests
    (resource,) = request.resource_spans
    names = {item.key: item.value.string_value for item in resource.resource.attributes}
    assert names["service.name"] == "ibinn-serve"
    (scope,) = resource.scope_spans
    assert [span.name for span in scope.spans] == ["decode", "queue", "compute", METHOD]


async def test_calls_of_a_server_are_traced_with_where_their_time_went(
    collector: Collector,
) -> None:
    async with running(traces=collector.address) as run:
        stub = ClassificationServiceStub(run.channel)
        await stub.Classify(
            ClassifyRequest(image=png(), request_id="mine"),
            metadata=(("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01"),),
        )
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Classify(ClassifyRequest(image=b"no image"))
    spans = collector.spans()
    called, refused = (span for span in spans if span.name.endswith("/Classify"))
    assert (called.trace_id.hex(), called.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    told = {item.key: item.value for item in called.attributes}
    assert told["ibinn.request_id"].string_value == "mine"
    assert told["rpc.grpc.status_code"].int_value == 0
    steps = [span for span in spans if span.parent_span_id == called.span_id]
    assert sorted(step.name for step in steps) == ["compute", "decode", "queue"]
    assert all(called.start_time_unix_nano <= step.start_time_unix_nano for step in steps)
    assert all(step.end_time_unix_nano <= called.end_time_unix_nano for step in steps)
    told = {item.key: item.value for item in refused.attributes}
    assert told["ibinn.reason"].string_value == "IMAGE_UNREADABLE"
    assert told["rpc.grpc.status_code"].int_value == 3


@pytest.mark.parametrize(
    ("endpoint", "wrong"),
    [
        ("127.0.0.1:4317", None),
        ("http://localhost:4317", None),
        ("https://collector.example:4317", None),
        ("collector.example:4317", None),
        ("http://collector.example:4317", "plaintext"),
        ("collector.example", "expected host:port"),
        ("ftp://collector.example:4317", "expected host:port"),
        ("collector.example:port", "expected host:port"),
    ],
)
def test_address_of_the_collector_is_checked(endpoint: str, wrong: str | None) -> None:
    found = traces.problems(Settings(traces=endpoint))
    if wrong is None:
        assert found == []
        return
    assert len(found) == 1
    assert wrong in found[0]
    with pytest.raises(ConfigError, match=wrong):
        traces.tracer_of(Settings(traces=endpoint))
