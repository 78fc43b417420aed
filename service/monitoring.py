"""What the service counts, for Prometheus.

Base units, bounded labels, a registry of its own. Names start with ``ibinn_``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)

from ibinn.errors import ConfigError
from ibinn.policy import RULES, action_of
from ibinn.types import ModelInfo, Prediction, Verdict

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Monitor:
    """The service's metrics.

    Attributes:
        registry: Holds every metric of this monitor and nothing else.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "ibinn_requests",
            "Finished calls by method and gRPC status.",
            ("method", "code"),
            registry=self.registry,
        )
        self._duration = Histogram(
            "ibinn_request_duration_seconds",
            "Time from the start of a call to its end.",
            ("method",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._queue_wait = Histogram(
            "ibinn_queue_wait_seconds",
            "Time that an image waited for its batch.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch_size = Histogram(
            "ibinn_batch_size",
            "Images computed together.",
            buckets=_SIZES,
            registry=self.registry,
        )
        self._compute = Histogram(
            "ibinn_compute_seconds",
            "Time that a batch was computed.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._pending = Gauge(
            "ibinn_pending_requests",
            "Requests being decoded, waiting and being computed.",
            registry=self.registry,
        )
        self._waiting = Gauge(
            "ibinn_waiting_images", "Images that wait for their batch.", registry=self.registry
        )
        self._verdicts = Counter(
            "ibinn_verdicts", "Answers by verdict.", ("verdict",), registry=self.registry
        )
        for verdict in Verdict:  # a series that exists from the start has a rate from the start
            self._verdicts.labels(verdict.value)
        self._tests = Counter(
            "ibinn_tests",
            "Answers in which a test gave a p-value.",
            ("test",),
            registry=self.registry,
        )
        self._flags = Counter(
            "ibinn_test_flags",
            "Answers that a test flagged: false flags and finds together.",
            ("test",),
            registry=self.registry,
        )
        self._decisions = Counter(
            "ibinn_decisions",
            "Answers by what the policy made of them and the rule that fired.",
            ("action", "rule"),
            registry=self.registry,
        )
        self._rejections = Counter(
            "ibinn_rejections",
            "Requests without an answer by reason.",
            ("reason",),
            registry=self.registry,
        )
        self._model_info = Gauge(
            "ibinn_model_info",
            "1 for the model that is served.",
            ("model", "weights", "calibration", "policy"),
            registry=self.registry,
        )

    def request(self, method: str, code: str, seconds: float) -> None:
        """A call has ended."""
        self._requests.labels(method, code).inc()
        self._duration.labels(method).observe(seconds)

    def rejection(self, reason: str) -> None:
        """A request got no answer; `reason` is one of a fixed set of names."""
        self._rejections.labels(reason).inc()

    def batch(self, size: int, seconds: float) -> None:
        """A batch was computed."""
        self._batch_size.observe(size)
        self._compute.observe(seconds)

    def queue_wait(self, seconds: float) -> None:
        """An image came to its batch."""
        self._queue_wait.observe(seconds)

    def prediction(self, prediction: Prediction) -> None:
        """An answer was given."""
        self._verdicts.labels(prediction.verdict.value).inc()
        if (decision := prediction.decision) is not None:
            self._decisions.labels(decision.action.value, decision.rule).inc()
        combined = () if prediction.combined is None else (prediction.combined,)
        for test in (*prediction.tests, *combined):
            self._tests.labels(test.name).inc(0 if test.p_value is None else 1)
            self._flags.labels(test.name).inc(1 if test.flagged else 0)

    def model(self, info: ModelInfo) -> None:
        """A model is served from now on."""
        versions = info.versions
        self._model_info.clear()
        self._model_info.labels(
            info.name, versions.weights, versions.calibration, versions.policy
        ).set(1)
        for rule in RULES if info.policy is not None else ():
            self._decisions.labels(action_of(rule).value, rule.value)
        for test in info.tests:
            self._tests.labels(test.name)
            self._flags.labels(test.name)

    def watch(self, *, pending: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Reads these numbers whenever they are asked for."""
        self._pending.set_function(pending)
        self._waiting.set_function(waiting)


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
    def start(cls, monitor: Monitor, *, host: str, port: int) -> MetricsEndpoint:
        """Serves the monitor's metrics at ``/metrics`` from a thread.

        Args:
            monitor: What to serve.
            host: Address to listen on.
            port: Port to listen on; 0 takes a free one.

        Raises:
            ConfigError: The address is not available.
        """
        try:
            server, thread = start_http_server(port, addr=host, registry=monitor.registry)
        except OSError as error:
            raise ConfigError(
                f"cannot serve metrics on {host}:{port}: {error.strerror or error}; choose "
                "another --metrics-port (0 takes a free one)"
            ) from error
        return cls(host=host, port=server.server_port, _server=server, _thread=thread)

    @property
    def url(self) -> str:
        """Where the metrics are."""
        return f"http://{self.host}:{self.port}/metrics"

    def stop(self) -> None:
        """Closes the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
