"""What the server adds to a bare gRPC call, and what it leaves of the bare model's throughput."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from dataclasses import dataclass

import grpc
import grpc.aio

from ibinn import load_test
from ibinn.v1 import classification_service_pb2 as service
from tests.benchmarks.server.images import encoded_images
from tests.benchmarks.server.pairs import Ratio, quantile
from tests.benchmarks.server.process import ECHO, Kind, Started, started

IMAGE_BYTES = 15_000
P50_BUDGET = 1.5
P99_BUDGET = 2.0
THROUGHPUT_BUDGET = 0.9
CLASSIFY = "/ibinn.v1.ClassificationService/Classify"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedCost:
    """Classify with a null model and no decoding against a bare echo of the same bytes.

    Attributes:
        client: ``asyncio``, as the echo is, or ``blocking``.
        echo_p50_us: Median over blocks of the block's median.
        classify_p50_us: Likewise.
        p50: Ratio of medians.
        p99: Ratio of 99 % quantiles.
        calls: Calls of each kind in a block.
    """

    client: str
    echo_p50_us: float
    classify_p50_us: float
    p50: Ratio
    p99: Ratio
    calls: int


def added_cost(*, pairs: int, client: str, calls: int = 400) -> AddedCost:
    """Calls one after the other over one connection, blocks of both alternated.

    Args:
        pairs: Number of blocks of each kind.
        client: ``asyncio`` or ``blocking``.
        calls: Calls in a block.
    """
    with started(Kind(what="echo")) as echo, started(Kind(what="null")) as null:
        both = ((echo.address, ECHO), (null.address, CLASSIFY))
        if client == "asyncio":
            blocks = asyncio.run(_asyncio_blocks(both, pairs=pairs, calls=calls))
        else:
            blocks = _blocking_blocks(both, pairs=pairs, calls=calls)
    p50, p99 = (
        [[quantile(times, share) for times in block] for block in blocks] for share in (0.5, 0.99)
    )
    return AddedCost(
        client=client,
        echo_p50_us=1e6 * statistics.median(block[0] for block in p50),
        classify_p50_us=1e6 * statistics.median(block[1] for block in p50),
        p50=Ratio.of([block[1] for block in p50], [block[0] for block in p50]),
        p99=Ratio.of([block[1] for block in p99], [block[0] for block in p99]),
        calls=calls,
    )


Both = tuple[tuple[str, str], tuple[str, str]]
"""Address and method of the two that are compared."""
Blocks = list[list[list[float]]]
_REQUEST = service.ClassifyRequest(image=bytes(IMAGE_BYTES)).SerializeToString()


def _blocking_blocks(both: Both, *, pairs: int, calls: int) -> Blocks:
    with contextlib.ExitStack() as stack:
        methods = [
            stack.enter_context(grpc.insecure_channel(address)).unary_unary(method)
            for address, method in both
        ]
        blocks = []
        for _ in range(pairs + 1):
            block = []
            for method in methods:
                times = []
                for _ in range(calls):
                    start = time.perf_counter()
                    method(_REQUEST)
                    times.append(time.perf_counter() - start)
                block.append(times)
            blocks.append(block)
        return blocks[1:]  # the first pair warms up


async def _asyncio_blocks(both: Both, *, pairs: int, calls: int) -> Blocks:
    async with contextlib.AsyncExitStack() as stack:
        methods = []
        for address, method in both:
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            methods.append(channel.unary_unary(method))
        blocks = []
        for _ in range(pairs + 1):
            block = []
            for method in methods:
                times = []
                for _ in range(calls):
                    start = time.perf_counter()
                    await method(_REQUEST)
                    times.append(time.perf_counter() - start)
                block.append(times)
            blocks.append(block)
        return blocks[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturation:
    """The server with the embedded model against the same model without a server.

    Attributes:
        method: How images were sent.
        decode_in: Where the server decodes.
        bare_per_s: Images per second of the bare model at its best batch size.
        served_per_s: Of the server.
        share: served / bare.
        batch: The best batch size.
        own_core: Whether server and bare model each had one core to themselves, the load
            generator the other one; else all shared both.
    """

    method: str
    decode_in: str
    bare_per_s: float
    served_per_s: float
    share: Ratio
    batch: int
    own_core: bool


@dataclass(frozen=True, slots=True)
class _Way:
    method: str
    decode_in: str


WAYS = (
    _Way("ClassifyStream, 16 images a message", "process"),
    _Way("ClassifyStream, 16 images a message", "thread"),
    _Way("Classify, 128 calls at a time", "process"),
    _Way("Classify, 128 calls at a time", "thread"),
)
BATCHES = (8, 16, 32, 64)


def saturation(*, pairs: int, seconds: float, own_core: bool) -> list[Saturation]:
    """Throughput with as many images as the server takes, alternated with the bare model."""
    cpus, threads = ((0,), 1) if own_core else ((), 2)
    with (
        started(Kind(what="bare", cpus=cpus, threads=threads)) as bare,
        started(_server(cpus, threads, decode_in="process")) as process,
        started(_server(cpus, threads, decode_in="thread")) as thread,
    ):
        batch = max(BATCHES, key=lambda size: _bare_per_s(bare, size, seconds))
        servers = {"process": process, "thread": thread}
        found: dict[_Way, list[float]] = {way: [] for way in WAYS}
        alone = []
        for _ in range(pairs):
            alone.append(_bare_per_s(bare, batch, seconds))
            for way in WAYS:
                found[way].append(_served_per_s(servers[way.decode_in].address, way, seconds))
    return [
        Saturation(
            method=way.method,
            decode_in=way.decode_in,
            bare_per_s=statistics.median(alone),
            served_per_s=statistics.median(served),
            share=Ratio.of(served, alone),
            batch=batch,
            own_core=own_core,
        )
        for way, served in found.items()
    ]


def _server(cpus: tuple[int, ...], threads: int, *, decode_in: str) -> Kind:
    settings = {
        "stream_window": 256,
        "max_batch_size": max(BATCHES),
        "decode_in": decode_in,
        "decode_threads": len(cpus) or 2,
    }
    return Kind(what="embedded", cpus=cpus, threads=threads, settings=settings)


def _bare_per_s(bare: Started, size: int, seconds: float) -> float:
    return float(bare.ask(f"{size} {seconds}"))


def _served_per_s(address: str, way: _Way, seconds: float) -> float:
    images = encoded_images()
    if "Stream" in way.method:
        # As many images as 16 messages need, so that messages differ.
        work: load_test.Work = load_test.stream_work(
            images * 8, images_per_message=16, timeout_s=30.0
        )
        load = load_test.Concurrency(8)
    else:
        work = load_test.classify_work(images)
        load = load_test.Concurrency(128)
    report = load_test.run(
        load_test.Plan(
            target=address,
            work=work,
            load=load,
            duration_s=seconds,
            warm_up_s=0.3,
            deadline_s=30.0,
            connections=1,
        )
    )
    if report.failed or report.rejected or report.expired:
        raise RuntimeError(f"calls failed at saturation: {report.codes}")
    return report.goodput
