"""A server on real photographs: images per second, latency, and the share that decoding takes."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from ibinn import load_test
from ibinn.client import Client
from ibinn.images import ImagePreparer
from ibinn.types import ServerTiming
from tests.benchmarks.imagenet import material
from tests.benchmarks.imagenet.blocks import Spread
from tests.benchmarks.imagenet.figures import Figure
from tests.faults.server import real_server

IN_FLIGHT = 16
PATIENCE_S = 60.0


def measure(
    folder: Path | None, name: str, preparer: ImagePreparer, *, seconds: float
) -> list[Figure]:
    """Figures ``served.NAME.*``.

    Args:
        folder: The bundle; None: the embedded one.
        name: Of the model in the figures.
        preparer: Of this model: what decoding and preprocessing cost without a server.
        seconds: For one call at a time, and again for many.
    """
    images = material.photographs()
    sizes = f"{len(images)} JPEG photographs of {min(map(len, images)) / 1e3:.0f} to "
    sizes += f"{max(map(len, images)) / 1e3:.0f} KB"
    settings = {} if folder is None else {"bundle": folder}
    with real_server(**settings) as server:
        latencies, timings = _one_by_one(server.target, seconds)
        report = load_test.run(
            load_test.Plan(
                target=server.target,
                work=load_test.classify_work(images),
                load=load_test.Concurrency(IN_FLIGHT),
                duration_s=seconds,
                warm_up_s=min(2.0, seconds / 4),
                deadline_s=PATIENCE_S,
            )
        )
    if report.good < report.sent:
        raise RuntimeError(f"{report.sent} calls, {report.good} answered: {report.codes}")
    alone = f"one call at a time, {len(latencies)} calls, {sizes}"
    return [
        Figure(
            name=f"served.{name}.images_per_s",
            value=report.goodput,
            unit="images/s",
            how=f"Classify over gRPC, {IN_FLIGHT} calls at a time for {seconds:g} s, {sizes}; "
            "client and server on the same cores",
        ),
        Figure.of(
            f"served.{name}.p50_ms",
            Spread.of(latencies).scaled(1e3),
            "ms",
            how=f"latency at the client, {alone}",
        ),
        _share(name, "prepare", [one.prepare_s for one in timings], timings, alone),
        _share(name, "compute", [one.compute_s for one in timings], timings, alone),
        Figure.of(
            f"served.{name}.prepare_ms",
            Spread.of([one.prepare_s for one in timings]).scaled(1e3),
            "ms",
            how=f"decoding and preprocessing as the server's answers state it, {alone}",
        ),
        Figure.of(
            f"served.{name}.prepare_alone_ms",
            _prepared_here(preparer, images, seconds=min(seconds, 3.0)).scaled(1e3),
            "ms",
            how=f"decoding and preprocessing in this process, without a server; {sizes}",
        ),
    ]


def _one_by_one(target: str, seconds: float) -> tuple[list[float], list[ServerTiming]]:
    """Latencies at the client, and what the server says of each answer."""
    images = material.photographs()
    latencies: list[float] = []
    timings: list[ServerTiming] = []
    with Client(target, timeout_s=PATIENCE_S) as client:
        for image in images:
            client.classify(image)
        begin = time.perf_counter()
        # Whole rounds, so that every photograph counts alike.
        while not latencies or time.perf_counter() - begin < seconds:
            for image in images:
                before = time.perf_counter()
                answer = client.classify(image)
                latencies.append(time.perf_counter() - before)
                assert answer.receipt is not None
                assert answer.receipt.timing is not None
                timings.append(answer.receipt.timing)
    return latencies, timings


def _share(
    name: str, what: str, parts: list[float], timings: list[ServerTiming], alone: str
) -> Figure:
    shares = [part / one.total_s for part, one in zip(parts, timings, strict=True)]
    said = {"prepare": "decoding and preprocessing", "compute": "forward pass and scoring"}[what]
    return Figure.of(
        f"served.{name}.{what}_share",
        Spread.of(shares),
        how=f"{said} as a share of the server's time for an answer, {alone}",
    )


def _prepared_here(preparer: ImagePreparer, images: tuple[bytes, ...], *, seconds: float) -> Spread:
    for image in images:
        preparer(image)
    rounds: list[float] = []
    begin = time.perf_counter()
    while not rounds or time.perf_counter() - begin < seconds:
        before = time.perf_counter()
        for image in images:
            preparer(image)
        rounds.append((time.perf_counter() - before) / len(images))
        if len(rounds) >= 100:
            break
    assert statistics.median(rounds) > 0
    return Spread.of(rounds)
