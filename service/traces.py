"""Where each call's time went, told to an OpenTelemetry collector if the settings name one.

A span of a call continues the caller's trace (W3C ``traceparent``); decoding, waiting and
computing are its children. No image, name or address of a caller stands in it. Without a
collector, nothing is imported and a call costs two empty calls.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, Protocol

from ibinn.errors import ConfigError
from ibinn.types import Prediction
from service.access.exposure import is_local
from service.settings import Settings


class Span(Protocol):
    """One call, while it is handled."""

    def named(self, request_id: str) -> None:
        """The call's name is known."""

    def answered(self, prediction: Prediction) -> None:
        """An image of the call was answered; the receipt says where the time went."""

    def ended(self, code: str, reason: str = "") -> None:
        """How the call ended: name of the gRPC status, and of the cause where there is one."""


class Tracer(Protocol):
    """Makes spans."""

    def span(
        self, method: str, metadata: Iterable[tuple[str, Any]]
    ) -> AbstractContextManager[Span]:
        """A span around the handling of one call.

        Args:
            method: ``package.Service/Method``.
            metadata: What came with the call; a valid ``traceparent`` is continued.
        """

    def close(self) -> None:
        """Sends what is not sent yet, within seconds."""


_span: ContextVar[Span | None] = ContextVar("ibinn_span", default=None)


def enter(span: Span) -> None:
    """Makes a span the one of this task, and of those it starts from now on."""
    _span.set(span)


def answered(prediction: Prediction) -> None:
    """Adds an answer to the span of this task, if there is one."""
    if (span := _span.get()) is not None:
        span.answered(prediction)


def tracer_of(settings: Settings) -> Tracer:
    """The tracer that the settings ask for.

    Raises:
        ConfigError: The collector's address cannot be used, or OpenTelemetry is not installed.
    """
    if settings.traces is None:
        return Silent()
    if wrong := problems(settings):
        raise ConfigError("; ".join(wrong))
    from service import otel

    return otel.exporting(settings.traces, plaintext=_plaintext(settings))


def problems(settings: Settings) -> list[str]:
    """Everything for which traces cannot be sent as the settings say."""
    if settings.traces is None:
        return []
    scheme, host, port = _parts(settings.traces)
    if scheme not in ("", "http", "https") or not host or not port.isdecimal():
        return [
            f"traces is {settings.traces!r}; expected host:port, http://host:port or "
            "https://host:port of an OTLP collector (gRPC)"
        ]
    if scheme == "http" and not is_local(host) and not settings.insecure:
        return [
            f"traces is {settings.traces!r}: traces would travel in plaintext; give "
            f"--traces https://{host}:{port}, or allow it with --insecure"
        ]
    try:
        import opentelemetry.exporter.otlp.proto.grpc
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError:
        return [
            "traces is set and OpenTelemetry is not installed; run: pip install 'ibinn[otel]', "
            "or leave --traces out"
        ]
    return []


def _plaintext(settings: Settings) -> bool:
    scheme, host, _ = _parts(settings.traces or "")
    return scheme == "http" or (scheme == "" and is_local(host))


def _parts(endpoint: str) -> tuple[str, str, str]:
    scheme, found, address = endpoint.rpartition("://")
    host, _, port = address.rstrip("/").rpartition(":")
    return (scheme.lower() if found else "", host.strip("[]"), port)


class Silent:
    """Tells nobody."""

    def __init__(self) -> None:
        self._nothing = contextlib.nullcontext(_Nothing())

    def span(
        self, method: str, metadata: Iterable[tuple[str, Any]]
    ) -> AbstractContextManager[Span]:
        """A span that is nothing."""
        return self._nothing

    def close(self) -> None:
        """There is nothing to send."""


class _Nothing:
    def named(self, request_id: str) -> None: ...

    def answered(self, prediction: Prediction) -> None: ...

    def ended(self, code: str, reason: str = "") -> None: ...
