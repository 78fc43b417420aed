"""Batching, metrics, health, reflection and an orderly stop, on real sockets."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ibinn.client import AsyncClient, Client
from ibinn.errors import InvalidImageError, UnavailableError
from ibinn.v1 import classification_service_pb2 as service
from service.servicer import SERVICE_NAME
from tests.service.running import PATIENCE_S, running
from tests.service.stub import INFO, UNKNOWN, StubClassifier, make_prediction, png

ROOT = Path(__file__).resolve().parents[2]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health_of(channel: grpc.aio.Channel, name: str) -> int:
    request = health_pb2.HealthCheckRequest(service=name)
    return (await health_pb2_grpc.HealthStub(channel).Check(request)).status


async def test_requests_that_wait_together_are_computed_together() -> None:
    async with running(max_batch_size=4) as run:
        run.stub.gate.clear()
        first = asyncio.create_task(run.client.classify(png(0)))
        await run.entered()
        others = [asyncio.create_task(run.client.classify(png(value))) for value in range(1, 9)]
        await run.waiting(8)
        run.stub.gate.set()
        answers = await asyncio.gather(first, *others)
        assert run.stub.batch_sizes == [1, 4, 4]
        assert [answer.receipt.timing.batch_size for answer in answers] == [1] + [4] * 8
        hashes = [run.stub.preparer(png(value)).decoded.sha256_bytes for value in range(9)]
        assert [answer.input.sha256_bytes for answer in answers] == hashes
        assert run.metric("ibinn_batch_size_sum", lane="classify") == 9
        assert run.metric("ibinn_batch_size_count", lane="classify") == 3
        assert run.metric("ibinn_queue_wait_seconds_count", lane="classify") == 9


async def test_only_explanations_of_the_same_classes_share_a_batch() -> None:
    async with running() as run:
        run.stub.gate.clear()
        first = asyncio.create_task(run.client.classify(png()))
        await run.entered()
        others = [
            asyncio.create_task(call)
            for call in (
                run.client.explain(png(1), classes=["cat"]),
                run.client.classify(png(2)),
                run.client.explain(png(3), classes=["dog"]),
                run.client.explain(png(4), classes=["cat"]),
            )
        ]
        await run.waiting(4)
        run.stub.gate.set()
        _, cat, _, dog, again = await asyncio.gather(first, *others)
        assert sorted(run.stub.batches[1:]) == [("assess", 1), ("explain", 1), ("explain", 2)]
        assert [heatmap.class_name for heatmap in cat.heatmaps] == ["cat"]
        assert [heatmap.class_name for heatmap in again.heatmaps] == ["cat"]
        assert [heatmap.class_name for heatmap in dog.heatmaps] == ["dog"]


async def test_network_runs_in_one_thread_that_is_not_the_event_loop() -> None:
    async with running() as run:
        await asyncio.gather(*(run.client.classify(png(value)) for value in range(8)))
        await run.client.explain(png())
        assert run.stub.threads == {"ibinn-inference"}


async def test_event_loop_answers_while_the_network_is_busy() -> None:
    async with running() as run:
        run.stub.gate.clear()
        busy = asyncio.create_task(run.client.classify(png()))
        await run.entered()
        assert await run.client.model() == INFO
        assert await health_of(run.channel, SERVICE_NAME) == SERVING
        run.stub.gate.set()
        await busy


async def test_metrics_agree_with_what_was_asked() -> None:
    async with running() as run:
        for value in range(3):
            await run.client.classify(png(value))
        run.stub.prediction = UNKNOWN
        await run.client.explain(png())
        await run.client.model()
        with pytest.raises(InvalidImageError):
            await run.client.classify(b"")
        samples = await run.scrape()

    def value(name: str, **labels: str) -> float:
        return samples[name, frozenset(labels.items())]

    assert value("ibinn_requests_total", method="Classify", code="OK") == 3
    assert value("ibinn_requests_total", method="Classify", code="INVALID_ARGUMENT") == 1
    assert value("ibinn_requests_total", method="Explain", code="OK") == 1
    assert value("ibinn_requests_total", method="GetModel", code="OK") == 1
    assert value("ibinn_request_duration_seconds_count", method="Classify") == 4
    assert value("ibinn_rejections_total", reason="IMAGE_UNREADABLE") == 1
    assert value("ibinn_verdicts_total", verdict="NOT_FLAGGED") == 3
    assert value("ibinn_verdicts_total", verdict="UNKNOWN") == 1
    assert value("ibinn_verdicts_total", verdict="AMBIGUOUS") == 0
    assert value("ibinn_tests_total", test="combined") == 4
    assert value("ibinn_test_flags_total", test="combined") == 1
    assert value("ibinn_test_flags_total", test="log_q_x.typicality") == 1
    assert value("ibinn_test_flags_total", test="log_q_z.two_tailed") == 0
    assert value("ibinn_batch_size_sum", lane="classify") == 3
    assert value("ibinn_batch_size_sum", lane="explain") == 1
    assert value("ibinn_queue_wait_seconds_count", lane="classify") == 3
    assert value("ibinn_queue_wait_seconds_count", lane="explain") == 1
    assert value("ibinn_pending_requests") == 0
    versions = INFO.versions
    assert (
        value(
            "ibinn_model_info",
            model="stub",
            weights=versions.weights,
            calibration=versions.calibration,
            policy=versions.policy,
        )
        == 1
    )
    assert all(name.startswith(("ibinn_", "process_")) for name, _ in samples)


async def test_flag_counters_exist_before_the_first_answer() -> None:
    async with running() as run:
        for test in INFO.tests:
            assert run.metric("ibinn_test_flags_total", test=test.name) == 0


async def test_two_servers_in_one_process_do_not_share_metrics() -> None:
    async with running() as one, running() as other:
        await one.client.classify(png())
        assert one.metric("ibinn_verdicts_total", verdict="NOT_FLAGGED") == 1
        assert other.metric("ibinn_verdicts_total", verdict="NOT_FLAGGED") == 0


async def test_health_of_the_service_means_that_a_model_is_loaded() -> None:
    async with running(loaded=False) as run:
        assert await health_of(run.channel, "") == SERVING
        assert await health_of(run.channel, SERVICE_NAME) == NOT_SERVING
        watch = health_pb2_grpc.HealthStub(run.channel).Watch(
            health_pb2.HealthCheckRequest(service=SERVICE_NAME)
        )
        assert (await watch.read()).status == NOT_SERVING
        await run.server.load(lambda: run.stub)
        assert (await watch.read()).status == SERVING
        assert await health_of(run.channel, SERVICE_NAME) == SERVING
        watch.cancel()


async def test_reflection_names_the_services_and_describes_them() -> None:
    expected = [
        SERVICE_NAME,
        "ibinn.v1.AdminService",
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    ]
    async with running() as run:
        stub = reflection_pb2_grpc.ServerReflectionStub(run.channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            *(reflection_pb2.ServerReflectionRequest(file_containing_symbol=n) for n in expected),
        ]
        listed, described, *others = [
            answer async for answer in stub.ServerReflectionInfo(iter(requests))
        ]
    names = {entry.name for entry in listed.list_services_response.service}
    assert names == set(expected)
    assert all(other.HasField("file_descriptor_response") for other in others)
    assert (
        service.DESCRIPTOR.serialized_pb in described.file_descriptor_response.file_descriptor_proto
    )


async def test_stopping_server_says_not_serving_first_and_finishes_what_it_has() -> None:
    async with running() as run:
        run.stub.gate.clear()
        first = asyncio.create_task(run.client.classify(png(1)))
        await run.entered()
        waiting = asyncio.create_task(run.client.classify(png(2)))
        await run.waiting(1)
        watch = health_pb2_grpc.HealthStub(run.channel).Watch(
            health_pb2.HealthCheckRequest(service=SERVICE_NAME)
        )
        assert (await watch.read()).status == SERVING
        stopping = asyncio.create_task(run.server.stop())
        assert (await watch.read()).status == NOT_SERVING
        with pytest.raises(UnavailableError, match="stopping") as caught:
            await run.client.classify(png(3))
        assert caught.value.retry_after_s == 1.0
        assert not first.done()
        run.stub.gate.set()
        answers = await asyncio.gather(first, waiting)
        assert [answer.top.name for answer in answers] == ["dog", "dog"]
        await stopping
        with pytest.raises(UnavailableError):
            await run.client.classify(png(4))


async def test_server_stops_in_time_though_a_request_hangs() -> None:
    async with running(drain_timeout_s=0.1) as run:
        run.stub.gate.clear()
        hanging = asyncio.create_task(run.client.classify(png()))
        await run.entered()
        async with asyncio.timeout(PATIENCE_S):
            await run.server.stop()
        with pytest.raises(UnavailableError):
            await hanging


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_stops_the_process_after_the_request_in_flight(number: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.service.stub_server"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        target = (await asyncio.to_thread(process.stdout.readline)).strip()
        async with (
            AsyncClient(target, timeout_s=PATIENCE_S) as client,
            grpc.aio.insecure_channel(target) as channel,
        ):
            watch = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(service=SERVICE_NAME)
            )
            assert (await watch.read()).status == SERVING
            in_flight = asyncio.create_task(client.classify(png()))
            # The stub says on its output that it computes.
            assert (await asyncio.to_thread(process.stdout.readline)).strip() == "computing"
            process.send_signal(number)
            assert (await watch.read()).status == NOT_SERVING
            assert not in_flight.done()
            process.stdin.write("open\n")
            process.stdin.flush()
            assert (await in_flight).top.name == make_prediction().top.name
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0
        assert process.stdout.read().strip() == "stopped"
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


async def test_client_survives_a_server_that_comes_later() -> None:
    async with running() as run:
        port = int(run.addresses.grpc.rsplit(":", 1)[1])
        target = run.addresses.grpc
    with Client(target, timeout_s=PATIENCE_S) as client:
        with pytest.raises(UnavailableError):
            await asyncio.to_thread(client.model)
        async with running(StubClassifier(), port=port):

            def reachable() -> bool:
                try:
                    return client.model() == INFO
                except UnavailableError:
                    return False

            async with asyncio.timeout(PATIENCE_S):
                while not await asyncio.to_thread(reachable):
                    await asyncio.sleep(0.05)
