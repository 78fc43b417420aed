"""Several server processes on one port, for hosts where one process cannot use every core.

The supervisor serves no calls itself: it reserves the port, starts the workers, puts a new one in
the place of one that died, serves the sum of their metrics, and passes on the word to stop. The
kernel deals connections out to the workers (SO_REUSEPORT). A worker listens once its model is
loaded, so that one that takes another's place is asked nothing before it can answer. Workers end
with their supervisor, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibinn.errors import ConfigError
from service.monitoring import MetricsEndpoint
from service.monitoring.shared import Sum
from service.ready import Ready
from service.records.checks import NO_RECORDS
from service.settings import Settings
from service.worker import Orders

_log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "service.worker")

_MOST_FAILED_STARTS = 3
_STEADY_S = 60.0
"""A worker that served so long has started well; its death begins a new count."""
_BACKOFF_S = (0.1, 30.0)
"""Rest before the first and before every later replacement of a worker that keeps dying."""
_STOP_MARGIN_S = 10.0
"""Time for a worker to end after its drain; then it is killed."""


async def serve(
    settings: Settings, *, on_ready: Callable[[Ready], None], command: Sequence[str] = COMMAND
) -> None:
    """Serves with `settings.workers` processes until SIGTERM or SIGINT, then stops in order.

    Args:
        settings: What can be set.
        on_ready: Called once, when every worker serves.
        command: Starts a worker, see `service.worker`.

    Raises:
        ConfigError: An address is not available, or the workers cannot start.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ibinn-workers-")))
        port = stack.enter_context(_reserved(settings.host, settings.port))
        total = Sum(folder)
        url = ""
        if settings.metrics:
            endpoint = MetricsEndpoint.start(total, host=settings.host, port=settings.metrics_port)
            stack.callback(endpoint.stop)
            url = endpoint.url
        supervisor = _Supervisor(
            _of_worker(settings, port=port, state_dir=folder / "state"),
            count=settings.workers,
            command=command,
            folder=folder,
            total=total,
            on_ready=lambda ready: on_ready(dataclasses.replace(ready, metrics=url)),
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.stop)
        await supervisor.run()


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """How a worker's life ended.

    Attributes:
        served_s: How long it was ready; 0 where it never was.
        how: In words.
        told: What it said was wrong; empty if nothing.
    """

    served_s: float
    how: str
    told: str


class _Supervisor:
    """Keeps the workers alive until it is told to stop.

    Args:
        settings: Of each worker.
        count: Number of workers.
        command: Starts one.
        folder: Where they count.
        total: Adds them up.
        on_ready: Called once, when all are ready.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        count: int,
        command: Sequence[str],
        folder: Path,
        total: Sum,
        on_ready: Callable[[Ready], None],
    ) -> None:
        self._settings = settings
        self._count = count
        self._command = command
        self._folder = folder
        self._total = total
        self._on_ready = on_ready
        self._stopping = asyncio.Event()
        self._ready: set[int] = set()
        self._announced = False
        self._waiters = ThreadPoolExecutor(count, thread_name_prefix="ibinn-worker")

    def stop(self) -> None:
        """Ends the workers in order, and `run` with them."""
        self._stopping.set()

    async def run(self) -> None:
        """Keeps the workers until `stop`.

        Raises:
            ConfigError: They cannot start.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for place in range(self._count):
                    group.create_task(self._keep(place), name=f"ibinn-worker-{place}")
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        finally:
            self._waiters.shutdown(wait=False)

    async def _keep(self, place: int) -> None:
        """Puts workers at a place, one after the other."""
        failures = 0
        while not self._stopping.is_set():
            end = await self._live(place)
            if self._stopping.is_set():
                return
            failures = 0 if end.served_s >= _STEADY_S else failures + 1
            self._refuse_hopeless(end, failures)
            first_s, longest_s = _BACKOFF_S
            rest_s = min(first_s * 2**failures, longest_s)
            _log.warning(
                "worker %d %s after serving for %.0f s; another takes its place in %.1f s",
                place,
                end.how,
                end.served_s,
                rest_s,
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), rest_s)
            self._total.restarted()

    def _refuse_hopeless(self, end: _End, failures: int) -> None:
        """Gives up where no worker could ever start, never while another one serves."""
        if not self._announced and end.told:
            raise ConfigError(end.told)
        if failures >= _MOST_FAILED_STARTS and not (self._announced and self._ready):
            raise ConfigError(
                f"a worker {end.how} {failures} times during or shortly after its start; its log "
                f"entries say why{f': {end.told}' if end.told else ''}"
            )

    async def _live(self, place: int) -> _End:
        """One worker from its start to its end."""
        receiving, reporting = os.pipe()
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=2,  # standard output is for the one line of the supervisor
                pass_fds=(reporting,),
                env={**os.environ, **_threads(self._settings)},
                start_new_session=True,  # Ctrl-C is for the supervisor, which passes it on
            )
        finally:
            os.close(reporting)
        ready_since: list[float] = []
        told: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            if "failed" in message:
                told.append(str(message["failed"]))
            elif "ready" in message:
                ready_since.append(time.monotonic())
                self._now_ready(place, Ready(**message["ready"]))

        self._total.started(place, process.pid)
        ended = asyncio.get_running_loop().run_in_executor(self._waiters, process.wait)
        try:
            self._instruct(process, place, reporting)
            stop = asyncio.create_task(self._stopping.wait())
            listening = asyncio.create_task(_listen(receiving, hear))
            await asyncio.wait((ended, stop), return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if not ended.done():
                process.terminate()
                patience_s = self._settings.drain_timeout_s + _STOP_MARGIN_S
                await asyncio.wait((ended,), timeout=patience_s)
        finally:
            if process.poll() is None:
                process.kill()
            await ended
            if process.stdin is not None:
                process.stdin.close()
            self._ready.discard(place)
            self._total.ended(place)
        await asyncio.wait((listening,), timeout=_STOP_MARGIN_S)
        return _End(
            served_s=time.monotonic() - ready_since[0] if ready_since else 0.0,
            how=_in_words(process.returncode),
            told=told[0] if told else "",
        )

    def _instruct(self, process: subprocess.Popen[bytes], place: int, reporting: int) -> None:
        orders = Orders(
            settings=self._settings.model_dump(mode="json"),
            place=place,
            metrics=str(self._folder) if self._settings.metrics else "",
            report=reporting,
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once, which is seen elsewhere
            process.stdin.write(orders.to_line())
            process.stdin.flush()  # and it stays open: its end tells the worker of ours

    def _now_ready(self, place: int, ready: Ready) -> None:
        self._ready.add(place)
        self._total.serves(place)
        if not self._announced and len(self._ready) == self._count:
            self._announced = True
            self._on_ready(ready)


async def _listen(receiving: int, hear: Callable[[dict[str, Any]], None]) -> None:
    """Hears every message of a worker, until none can come any more."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(receiving, "rb")
    )
    try:
        async for line in reader:
            hear(json.loads(line))
    finally:
        transport.close()


@contextlib.contextmanager
def _reserved(host: str, port: int) -> Iterator[int]:
    """Keeps a port for the workers and from everyone else; 0 takes a free one."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    try:
        if port:  # sharing must be asked for on both sides: so a port in use is found
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        reserved = socket.socket(family, kind, protocol)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)  # and never listens: no connection comes here
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --host "
            "or --port (0 takes a free one)"
        ) from error
    with reserved:
        yield int(reserved.getsockname()[1])


def _of_worker(settings: Settings, *, port: int, state_dir: Path) -> Settings:
    """The settings of each worker: cores shared out, one state for all."""
    cores = len(os.sched_getaffinity(0))
    return settings.model_copy(
        update={
            "workers": 1,
            "port": port,
            "threads": settings.threads or max(1, cores // settings.workers),
            "state_dir": settings.state_dir or state_dir,
            # What is told to be durable must not lie in a folder that goes with the server.
            "records": settings.records or (None if settings.state_dir else NO_RECORDS),
        }
    )


def _threads(settings: Settings) -> dict[str, str]:
    """What keeps numeric libraries to a worker's share of the cores."""
    return {"OMP_NUM_THREADS": str(settings.threads), "MKL_NUM_THREADS": str(settings.threads)}


def _in_words(returncode: int) -> str:
    if returncode < 0:
        return f"was killed by {signal.Signals(-returncode).name}"
    return f"ended with status {returncode}"
