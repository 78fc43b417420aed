"""A server process whose network only takes time; run as a module by `tests.faults.server`.

    python -m tests.faults.server_process '{"settings": {"port": 0}, "stub": {"batch_s": 0.05}}'

Everything else is the server that people run: sockets, border, scheduler, decoders, metrics, and
what a signal does. When it ends it prints how many calls its handlers ended with which status.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ibinn.decoding import Limits
from ibinn.images import ImagePreparer, PreparedImage, PreprocessingConfig
from ibinn.types import ModelInfo, Prediction
from service import logs
from service import worker as worker_program
from service.monitoring import Monitor
from service.ready import Ready
from service.server import Addresses, serve
from service.settings import Settings
from tests.service.stub import INFO, StubClassifier

_SIDE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Stub:
    """What stands in for the network.

    Attributes:
        batch_s: Seconds that each batch takes, whatever its size.
        hangs_on: Red value of a plain image on which it never returns; None: there is none.
    """

    batch_s: float = 0.0
    hangs_on: int | None = None


class TimedClassifier(StubClassifier):
    """Sleeps and answers; its images are decoded and prepared as a real model's are."""

    def __init__(self, stub: Stub) -> None:
        super().__init__(info=INFO)
        self._stub = stub
        self._preparer = ImagePreparer(
            config=PreprocessingConfig(side=_SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
            limits=Limits(
                max_bytes=INFO.max_bytes, max_pixels=INFO.max_pixels, max_side=INFO.max_side
            ),
        )

    @property
    def preparer(self) -> Any:
        return self._preparer

    def assess(self, prepared: Sequence[Any]) -> list[Prediction]:
        self._take_time(prepared)
        return super().assess(prepared)

    def explain_prepared(
        self, prepared: Sequence[Any], classes: Sequence[str] | None = None
    ) -> list[Any]:
        self._take_time(prepared)
        return super().explain_prepared(prepared, classes)

    def _take_time(self, prepared: Sequence[PreparedImage]) -> None:
        if any(image.pixels.flat[0] == self._stub.hangs_on for image in prepared):
            threading.Event().wait()
        time.sleep(self._stub.batch_s)

    def _begin(self, what: str, size: int) -> None:
        """Keeps no list: it would grow for as long as the process lives."""

    def _answer(self, image: Any) -> Prediction:
        seen = dataclasses.replace(self.prediction.input, sha256_bytes=image.input.sha256_bytes)
        return dataclasses.replace(self.prediction, input=seen)


def main() -> None:
    orders = json.loads(sys.argv[1])
    stub = Stub(**orders["stub"])
    if orders.get("worker"):
        worker_program.main(lambda settings, bundle: TimedClassifier(stub))
        return
    settings = Settings(**orders["settings"])
    logs.configure(level=settings.log_level, form=settings.log_format)
    if settings.workers > 1:
        from service import workers

        again = json.dumps({"stub": orders["stub"], "worker": True})
        command = (sys.executable, "-m", "tests.faults.server_process", again)
        asyncio.run(workers.serve(settings, on_ready=_announce, command=command))
        return
    ended = _counted()
    asyncio.run(serve(settings, lambda bundle: TimedClassifier(stub), on_ready=_ready))
    print(json.dumps({"ended": ended}), flush=True)


def _ready(addresses: Addresses, info: ModelInfo) -> None:
    _announce(Ready.of(info, grpc=addresses.grpc, metrics=addresses.metrics))


def _announce(ready: Ready) -> None:
    print(ready.line(), flush=True)


def _counted() -> Counter[str]:
    """How many calls ended how, for whom the metrics endpoint is gone too early."""
    ended: Counter[str] = Counter()
    count = Monitor.request

    @functools.wraps(count)
    def request(self: Monitor, method: str, code: str, seconds: float) -> None:
        ended[f"{method} {code}"] += 1
        count(self, method, code, seconds)

    Monitor.request = request  # type: ignore[method-assign]
    return ended


if __name__ == "__main__":
    main()
