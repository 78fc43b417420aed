"""Starts retraining when Alertmanager says that an alert with ``action="retrain"`` fires.

    python -m deployment.monitoring.hook --token-file TOKEN --port 8080 -- COMMAND ARGUMENT...

Alertmanager's webhook (`alertmanager.yml`) posts to ``/alerts`` with the token as bearer. COMMAND
is whatever retrains where this runs (README.md has examples). It is run without a shell; nothing of
the alert gets into its arguments, IBINN_RETRAIN_REASON says which alerts fire. One runs at a time,
and after one that succeeded none for a while: alerts repeat. What it makes is a candidate that
waits for approval, like that of every other retraining.
"""

from __future__ import annotations

import argparse
import hmac
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_log = logging.getLogger("ibinn.hook")

_MOST_BYTES = 1 << 20
_READ_WITHIN_S = 10.0


class Retraining:
    """Runs a command: one at a time, and not again for a while after it succeeded.

    Args:
        command: Program and arguments.
        pause_s: Seconds from a start that succeeded to the next one at the earliest.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        pause_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = tuple(command)
        self._pause_s = pause_s
        self._clock = clock
        self._lock = threading.Lock()
        self._running: threading.Thread | None = None
        self._succeeded: float | None = None

    def start(self, reason: str) -> str:
        """Starts the command unless it runs or ran lately; says what was done.

        Args:
            reason: Which alerts fire; the command's IBINN_RETRAIN_REASON.
        """
        with self._lock:
            if self._running is not None and self._running.is_alive():
                return "running already"
            now = self._clock()
            if self._succeeded is not None and now - self._succeeded < self._pause_s:
                return "not again so soon"
            self._running = threading.Thread(target=self._run, args=(reason, now), daemon=True)
            self._running.start()
            return "started"

    def wait(self) -> None:
        """Returns when nothing runs."""
        if self._running is not None:
            self._running.join()

    def _run(self, reason: str, began: float) -> None:
        _log.info("retraining starts: %s", reason)
        try:
            status = subprocess.run(
                self._command, env={**os.environ, "IBINN_RETRAIN_REASON": reason}, check=False
            ).returncode
        except OSError as error:
            _log.error("retraining cannot start (%s): %s", error.strerror, self._command[0])
            return
        if status == 0:
            self._succeeded = began
        _log.log(logging.INFO if status == 0 else logging.ERROR, "retraining ended with %d", status)


def reason_of(message: Any) -> str | None:
    """The firing alerts of Alertmanager's message that ask for retraining; None: there is none.

    Raises:
        ValueError: It is no message of Alertmanager's webhook.
    """
    try:
        asking = sorted(
            f"{alert['labels']['alertname']} model={alert['labels'].get('model', '')}"
            for alert in message["alerts"]
            if alert["status"] == "firing" and alert["labels"].get("action") == "retrain"
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            "not a message of Alertmanager's webhook; expected an object with `alerts`, each with "
            "`status` and `labels`"
        ) from error
    return "; ".join(asking) or None


def serve(retraining: Retraining, *, token: str, host: str, port: int) -> ThreadingHTTPServer:
    """A listening server; run its `serve_forever`.

    Args:
        retraining: What is started.
        token: What Alertmanager shows.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = _READ_WITHIN_S

        def do_GET(self) -> None:
            found = self.path == "/healthz"
            self._say(HTTPStatus.OK if found else HTTPStatus.NOT_FOUND, "ok" if found else "")

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or int(length) > _MOST_BYTES:
                self._say(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send at most {_MOST_BYTES} bytes at once"
                )
                return
            # Read also where it is refused: an answer beside unread bytes may get lost.
            body = self.rfile.read(int(length))
            shown = self.headers.get("Authorization", "").encode()
            if not hmac.compare_digest(shown, f"Bearer {token}".encode()):
                self._say(HTTPStatus.UNAUTHORIZED, "show the token of --token-file as bearer")
                return
            if self.path != "/alerts":
                self._say(HTTPStatus.NOT_FOUND, "post alerts to /alerts")
                return
            try:
                reason = reason_of(json.loads(body))
            except ValueError as error:
                self._say(HTTPStatus.BAD_REQUEST, str(error))
                return
            done = "nothing to do" if reason is None else retraining.start(reason)
            self._say(HTTPStatus.ACCEPTED if done == "started" else HTTPStatus.OK, done)

        def _say(self, status: HTTPStatus, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            # Probes ask for their health every few seconds.
            probed = getattr(self, "path", "") == "/healthz"
            _log.log(logging.DEBUG if probed else logging.INFO, format, *args)

    return ThreadingHTTPServer((host, port), Handler)


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description="Start retraining when an alert asks for it.")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on")
    parser.add_argument(
        "--token-file", type=Path, required=True, help="file with the token that callers show"
    )
    parser.add_argument(
        "--pause-h", type=float, default=24.0, help="hours from one that succeeded to the next"
    )
    parser.add_argument("command", nargs="+", help="what retrains, after --")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        token = asked.token_file.read_text("utf-8").strip()
    except OSError as error:
        parser.error(f"--token-file {asked.token_file} cannot be read: {error.strerror}")
    if len(token) < 16:
        parser.error(
            f"--token-file {asked.token_file} holds {len(token)} characters; expected 16 or more, "
            "such as `openssl rand -hex 32` makes"
        )
    retraining = Retraining(asked.command, pause_s=3600 * asked.pause_h)
    server = serve(retraining, token=token, host=asked.host, port=asked.port)
    # A container's first process is not ended by a signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _log.info("listening on %s:%d", asked.host, server.server_port)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
