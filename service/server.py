"""The server: what listens where, when it is healthy, and how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ibinn.errors import ConfigError
from ibinn.types import ModelInfo
from service import admin, tuning
from service.access import Access, tls
from service.border import Border
from service.decoding.decoders import Decoders, decoders_of
from service.drift import DriftWatch
from service.issuing import Issuer
from service.models import loading
from service.models.manager import ModelManager
from service.models.registry import Models
from service.models.served import Classifier
from service.monitoring import MetricsEndpoint, Monitor
from service.oip import facade as oip
from service.predictor import Predictor
from service.records.images import ImageStore
from service.records.receipts import Receipts
from service.records.recorder import Recorder
from service.records_servicer import RecordsServicer
from service.servicer import SERVICE_NAME, ClassificationServicer
from service.settings import Settings
from service.traces import tracer_of

_log = logging.getLogger(__name__)

EMBEDDED = "embedded"
"""Stands for a folder's name where the model that comes with the software serves."""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_FAREWELL_S = 1.0
"""Time for answers on their way and for health watchers to hear the end."""
_QUIET_S = 0.1
"""Time without a call before the port closes: calls that gRPC has received by then and not handed
over yet end as CANCELLED, whereas callers that were told when to try again are silent."""
_CALLS_BEYOND_PENDING = 256
"""Calls that gRPC holds beside those that the predictor takes on: health checks must find room on
a full server, or it would be restarted for being busy."""
_STARTING_CALLS = 100_000
"""Calls that gRPC holds until Python takes them over. Beyond its own limit of 1,000 it would end
some as CANCELLED, which tells a caller nothing; turning them away is this server's to do."""
_CONNECTION_GRACE_S = 60.0
_HANDSHAKE_S = 20.0
_COMPRESSIONS = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where a server listens.

    Attributes:
        grpc: ``host:port``.
        metrics: URL for Prometheus; "" where metrics are off or served elsewhere.
    """

    grpc: str
    metrics: str


class Server:
    """One server process.

    The health service's empty name means that the process serves; the names of the other services
    mean that a model is loaded.

    Args:
        settings: What can be set.
        load: Loads a bundle; None: as the settings say.
        decoders: Decode images; None: as the settings say.
        reuse_port: Whether other processes may listen on the same port, and metrics are served
            by who started them.
        place: Number of this process among those of the server.

    Raises:
        ConfigError: Tokens, traces, the records' database or the state folder cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        load: Callable[[Path], Classifier] | None = None,
        decoders: Decoders | None = None,
        reuse_port: bool = False,
        place: int = 0,
    ) -> None:
        self._settings = settings
        self._reuse_port = reuse_port
        self.monitor = Monitor(enabled=settings.metrics)
        self._models = Models()
        self._decoders = decoders or decoders_of(settings, self.monitor)
        name = f"{socket.gethostname()}:{settings.port}/{place}"
        receipts = Receipts.open(settings)
        self._recorder = Recorder.open(
            settings,
            server=name,
            receipts=receipts,
            images=ImageStore.open(settings),
            monitor=self.monitor,
        )
        issuer = Issuer(
            models=self._models,
            monitor=self.monitor,
            receipts=None if self._recorder is None else receipts,
            recorder=self._recorder,
        )
        self.predictor = Predictor(
            settings,
            models=self._models,
            decoders=self._decoders,
            issuer=issuer,
            monitor=self.monitor,
        )
        self._tracer = tracer_of(settings)
        self.manager = ModelManager(
            settings,
            models=self._models,
            load=load or functools.partial(loading.load, settings),
            verify=functools.partial(loading.verify, settings),
            background=self.predictor.in_background,
            monitor=self.monitor,
        )
        self.predictor.observers.append(self.manager.observe)
        self.drift = DriftWatch(
            settings,
            server=name,
            monitor=self.monitor,
            models=self._models,
            recorder=self._recorder,
            background=self.predictor.in_background,
        )
        issuer.guarantee = self.drift.guarantee
        self._models.listeners.append(self.drift.serves)
        self.predictor.observers.append(self.drift.observe)
        if self._recorder is not None:
            self._recorder.listeners.append(self.drift.labelled)
        self._border = Border(
            access=Access.open(settings),
            monitor=self.monitor,
            tracer=self._tracer,
            patience_s=settings.request_timeout_s,
            certificates=settings.tls_client_ca is not None,
        )
        self._health = health.aio.HealthServicer()
        self._services = {
            SERVICE_NAME: [
                *ClassificationServicer(
                    self.predictor,
                    monitor=self.monitor,
                    stream_window=settings.stream_window,
                    describe=functools.partial(admin.describe, self._models),
                ).routes(),
                *RecordsServicer(self._recorder).routes(),
            ],
            admin.SERVICE_NAME: admin.admin_routes(
                self.manager, drift=self.drift, recorder=self._recorder
            ),
            oip.SERVICE_NAME: oip.oip_routes(self.predictor),
        }
        self._server: Any = grpc.aio.server(
            options=_channel_options(settings, reuse_port=reuse_port),
            compression=_COMPRESSIONS[settings.compression],
            maximum_concurrent_rpcs=2 * settings.max_pending + _CALLS_BEYOND_PENDING,
        )
        self._server.add_generic_rpc_handlers(
            tuple(self._border.handler(name, routes) for name, routes in self._services.items())
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if settings.reflection:
            names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        self._metrics: MetricsEndpoint | None = None

    async def start(self) -> Addresses:
        """Listens. Calls are answered UNAVAILABLE until a model is loaded.

        Raises:
            ConfigError: An address is not available, or what decodes cannot be started.
        """
        settings = self._settings
        address = f"[{settings.host}]" if ":" in settings.host else settings.host
        await self._tell_health(_NOT_SERVING)
        port = self._listen(f"{address}:{settings.port}")
        if settings.metrics and not self._reuse_port:
            self._metrics = MetricsEndpoint.start(
                self.monitor, host=settings.host, port=settings.metrics_port
            )
        await self._decoders.start()
        await self._server.start()
        url = "" if self._metrics is None else self._metrics.url
        return Addresses(grpc=f"{address}:{port}", metrics=url)

    async def load(self, load: Callable[[], Classifier], *, bundle: str = "") -> ModelInfo:
        """Loads a model, off the event loop, and serves it.

        Args:
            load: Loads it.
            bundle: Name of its folder.

        Raises:
            IbinnError: What `load` raises.
        """
        # A guarantee that is suspended is so from the first answer.
        if self._recorder is not None:
            await self._recorder.start()
        await self.drift.start()
        served = await self.predictor.load(load, bundle=bundle)
        await self.manager.start(served)
        await self._tell_health(_SERVING)
        return self._models.default.info

    async def stop(self) -> None:
        """Says NOT_SERVING, finishes the calls in flight, then closes."""
        await self._health.enter_graceful_shutdown()
        self.predictor.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._border.until_idle(), self._settings.drain_timeout_s)
            await asyncio.wait_for(self._border.until_quiet(_QUIET_S), _FAREWELL_S)
        await self.manager.stop()
        await self._server.stop(_FAREWELL_S)
        await self.drift.stop()
        if self._recorder is not None:
            await self._recorder.stop()
        await self._decoders.stop()
        self.predictor.close()
        await asyncio.to_thread(self._tracer.close)
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.stop)

    def _listen(self, address: str) -> int:
        credentials = tls.server_credentials(self._settings)
        try:
            if credentials is None:
                return int(self._server.add_insecure_port(address))
            return int(self._server.add_secure_port(address, credentials))
        except RuntimeError as error:
            raise ConfigError(
                f"cannot listen on {address}: the address is in use or not of this machine; "
                "choose another --host or --port (0 takes a free one)"
            ) from error

    async def _tell_health(self, status: Any) -> None:
        for name in self._services:
            await self._health.set(name, status)


def _channel_options(settings: Settings, *, reuse_port: bool) -> tuple[tuple[str, int], ...]:
    return (
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.so_reuseport", 1 if reuse_port else 0),  # else a second server could share unnoticed
        # A connection whose other end has vanished is found out and closed.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        # So is one that never says that it speaks HTTP/2.
        ("grpc.server_handshake_timeout_ms", round(1000 * _HANDSHAKE_S)),
        # What a revoked token or certificate opened ends, and connections spread over replicas.
        ("grpc.max_connection_age_ms", round(1000 * settings.max_connection_age_s)),
        ("grpc.max_connection_age_grace_ms", round(1000 * _CONNECTION_GRACE_S)),
        ("grpc.server.max_pending_requests", _STARTING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _STARTING_CALLS),
    )


async def serve(
    settings: Settings,
    load: Callable[[Path], Classifier],
    *,
    on_ready: Callable[[Addresses, ModelInfo], None],
    reuse_port: bool = False,
    place: int = 0,
) -> None:
    """Serves until SIGTERM or SIGINT, then stops in order.

    Args:
        settings: What can be set.
        load: Loads a bundle; the first one in the inference thread.
        on_ready: Called once, when the model is loaded.
        reuse_port: See `Server`.
        place: See `Server`.

    Raises:
        IbinnError: An address is not available, or the model cannot be loaded.
    """
    server = Server(settings, load=load, reuse_port=reuse_port, place=place)
    bundle = server.manager.initial_folder()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    stop = asyncio.create_task(stopping.wait())
    try:
        # A lone server says early that it lives. One of several must not listen before it can
        # answer: it would get its share of the calls, which the others could have answered.
        steps = _loaded_and_started if reuse_port else _started_and_loaded
        name = EMBEDDED if settings.bundle is None else bundle.name
        starting = asyncio.create_task(steps(server, lambda: load(bundle), name))
        await asyncio.wait((starting, stop), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            tuning.after_loading()
            on_ready(*starting.result())
            await stop
        starting.cancel()
        _log.info("stopping: finishing the requests in flight")
    finally:
        stop.cancel()
        await server.stop()


async def _started_and_loaded(
    server: Server, load: Callable[[], Classifier], bundle: str
) -> tuple[Addresses, ModelInfo]:
    addresses = await server.start()
    return addresses, await server.load(load, bundle=bundle)


async def _loaded_and_started(
    server: Server, load: Callable[[], Classifier], bundle: str
) -> tuple[Addresses, ModelInfo]:
    info = await server.load(load, bundle=bundle)
    return await server.start(), info
