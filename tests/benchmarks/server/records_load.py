"""Calls of Classify, one after the other by a few callers at a time, and how long each took."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from dataclasses import dataclass

import grpc.aio
import numpy as np
import numpy.typing as npt
from prometheus_client.parser import text_string_to_metric_families

from ibinn.client import wire
from tests.benchmarks.server.process import Started

REQUEST = wire.classify_bytes(bytes(2_500))
_DRAIN_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A second or less of calls.

    Attributes:
        latencies_s: Of each call.
        seconds: From the first call to the last answer.
        failed: Calls without an answer.
        waiting: Answers whose records were still to be written then.
    """

    latencies_s: npt.NDArray[np.float64]
    seconds: float
    failed: int
    waiting: float

    @property
    def per_s(self) -> float:
        """Answers per second."""
        return (len(self.latencies_s) - self.failed) / self.seconds

    def quantile_s(self, share: float) -> float:
        """Of the latencies."""
        return float(np.quantile(self.latencies_s, share, method="higher"))


class Load:
    """A connection to a server.

    Args:
        server: The server.
        callers: Calls that are unanswered at any time.
        waits: Whether the next block begins only when all answers of this one are on record.
    """

    def __init__(self, server: Started, *, callers: int, waits: bool) -> None:
        self._server = server
        self._callers = callers
        self._waits = waits
        self._channel = grpc.aio.insecure_channel(server.address)

    async def block(self, seconds: float) -> Block:
        """Calls for some time."""
        method = self._channel.unary_unary(wire.CLASSIFY)
        taken: list[float] = []
        failed = 0
        start = time.perf_counter()

        async def caller() -> None:
            nonlocal failed
            while (begun := time.perf_counter()) - start < seconds:
                try:
                    await method(REQUEST, timeout=30.0)
                except grpc.aio.AioRpcError:
                    failed += 1
                taken.append(time.perf_counter() - begun)

        await asyncio.gather(*(caller() for _ in range(self._callers)))
        taken_s = time.perf_counter() - start
        waiting = 0.0
        if self._waits:
            waiting = await asyncio.to_thread(metric, self._server, "ibinn_records_waiting")
            await self.recorded()
        return Block(latencies_s=np.array(taken), seconds=taken_s, failed=failed, waiting=waiting)

    async def recorded(self) -> None:
        """Returns when no answer waits for its record."""
        until = time.monotonic() + _DRAIN_S
        while await asyncio.to_thread(metric, self._server, "ibinn_records_waiting") > 0:
            if time.monotonic() > until:
                raise RuntimeError("answers wait for their records for too long")
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        """Ends the connection."""
        await self._channel.close()


def metric(server: Started, name: str, **labels: str) -> float:
    """A sum of samples that the server counts now."""
    with urllib.request.urlopen(server.metrics, timeout=30) as response:
        text = response.read().decode()
    wanted = labels.items()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and wanted <= sample.labels.items()
    )
