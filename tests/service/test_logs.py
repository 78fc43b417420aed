"""What log entries say, whose call they belong to, and that strangers cannot write them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc._cython import cygrpc

from ibinn.v1 import admin_service_pb2 as admin
from ibinn.v1 import model_pb2
from ibinn.v1.classification_service_pb2 import ClassifyRequest, ExplainRequest
from ibinn.v1.classification_service_pb2_grpc import ClassificationServiceStub
from service import logs
from tests.service.administered import administered
from tests.service.models.scripted import write
from tests.service.running import running
from tests.service.stub import png

LOGGER = logging.getLogger("service.test")


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leaves the process's logging as it was; the verbosity of gRPC's core too."""
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("", "service", "ibinn")}
    handlers = root.handlers[:]
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def entries(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_entries_of_concurrent_calls_carry_their_own_request_ids(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(level="info", form="json")
    turn = asyncio.Barrier(2)

    async def call(request_id: str) -> None:
        logs.bind(request_id, "Classify")
        await turn.wait()
        LOGGER.info("working")
        await asyncio.create_task(helper())

    async def helper() -> None:
        LOGGER.warning("helping")

    await asyncio.gather(*(asyncio.create_task(call(name)) for name in ("one", "other")))
    LOGGER.info("outside")

    found = entries(capsys)
    assert {(entry.get("request_id"), entry["message"]) for entry in found} == {
        ("one", "working"),
        ("other", "working"),
        ("one", "helping"),
        ("other", "helping"),
        (None, "outside"),
    }
    assert all(entry["logger"] == "service.test" and entry["pid"] for entry in found)
    assert {entry["level"] for entry in found} == {"INFO", "WARNING"}
    assert all(entry["time"].endswith("Z") for entry in found)


def test_trace_is_a_field_of_its_entry(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="info", form="json")
    try:
        raise RuntimeError("no such luck")
    except RuntimeError as error:
        logs.Refusals(LOGGER).broke(error, status="INTERNAL", incident_id="i1", seconds=0.5)
    (entry,) = entries(capsys)
    assert entry["exception"].endswith("RuntimeError: no such luck")
    assert (entry["status"], entry["incident"], entry["seconds"]) == ("INTERNAL", "i1", 0.5)


def test_text_is_one_line_whatever_the_message_holds(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="info", form="text")
    LOGGER.info("refused %s", "a\n2026-11-22 INFO forged", extra={"reason": "RATE_LIMITED"})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(r"service.test: refused a\n2026-11-22 INFO forged reason=RATE_LIMITED")


def test_one_configuration_replaces_another(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="info", form="text")
    logs.configure(level="error", form="json")
    LOGGER.info("unheard")
    LOGGER.error("heard")
    assert [entry["message"] for entry in entries(capsys)] == ["heard"]


def test_other_libraries_are_heard_from_warnings_on_even_at_debug(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(level="debug", form="json")
    logging.getLogger("PIL.TiffImagePlugin").debug("tag: owner of the camera")
    logging.getLogger("PIL.TiffImagePlugin").warning("truncated")
    LOGGER.debug("ours")
    assert [entry["message"] for entry in entries(capsys)] == ["truncated", "ours"]


def test_flood_of_one_reason_is_bounded_and_told_while_another_is_heard(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    logs.configure(level="info", form="json")
    refusals = logs.Refusals(LOGGER, per_second=3, clock=lambda: now)
    for _ in range(10):
        refusals.refused(status="RESOURCE_EXHAUSTED", reason="QUEUE_FULL", seconds=0.001)
    refusals.refused(status="INVALID_ARGUMENT", reason="IMAGE_UNREADABLE", seconds=0.001)
    now = 1.0
    refusals.refused(status="RESOURCE_EXHAUSTED", reason="QUEUE_FULL", seconds=0.001)
    assert [(entry["reason"], entry.get("left_out")) for entry in entries(capsys)] == [
        *[("QUEUE_FULL", None)] * 3,
        ("IMAGE_UNREADABLE", None),
        ("QUEUE_FULL", 7),
    ]


async def test_calls_without_answer_leave_one_entry_each_and_nothing_of_what_was_sent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running() as run:
        # After the start, which has entries of its own.
        logs.configure(level="info", form="json")
        capsys.readouterr()
        stub = ClassificationServiceStub(run.channel)
        await stub.Classify(ClassifyRequest(image=png(), request_id="answered"))
        await refused(stub.Classify(ClassifyRequest(image=b"SECRET bytes", request_id="image")))
        await refused(
            stub.Explain(
                ExplainRequest(image=png(), classes=["SECRET class"], request_id="class"),
                metadata=(("authorization", "Bearer SECRET"), ("x-file", "SECRET.png")),
            )
        )
        run.stub.error = RuntimeError("broken")
        await refused(stub.Classify(ClassifyRequest(image=png(), request_id="fault")))
        text = capsys.readouterr().err
    assert "SECRET" not in text
    found = [json.loads(line) for line in text.splitlines()]
    assert [
        (entry["request_id"], entry["method"], entry["level"], entry["status"]) for entry in found
    ] == [
        ("image", "Classify", "INFO", "INVALID_ARGUMENT"),
        ("class", "Explain", "INFO", "NOT_FOUND"),
        ("fault", "Classify", "ERROR", "INTERNAL"),
    ]
    assert [entry.get("reason") for entry in found[:2]] == ["IMAGE_UNREADABLE", "CLASS_UNKNOWN"]
    assert "RuntimeError: broken" in found[2]["exception"]


async def test_every_order_of_an_operator_leaves_who_what_and_outcome_but_no_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(level="info", form="json")
    async with administered(tmp_path) as found:
        write(found.models, "v2")
        stop = admin.SetModeRequest(mode=model_pb2.MODE_ABSTAIN_ALL, reason="lamp broken")
        await refused(found.admin.Reload(admin.ReloadRequest(bundle="v9")))
        await refused(found.admin.Rollback(admin.RollbackRequest()))
        await found.admin.SetShadow(admin.SetShadowRequest(bundle="v2", share=0.5))
        await found.admin.SetShadow(admin.SetShadowRequest())
        await found.admin.Reload(admin.ReloadRequest(bundle="v2"))
        await found.admin.Rollback(admin.RollbackRequest())
        await found.admin.SetMode(stop)
        await found.status()

    written = capsys.readouterr().err
    orders = [
        entry
        for entry in map(json.loads, written.splitlines())
        if entry["logger"] == "service.admin"
    ]
    assert [(entry["message"], entry["outcome"]) for entry in orders] == [
        ("order: reload bundle 'v9'", "refused"),
        ("order: roll back", "refused"),
        ("order: shadow bundle 'v2' share 0.5", "done"),
        ("order: end the shadow", "done"),
        ("order: reload bundle 'v2'", "done"),
        ("order: roll back", "done"),
        ("order: set mode MODE_ABSTAIN_ALL", "done"),
    ]
    assert {entry["caller"] for entry in orders} == {"operator"}
    assert all(entry["request_id"] and entry["level"] == "INFO" for entry in orders)
    assert found.token not in written


async def refused(call: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await call


def test_a_caller_gone_within_its_answer_leaves_no_error_of_grpc_but_other_faults_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(level="info", form="json")
    grpcs = logging.getLogger("grpc._cython.cygrpc")
    for error in (cygrpc.ExecuteBatchError("the caller is gone"), RuntimeError("a fault")):
        try:
            raise error
        except Exception:  # noqa: BLE001 - as gRPC does
            grpcs.exception("raised by a handler")
    (entry,) = entries(capsys)
    assert "a fault" in entry["exception"]
