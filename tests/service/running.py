"""A server on a free port, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status
from prometheus_client.parser import text_string_to_metric_families

from ibinn.client import AsyncClient, Retry
from service.server import Addresses, Server
from service.settings import Settings
from tests.service.stub import INFO, StubClassifier

PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    server: Server
    addresses: Addresses
    stub: StubClassifier
    client: AsyncClient
    channel: grpc.aio.Channel

    def metric(self, name: str, **labels: str) -> float:
        value = self.server.monitor.registry.get_sample_value(name, labels)
        assert value is not None, f"no series {name} {labels}"
        return value

    async def pending(self, count: int) -> None:
        """Waits until the server has that many requests."""
        await until(lambda: self.metric("ibinn_pending_requests") == count)

    async def waiting(self, count: int) -> None:
        """Waits until that many images wait for their batch."""
        await until(lambda: self.metric("ibinn_waiting_images") == count)

    async def entered(self) -> None:
        """Waits until the stub computes."""
        assert await asyncio.to_thread(self.stub.entered.wait, PATIENCE_S)

    async def scrape(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Every sample that Prometheus would read."""
        text = await asyncio.to_thread(_get, self.addresses.metrics)
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


def settings(**changes: Any) -> Settings:
    defaults = {
        "port": 0,
        "metrics_port": 0,
        "max_image_bytes": INFO.max_bytes,
        "decode_in": "thread",
    }
    return Settings(**{**defaults, **changes})


@contextlib.asynccontextmanager
async def running(
    stub: StubClassifier | None = None, *, loaded: bool = True, **changes: Any
) -> AsyncIterator[Running]:
    """A started server, its client and its classifier; stopped at the end."""
    stub = StubClassifier() if stub is None else stub
    server = Server(settings(**changes))
    addresses = await server.start()
    try:
        if loaded:
            await server.load(lambda: stub)
        async with (
            AsyncClient(addresses.grpc, timeout_s=PATIENCE_S, retry=Retry.none()) as client,
            grpc.aio.insecure_channel(addresses.grpc) as channel,
        ):
            yield Running(
                server=server, addresses=addresses, stub=stub, client=client, channel=channel
            )
    finally:
        stub.gate.set()
        await server.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition that another thread or task brings about."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.002)


async def failed(call: Any) -> tuple[grpc.aio.AioRpcError, dict[type, Any]]:
    """The error of a raw call that must fail, with its google.rpc details by type."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error, _details(error)
    raise AssertionError("the call did not fail")


def _details(error: grpc.aio.AioRpcError) -> dict[type, Any]:
    found: dict[type, Any] = {}
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = Status.FromString(value)
            assert (status.code, status.message) == (error.code().value[0], error.details())
            for detail in status.details:
                for kind in (BadRequest, ErrorInfo, RequestInfo, RetryInfo):
                    message = kind()
                    if detail.Unpack(message):
                        found[kind] = message
    return found


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
        return response.read().decode()
