"""Hundreds of connections at once on a full server: health still answers, memory is kept."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ibinn.client import wire
from tests.faults import rude
from tests.faults.draining import HANGS
from tests.faults.laws import broken
from tests.faults.server import ServerProcess, eventually, stub_server
from tests.fuzz.http2 import grpc_statuses
from tests.service.stub import png

_GROWTH_MB = 100.0
_HEALTH_S = 1.0
_SETTLE_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StormResult:
    """What a storm of connections does to a full server.

    Attributes:
        connections: Opened at once, each with a call of its own.
        pending: Requests that the server had when it was full.
        most_pending: What it may have.
        refused: Calls of the storm that ended with RESOURCE_EXHAUSTED at once.
        health_s: Longest of 20 health checks over new connections during the storm.
        rss_before_mb: Memory before; likewise during.
        files_before: Open files before, and after all had left.
        faults: Faults in the log.
    """

    connections: int
    pending: float
    most_pending: int
    refused: int
    health_s: float
    rss_before_mb: float
    rss_during_mb: float
    files_before: int
    files_after: int
    faults: tuple[str, ...]

    @property
    def broken(self) -> tuple[str, ...]:
        return broken(
            (self.pending == self.most_pending, f"{self.pending:g} of {self.most_pending} pending"),
            (self.health_s <= _HEALTH_S, f"a health check took {self.health_s:.2f} s"),
            (
                self.refused == self.connections,
                f"{self.refused} of {self.connections} calls were told that the server is full",
            ),
            (
                self.rss_during_mb <= self.rss_before_mb + _GROWTH_MB,
                f"memory {self.rss_before_mb:.0f} -> {self.rss_during_mb:.0f} MB",
            ),
            (
                self.files_after <= self.files_before + 2,
                f"files {self.files_before} -> {self.files_after}",
            ),
            (not self.faults, f"log: {self.faults[:3]}"),
        )


def of_connections(*, connections: int = 500, max_pending: int = 64) -> StormResult:
    """Connections that all come at once, with a call each, while the network hangs.

    Args:
        connections: How many.
        max_pending: Requests that the server takes on.
    """
    with stub_server(
        hangs_on=HANGS, max_pending=max_pending, request_timeout_s=60.0, drain_timeout_s=1.0
    ) as server:
        _check(server)
        before = server.resources()
        with contextlib.ExitStack() as stack:
            stack.enter_context(_full(server, max_pending))
            pending = server.metric("ibinn_pending_requests")
            storm = [
                stack.enter_context(socket.create_connection(server.address))
                for _ in range(connections)
            ]
            call = rude.opening() + rude.request(wire.CLASSIFY, wire.classify_bytes(png(1)))
            sending = threading.Thread(target=_send, args=(storm, call))
            sending.start()
            health_s = max(_check(server) for _ in range(20))
            sending.join()
            refused = sum(_status(each) == "8" for each in storm)
            during = server.resources()
        eventually(lambda: server.resources().files <= before.files + 2, within_s=_SETTLE_S)
        return StormResult(
            connections=connections,
            pending=pending,
            most_pending=max_pending,
            refused=refused,
            health_s=health_s,
            rss_before_mb=before.rss_mb,
            rss_during_mb=during.rss_mb,
            files_before=before.files,
            files_after=server.resources().files,
            faults=server.faults(),
        )


@contextlib.contextmanager
def _full(server: ServerProcess, count: int) -> Iterator[None]:
    """So many requests in the server, behind one on which its network hangs."""
    with grpc.insecure_channel(server.target) as channel:
        method = channel.unary_unary(wire.CLASSIFY)
        waiting = [method.future(wire.classify_bytes(png(HANGS)), timeout=60.0)]

        def is_full() -> bool:
            pending = server.metric("ibinn_pending_requests")
            unanswered = sum(not call.done() for call in waiting)
            if pending == unanswered < count:  # some may be answered before it hangs
                more = wire.classify_bytes(png(1))
                waiting.extend(method.future(more, timeout=60.0) for _ in range(count - unanswered))
            return pending == count

        if not eventually(is_full, within_s=_SETTLE_S):
            raise RuntimeError("the server did not fill up")
        yield
        for call in waiting:
            call.cancel()


def _send(storm: Sequence[socket.socket], call: bytes) -> None:
    for connection in storm:
        connection.sendall(call)


def _check(server: ServerProcess) -> float:
    """Seconds of a health check over a new connection."""
    start = time.perf_counter()
    with grpc.insecure_channel(
        server.target, options=(("grpc.use_local_subchannel_pool", 1),)
    ) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=10.0
        )
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        return float("inf")
    return time.perf_counter() - start


def _status(connection: socket.socket) -> str:
    """The status that the server ends a connection's call with."""
    heard = b""
    connection.settimeout(10.0)
    with contextlib.suppress(OSError):
        while not (found := grpc_statuses(heard)):
            piece = connection.recv(65536)
            if not piece:
                return "closed"
            heard += piece
        return found[0]
    return "nothing"
