"""The server: what listens where, when it is healthy, and how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ibinn.errors import ConfigError
from ibinn.types import ModelInfo
from ibinn.v1.classification_service_pb2_grpc import add_ClassificationServiceServicer_to_server
from service.border import Border
from service.monitoring import MetricsEndpoint, Monitor
from service.predictor import Classifier, Predictor
from service.servicer import SERVICE_NAME, ClassificationServicer
from service.settings import Settings

_log = logging.getLogger(__name__)

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_FAREWELL_S = 1.0
"""Time for answers on their way and for health watchers to hear the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where a server listens.

    Attributes:
        grpc: ``host:port``.
        metrics: URL for Prometheus.
    """

    grpc: str
    metrics: str


class Server:
    """One server with one model.

    The health service's empty name means that the process serves; the name
    ``ibinn.v1.ClassificationService`` means that a model is loaded.

    Args:
        settings: What can be set.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.monitor = Monitor()
        self._predictor = Predictor(
            max_batch_size=settings.max_batch_size,
            max_pending=settings.max_pending,
            request_timeout_s=settings.request_timeout_s,
            decode_threads=settings.decode_threads,
            monitor=self.monitor,
        )
        self._border = Border(service_name=SERVICE_NAME, monitor=self.monitor)
        self._health = health.aio.HealthServicer()
        # The number of calls is bounded by the predictor, not by gRPC: a full server must still
        # answer health checks, or it would be restarted for being busy.
        self._server: Any = grpc.aio.server(
            interceptors=(self._border,),
            options=(
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.so_reuseport", 0),  # else a second server could share the port unnoticed
            ),
        )
        add_ClassificationServiceServicer_to_server(
            ClassificationServicer(self._predictor), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self._metrics: MetricsEndpoint | None = None

    async def start(self) -> Addresses:
        """Listens. Calls are answered UNAVAILABLE until a model is loaded.

        Raises:
            ConfigError: An address is not available.
        """
        host = self._settings.host
        address = f"[{host}]" if ":" in host else host
        await self._health.set(SERVICE_NAME, _NOT_SERVING)
        try:
            port = self._server.add_insecure_port(f"{address}:{self._settings.port}")
        except RuntimeError as error:
            raise ConfigError(
                f"cannot listen on {host}:{self._settings.port}: the address is in use or not of "
                "this machine; choose another --host or --port (0 takes a free one)"
            ) from error
        self._metrics = MetricsEndpoint.start(
            self.monitor, host=host, port=self._settings.metrics_port
        )
        await self._server.start()
        return Addresses(grpc=f"{address}:{port}", metrics=self._metrics.url)

    async def load(self, load: Callable[[], Classifier]) -> ModelInfo:
        """Loads a model, off the event loop, and serves it.

        Raises:
            IbinnError: What `load` raises.
        """
        info = await self._predictor.load(load)
        await self._health.set(SERVICE_NAME, _SERVING)
        return info

    async def stop(self) -> None:
        """Says NOT_SERVING, finishes the calls in flight, then closes."""
        await self._health.enter_graceful_shutdown()
        self._predictor.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._border.until_idle(), self._settings.drain_timeout_s)
        await self._server.stop(_FAREWELL_S)
        self._predictor.close()
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.stop)


async def serve(
    settings: Settings,
    load: Callable[[], Classifier],
    *,
    on_ready: Callable[[Addresses, ModelInfo], None],
) -> None:
    """Serves until SIGTERM or SIGINT, then stops in order.

    Args:
        settings: What can be set.
        load: Loads the model; runs in the inference thread.
        on_ready: Called once, when the model is loaded.

    Raises:
        IbinnError: An address is not available, or the model cannot be loaded.
    """
    server = Server(settings)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    stop = asyncio.create_task(stopping.wait())
    try:
        addresses = await server.start()
        loading = asyncio.create_task(server.load(load))
        await asyncio.wait((loading, stop), return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            on_ready(addresses, loading.result())
            await stop
        _log.info("stopping: finishing the requests in flight")
    finally:
        stop.cancel()
        await server.stop()
