"""Spans for an OpenTelemetry collector; imported only where the settings name one."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import ibinn
from ibinn.types import Prediction
from service import traces

_PATIENCE_S = 3.0
"""Longest time for one batch of spans to the collector: a stop must not wait for a silent one."""

_FAULTS = ("INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED", "UNAVAILABLE", "DATA_LOSS", "UNIMPLEMENTED")
"""Statuses that count as errors of the server, as OpenTelemetry's conventions for RPC have it."""

_propagator = TraceContextTextMapPropagator()


def exporting(endpoint: str, *, plaintext: bool) -> Exported:
    """A tracer that sends its spans to a collector.

    Args:
        endpoint: ``host:port``, with or without ``http://`` or ``https://``.
        plaintext: Whether the collector is spoken to without TLS.
    """
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=plaintext, timeout=_PATIENCE_S)
    return Exported(BatchSpanProcessor(exporter, export_timeout_millis=1000 * _PATIENCE_S))


class Exported:
    """Makes spans and hands them to a processor. Nothing global of OpenTelemetry is touched.

    Args:
        processor: Gets every finished span.
    """

    def __init__(self, processor: SpanProcessor) -> None:
        resource = Resource.create(
            {
                "service.name": "ibinn-serve",
                "service.version": ibinn.__version__,
                "process.pid": os.getpid(),
            }
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("ibinn", ibinn.__version__)

    @contextlib.contextmanager
    def span(self, method: str, metadata: Iterable[tuple[str, Any]]) -> Iterator[traces.Span]:
        """A span around the handling of one call."""
        carrier = {key: value for key, value in metadata if key in _propagator.fields}
        service, _, name = method.rpartition("/")
        span = self._tracer.start_span(
            method,
            context=_propagator.extract(carrier, context=Context()),
            kind=trace.SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
        )
        made = _Span(self._tracer, span)
        traces.enter(made)
        try:
            yield made
        finally:
            span.end()

    def close(self) -> None:
        """Sends what is not sent yet, within seconds; a collector that is silent loses it."""
        last = threading.Thread(target=self._provider.shutdown, name="ibinn-traces", daemon=True)
        last.start()
        last.join(_PATIENCE_S)


class _Span:
    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span

    def named(self, request_id: str) -> None:
        self._span.set_attribute("ibinn.request_id", request_id)

    def answered(self, prediction: Prediction) -> None:
        self._span.set_attributes(
            {
                "ibinn.model": prediction.versions.weights[:12],
                "ibinn.verdict": prediction.verdict.value,
            }
        )
        receipt = prediction.receipt
        if receipt is None:
            return
        timing = receipt.timing
        self._span.set_attribute("ibinn.batch_size", timing.batch_size)
        start_s = receipt.received_time.timestamp()
        steps = (
            ("decode", timing.prepare_s),
            ("queue", timing.queue_s),
            ("compute", timing.compute_s),
        )
        context = trace.set_span_in_context(self._span, Context())
        for name, seconds in steps:
            step = self._tracer.start_span(name, context=context, start_time=_ns(start_s))
            start_s += seconds
            step.end(end_time=_ns(start_s))

    def ended(self, code: str, reason: str = "") -> None:
        self._span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[code].value[0])
        if reason:
            self._span.set_attribute("ibinn.reason", reason)
        if code in _FAULTS:
            self._span.set_status(trace.StatusCode.ERROR, reason or code)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
