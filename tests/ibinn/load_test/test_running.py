from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

import grpc
import grpc.aio
import pytest

from ibinn.client.channels import Connection
from ibinn.errors import UnavailableError
from ibinn.load_test import (
    Concurrency,
    LoadReport,
    Plan,
    Progress,
    Rate,
    UnaryWork,
    generate,
    run,
    running,
    stream_work,
)
from tests.ibinn.load_test.fake_server import ECHO, Fake, serving

WORK = UnaryWork(path=ECHO, requests=(b"one", b"two"))
STREAM = stream_work([b"one", b"two"], images_per_message=4, timeout_s=5.0)


def plan(fake: Fake, load: Rate | Concurrency, **changes: Any) -> Plan:
    values: dict[str, Any] = {"duration_s": 0.5, "warm_up_s": 0.0, "work": WORK}
    return Plan(target=fake.address, load=load, **(values | changes))


def codes(report: LoadReport) -> dict[str, int]:
    return {figures.code: figures.latency.count for figures in report.codes}


async def test_every_call_of_the_schedule_is_sent_once_and_counted() -> None:
    async with serving() as fake:
        report = await generate(plan(fake, Rate(200)))
    assert report.sent == report.good == len(fake.requests) == 100
    assert report.goodput == report.sent_per_s == 200
    assert fake.requests[:4] == [b"one", b"two", b"one", b"two"]
    assert report.latency.count == report.lag.count == 100
    assert sum(second.sent for second in report.seconds) == 100


async def test_warm_up_is_sent_but_not_counted() -> None:
    async with serving() as fake:
        report = await generate(plan(fake, Rate(200), warm_up_s=0.25))
    assert (report.sent, len(fake.requests)) == (100, 150)


async def test_statuses_are_counted_by_name() -> None:
    async def answer(request: bytes, number: int, context: Any) -> bytes:
        if number % 4 == 0:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        if number % 4 == 1:
            await context.abort(grpc.StatusCode.INTERNAL, "broken")
        return request

    async with serving(answer) as fake:
        report = await generate(plan(fake, Rate(160)))
    assert codes(report) == {"OK": 40, "RESOURCE_EXHAUSTED": 20, "INTERNAL": 20}
    assert (report.good, report.rejected, report.failed) == (40, 20, 20)
    assert report.rejected_share == 0.25


async def test_a_call_without_an_answer_ends_at_its_deadline() -> None:
    async def answer(request: bytes, number: int, context: Any) -> bytes:
        await asyncio.Event().wait()
        return request

    async with serving(answer) as fake:
        report = await generate(plan(fake, Rate(20), deadline_s=0.2))
    assert codes(report) == {"DEADLINE_EXCEEDED": 10}
    assert report.expired == 10
    assert report.codes[0].latency.p50_s == pytest.approx(0.2, abs=0.1)


async def test_calls_meant_for_a_stall_of_the_generator_are_counted_late() -> None:
    stalled = asyncio.Event()

    async def answer(request: bytes, number: int, context: Any) -> bytes:
        if number == 20:
            time.sleep(0.4)  # the generator runs in this loop and stalls with it
            stalled.set()
        return request

    async with serving(answer) as fake:
        report = await generate(plan(fake, Rate(100), duration_s=1.0, deadline_s=0.1))
    assert stalled.is_set()
    # All 100 are sent, also the 40 that were due meanwhile; latency counts from when they were.
    assert report.sent == 100
    assert not report.kept_up
    assert report.lag.max_s == pytest.approx(0.4, abs=0.1)
    assert report.late + report.expired >= 25


async def test_a_closed_loop_keeps_as_many_calls_under_way() -> None:
    async def answer(request: bytes, number: int, context: Any) -> bytes:
        await asyncio.sleep(0.01)
        return request

    async with serving(answer) as fake:
        report = await generate(plan(fake, Concurrency(5)))
    assert fake.most_in_flight == 5
    assert report.concurrency == 5
    assert report.sent == report.good == len(fake.requests)
    assert report.sent > 50


async def test_a_closed_loop_does_not_spin_on_a_server_that_refuses() -> None:
    async def answer(request: bytes, number: int, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        return request

    async with serving(answer) as fake:
        report = await generate(plan(fake, Concurrency(1)))
    assert report.rejected == report.sent <= 0.5 / 0.01 + 1


async def test_connections_are_used_in_turn() -> None:
    async with serving() as fake:
        report = await generate(plan(fake, Rate(100), connections=3))
    assert len(fake.peers) == 3
    assert report.connections == 3


async def test_the_token_goes_with_every_call() -> None:
    async with serving() as fake:
        connection = Connection(target=fake.address, token="secret")
        await generate(dataclasses.replace(plan(fake, Rate(20)), target=connection))
    assert fake.tokens == {"Bearer secret"}


async def test_progress_is_told_while_it_runs() -> None:
    told: list[Progress] = []
    async with serving() as fake:
        await generate(plan(fake, Rate(100), duration_s=0.7, warm_up_s=0.3), progress=told.append)
    assert told[0].elapsed_s < 0 < told[-1].elapsed_s
    assert 0 < told[-1].sent <= 70


async def test_a_server_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_CONNECT_TIMEOUT_S", 0.2)
    async with serving() as fake:
        gone = plan(fake, Rate(1))
    with pytest.raises(UnavailableError, match=r"no connection to 127\.0\.0\.1:\d+ within 0.2 s"):
        await generate(gone)


async def test_run_brings_its_own_loop() -> None:
    async with serving() as fake:
        report = await asyncio.to_thread(run, plan(fake, Rate(100)))
    assert report.sent == report.good == 50


async def test_every_image_of_a_stream_is_counted() -> None:
    async with serving() as fake:
        report = await generate(plan(fake, Rate(200), work=STREAM, connections=2))
    assert report.sent == report.good == fake.images == 100
    assert fake.streams == len(fake.peers) == 2
    assert report.lag.count == 25


async def test_images_of_a_stream_fail_by_themselves() -> None:
    async with serving(refused=lambda image: 8 if image % 4 == 1 else 0) as fake:
        report = await generate(plan(fake, Rate(200), work=STREAM))
    assert codes(report) == {"OK": 75, "RESOURCE_EXHAUSTED": 25}


async def test_a_stream_that_ends_is_opened_anew_and_no_image_is_lost() -> None:
    async with serving(images_per_stream=20) as fake:
        report = await generate(plan(fake, Rate(200), work=STREAM))
    assert fake.streams > 1
    assert report.sent == sum(codes(report).values()) == 100
    assert set(codes(report)) <= {"OK", "UNAVAILABLE"}
    assert report.good >= 20


async def test_images_that_get_no_result_are_told_apart() -> None:
    async with serving(refused=lambda image: -1 if image % 4 == 2 else 0) as fake:
        report = await generate(plan(fake, Rate(200), work=STREAM, deadline_s=0.1))
    assert codes(report) == {"OK": 75, "NO_ANSWER": 25}
    assert report.failed == 25


async def test_a_closed_loop_of_streams_waits_for_all_images_of_a_message() -> None:
    async with serving() as fake:
        report = await generate(plan(fake, Concurrency(2), work=STREAM))
    assert report.sent == report.good == fake.images
    assert report.sent % 4 == 0


async def test_a_report_names_what_was_asked() -> None:
    async with serving() as fake:
        asked = plan(fake, Rate(50), deadline_s=3.0)
        report = await generate(asked)
    found = dataclasses.asdict(report)
    assert found["target"] == fake.address
    assert found["method"] == ECHO
    assert (report.offered_per_s, report.deadline_s, report.duration_s) == (50, 3.0, 0.5)
