"""One of several server processes on one port; `service.workers` starts it.

standard input      a line of JSON: settings, place, folder of the metrics, where to report;
                    then nothing until it is closed, which is when the supervisor is gone
the reporting end   a line of JSON: what is ready, or why it cannot be
standard error      log entries
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from ibinn.errors import IbinnError
from ibinn.types import ModelInfo
from service import logs
from service.models.served import Classifier
from service.monitoring import shared
from service.ready import Ready
from service.settings import Settings

Load = Callable[[Settings, Path], Classifier]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a worker is told.

    Attributes:
        settings: As JSON knows them.
        place: Number of the worker; it is reused by the one that takes a dead worker's place.
        metrics: Folder where the workers count; empty where metrics are off.
        report: Open file descriptor to report to.
    """

    settings: dict[str, Any]
    place: int
    metrics: str
    report: int

    def to_line(self) -> bytes:
        """The line on standard input."""
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"


def main(load: Load | None = None) -> None:
    """Serves until the supervisor says or ends.

    Args:
        load: Loads a bundle; None: as `ibinn-serve` does.
    """
    orders = Orders(**json.loads(sys.stdin.buffer.readline()))
    os.set_inheritable(orders.report, False)  # else a decoder would keep it open after our end
    settings = Settings(**orders.settings)
    logs.configure(level=settings.log_level, form=settings.log_format)
    if orders.metrics:
        shared.join(Path(orders.metrics), place=orders.place)
    threading.Thread(target=_end_with_supervisor, name="ibinn-lifeline", daemon=True).start()
    with os.fdopen(orders.report, "w", encoding="utf-8") as report:
        try:
            _serve(settings, orders.place, load, report)
        except IbinnError as error:
            _tell(report, failed=str(error))
            sys.exit(2)


def _serve(settings: Settings, place: int, load: Load | None, report: IO[str]) -> None:
    from service.cli import load_bundle
    from service.server import Addresses, serve

    def on_ready(addresses: Addresses, info: ModelInfo) -> None:
        ready = Ready.of(info, grpc=addresses.grpc, metrics="")
        _tell(report, ready=dataclasses.asdict(ready))

    chosen = functools.partial(load or load_bundle, settings)
    asyncio.run(serve(settings, chosen, on_ready=on_ready, reuse_port=True, place=place))


def _tell(report: IO[str], **message: Any) -> None:
    report.write(json.dumps(message) + "\n")
    report.flush()


def _end_with_supervisor() -> None:
    # A read on a stream that another thread may close at exit is not safe; on the descriptor it is.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
