"""A process to be measured: a bare echo, a bare model, or the server with some model.

    python -m tests.benchmarks.server.process '{"what": "null", "cpus": [0]}'

It prints one line when it is ready, ``ready GRPC_ADDRESS METRICS_URL`` or ``ready - -``, and ends
with its standard input. A bare model answers a line ``BATCH SECONDS`` with images per second.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
ECHO = "/benchmark.Echo/Echo"
BATCH_S = 0.05
BATCH_SIZE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a process is.

    Attributes:
        what: ``echo`` bare grpc.aio; ``null`` the server with a model that does nothing;
            ``slow`` with one that takes 50 ms for a batch of at most 8; ``embedded`` with the
            embedded model; ``bare`` that model without a server.
        cpus: Cores that it and its children may use; none: all.
        threads: Of one forward pass.
        settings: Of the server, beyond free ports.
    """

    what: str
    cpus: tuple[int, ...] = ()
    threads: int = 1
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Started:
    """A process that is ready."""

    address: str
    metrics: str
    process: subprocess.Popen[str]

    def ask(self, line: str) -> str:
        """The process's answer to a line."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@contextlib.contextmanager
def started(kind: Kind) -> Iterator[Started]:
    """Starts a process, waits until it is ready, ends it."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(kind.threads),
        "PYTHONPATH": str(ROOT),
        "GRPC_VERBOSITY": "NONE",
        "OMP_WAIT_POLICY": "PASSIVE",  # as ibinn-serve has it
    }
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, json.dumps(dataclasses.asdict(kind))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    try:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        if len(words) != 3 or words[0] != "ready":
            raise RuntimeError(f"the {kind.what} process did not start: {' '.join(words)!r}")
        yield Started(words[1], words[2], process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# ------------------------------------------------------------------------- inside the process


class NullPreparer:
    """Takes every image for prepared; all are equal."""

    def __call__(self, image: bytes) -> Any:
        return _PREPARED

    def from_pixels(self, pixels: Any) -> Any:
        return _PREPARED


class NoDecoders:
    """Decoding taken out of what is measured."""

    slots = 2

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def prepare(self, preparer: Any, images: Sequence[bytes]) -> list[Any]:
        return [_PREPARED] * len(images)


_PREPARED: Any = object()


def _null_classifier(seconds: float) -> Any:
    from tests.service.stub import StubClassifier, make_prediction

    answer = make_prediction(
        tests=(), conformal=None, conformal_sets=(), combined=None, observed_accuracy=None
    )

    class Null(StubClassifier):
        @property
        def preparer(self) -> Any:
            return _PREPARER

        def assess(self, prepared: Sequence[Any]) -> Any:
            if seconds:
                time.sleep(seconds)
            return [answer] * len(prepared)

    return Null()


_PREPARER = NullPreparer()


async def _serve_echo(ended: asyncio.Event) -> None:
    import grpc
    import grpc.aio

    async def echo(request: bytes, context: Any) -> bytes:
        return request

    service, _, method = ECHO.removeprefix("/").partition("/")
    handler = grpc.unary_unary_rpc_method_handler(echo)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready 127.0.0.1:{port} -", flush=True)
    await ended.wait()
    await server.stop(None)


async def _serve(kind: Kind, ended: asyncio.Event) -> None:
    from service import tuning
    from service.models import loading
    from service.server import Server
    from service.settings import Settings

    settings = Settings(port=0, metrics_port=0, **kind.settings)
    if kind.what == "embedded":
        import torch

        torch.set_num_threads(kind.threads)
        server = Server(settings)
        bundle = server.manager.initial_folder()
        load = lambda: loading.load(settings, bundle)  # noqa: E731
    else:
        server = Server(settings, decoders=NoDecoders())
        load = lambda: _null_classifier(BATCH_S if kind.what == "slow" else 0.0)  # noqa: E731
    addresses = await server.start()
    await server.load(load)
    tuning.after_loading()
    print(f"ready {addresses.grpc} {addresses.metrics or '-'}", flush=True)
    await ended.wait()
    await server.stop()


async def _until_input_ends(ended: asyncio.Event) -> None:
    await asyncio.to_thread(sys.stdin.read)
    ended.set()


async def _main(kind: Kind) -> None:
    ended = asyncio.Event()
    watching = asyncio.create_task(_until_input_ends(ended))
    await (_serve_echo(ended) if kind.what == "echo" else _serve(kind, ended))
    await watching


def _bare(kind: Kind) -> None:
    import torch

    from ibinn import bundle
    from tests.benchmarks.server.images import encoded_images

    torch.set_num_threads(kind.threads)
    classifier = bundle.load(bundle.embedded_path())
    images = encoded_images()
    print("ready - -", flush=True)
    for line in sys.stdin:
        size, seconds = line.split()
        count, start = 0, time.perf_counter()
        while (taken := time.perf_counter() - start) < float(seconds):
            batch = [images[(count + i) % len(images)] for i in range(int(size))]
            prepare = classifier.preparer
            classifier.assess([prepare(image) for image in batch])
            count += len(batch)
        print(count / taken, flush=True)


if __name__ == "__main__":
    found = json.loads(sys.argv[1])
    asked = Kind(**(found | {"cpus": tuple(found["cpus"])}))
    if asked.cpus:
        os.sched_setaffinity(0, asked.cpus)
    threading.current_thread().name = asked.what
    if asked.what == "bare":
        _bare(asked)
    else:
        asyncio.run(_main(asked))
