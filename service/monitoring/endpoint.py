"""The HTTP endpoint that Prometheus reads."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Thread
from typing import Protocol
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from ibinn.errors import ConfigError


class Metered(Protocol):
    """What has metrics: a `Monitor`, or the sum of several processes."""

    registry: CollectorRegistry


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsEndpoint:
    """The HTTP endpoint that Prometheus reads.

    Attributes:
        host: Where it listens.
        port: The port it got.
    """

    host: str
    port: int
    _server: WSGIServer
    _thread: Thread

    @classmethod
    def start(cls, metered: Metered, *, host: str, port: int) -> MetricsEndpoint:
        """Serves the metrics at ``/metrics`` from a thread.

        Args:
            metered: What to serve.
            host: Address to listen on.
            port: Port to listen on; 0 takes a free one.

        Raises:
            ConfigError: The address is not available.
        """
        try:
            server, thread = start_http_server(port, addr=host, registry=metered.registry)
        except OSError as error:
            raise ConfigError(
                f"cannot serve metrics on {host}:{port}: {error.strerror or error}; choose "
                "another --metrics-port (0 takes a free one)"
            ) from error
        return cls(host=host, port=server.server_port, _server=server, _thread=thread)

    @property
    def url(self) -> str:
        """Where the metrics are."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/metrics"

    def stop(self) -> None:
        """Closes the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
