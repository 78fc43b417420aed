"""Log entries: what they look like, which call they belong to, and what never stands in them.

An entry has time, level, logger, message, process id and, inside a call, the request id and the
method. Nothing that a caller sent stands in one, request ids apart, which the contract keeps
harmless: no image, token, file name, class name; a caller's address only at level debug. An
operator's order stands in one, with the name of the token or certificate that gave it.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal, TextIO

from pythonjsonlogger.json import JsonFormatter

_OURS = ("service", "ibinn")
_GRPC = "grpc._cython.cygrpc"
_HUNG_UP = "ExecuteBatchError"
_FIELDS = (
    *("request_id", "method", "caller", "outcome"),
    *("status", "reason", "seconds", "incident", "left_out"),
)
"""Extra fields that entries may have, in this order in text."""

_call: ContextVar[tuple[str, str]] = ContextVar("ibinn_call", default=("", ""))


def bind(request_id: str, method: str) -> None:
    """Entries of this task, and of those it starts from now on, belong to this call."""
    _call.set((request_id, method))


def of_call() -> tuple[str, str]:
    """Request id and method of the call that this task belongs to; empty outside of one."""
    return _call.get()


def configure(*, level: str, form: Literal["text", "json"]) -> None:
    """Sends the entries of this process to standard error.

    Other libraries are heard from level warning on, whatever the level: at debug, some would
    write down what stands in an image. gRPC's core, which writes a line past every logger for
    each failed handshake of a stranger, is silent unless GRPC_VERBOSITY is set.

    Args:
        level: Least severe level written, such as ``info``.
        form: ``json`` for one object a line, ``text`` for people.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    root = logging.getLogger()
    for handler in [found for found in root.handlers if isinstance(found, _ToStandardError)]:
        root.removeHandler(handler)
    handler = _ToStandardError()
    handler.addFilter(_add_call)
    handler.setFormatter(_as_json() if form == "json" else _Text())
    root.addHandler(handler)
    least = logging.getLevelName(level.upper())
    root.setLevel(max(least, logging.WARNING))
    for name in _OURS:
        logging.getLogger(name).setLevel(least)
    logging.getLogger(_GRPC).addFilter(_is_news)
    logging.captureWarnings(True)


class Refusals:
    """Writes an entry for each call that ended without an answer.

    A full server turns away thousands of calls in a second for one reason: of one reason at most
    `per_second` are written, and the next entry says how many were left out. Faults of the server
    are all written, with their traces.

    Args:
        logger: Gets the entries.
        per_second: Most entries of one reason within a second.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        logger: logging.Logger,
        *,
        per_second: int = 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._per_second = per_second
        self._clock = clock
        self._second: dict[str, int] = {}
        self._written: dict[str, int] = {}
        self._left_out: dict[str, int] = {}

    def refused(self, *, status: str, reason: str, seconds: float) -> None:
        """A call ended for a reason that lies with its caller or the load."""
        if not self._logger.isEnabledFor(logging.INFO):
            return
        now = int(self._clock())
        if self._second.get(reason) != now:
            self._second[reason], self._written[reason] = now, 0
        if self._written[reason] >= self._per_second:
            self._left_out[reason] = self._left_out.get(reason, 0) + 1
            return
        self._written[reason] += 1
        extra = {"status": status, "reason": reason, "seconds": round(seconds, 6)}
        if left_out := self._left_out.pop(reason, 0):
            extra["left_out"] = left_out
        self._logger.info("call refused", extra=extra)

    def broke(self, error: BaseException, *, status: str, incident_id: str, seconds: float) -> None:
        """A call ended by a fault of the server."""
        self._logger.error(
            "fault of the server",
            exc_info=error,
            extra={"status": status, "incident": incident_id, "seconds": round(seconds, 6)},
        )


class _ToStandardError(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at that moment."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        raise AttributeError("entries go to standard error")


def _is_news(record: logging.LogRecord) -> bool:
    """Leaves out gRPC's error, with a trace, for each caller that is gone while its answer is sent.

    The border writes such a call down as refused, reason CANCELLED, and bounds how often.
    """
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ != _HUNG_UP


def _add_call(record: logging.LogRecord) -> bool:
    request_id, method = of_call()
    if request_id:
        record.request_id, record.method = request_id, method
    return True


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Text(logging.Formatter):
    """``time LEVEL [pid] logger: message field=value``; only a trace takes more lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        fields = "".join(
            f" {name}={value}"
            for name in _FIELDS
            if (value := getattr(record, name, None)) is not None
        )
        # One entry is one line, so that no message can pass for an entry of its own.
        message = record.message.replace("\r", "\\r").replace("\n", "\\n")
        return (
            f"{_time(record)} {record.levelname} [{record.process}] "
            f"{record.name}: {message}{fields}"
        )


def _as_json() -> logging.Formatter:
    class Json(JsonFormatter):
        def formatTime(  # noqa: N802 - logging's name
            self, record: logging.LogRecord, datefmt: str | None = None
        ) -> str:
            return _time(record)

    return Json(
        ["asctime", "levelname", "name", "process", "message"],
        rename_fields={
            "asctime": "time",
            "levelname": "level",
            "name": "logger",
            "process": "pid",
            "exc_info": "exception",
        },
    )
