"""What the server adds, keeps and withstands: ratios of things measured in one run.

    python -m tests.benchmarks.bench_server --out server-benchmarks.json

Every figure is of real processes over real sockets on this machine. Where two things are compared
they alternate, and the median over the pairs counts, with its 95 % interval; how busy the machine
was then cancels.

1. Added cost: Classify with a null model and no decoding against a bare grpc.aio echo of the same
   15 KB, one call at a time; with a client on asyncio, as the echo is, and with a blocking one.
2. Throughput at saturation against the bare model at its best batch size, decoding included on
   both sides: server and bare model on one core each in turn, the load generator on the other.
3. Five times the capacity, open loop, on a stub of 50 ms per batch of at most 8, and on the
   embedded model.
4. Metrics on against off.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc

from tests.benchmarks.server import added_cost, metrics_cost
from tests.benchmarks.server.images import encoded_images
from tests.faults import overload
from tests.faults.server import real_server


def main(arguments: list[str] | None = None) -> int:
    """Run and write; returns 1 where a budget is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("server-benchmarks.json"))
    parser.add_argument("--quick", action="store_true", help="few pairs, seconds of overload")
    parser.add_argument(
        "--only", choices=("added", "saturation", "overload", "metrics"), action="append"
    )
    options = parser.parse_args(arguments)
    quick = options.quick
    start = time.monotonic()
    parts: dict[str, Callable[[], tuple[Any, list[str]]]] = {
        "added": lambda: _added(pairs=4 if quick else 30),
        "saturation": lambda: _saturation(pairs=2 if quick else 20),
        "overload": lambda: _overload(seconds=5.0 if quick else 60.0),
        "metrics": lambda: _metrics(pairs=3 if quick else 24),
    }
    found: dict[str, Any] = {}
    missed: list[str] = []
    for name, run in parts.items():
        if options.only and name not in options.only:
            continue
        print(f"{name} ...", flush=True)
        found[name], missing = run()
        missed += missing
        print(f"  {time.monotonic() - start:.0f} s so far", flush=True)
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "load_average": os.getloadavg()[0],
        "seconds": round(time.monotonic() - start),
        "quick": quick,
        "missed": missed,
        **found,
    }
    options.out.write_text(json.dumps(report, indent=1, default=asdict) + "\n", encoding="utf-8")
    for line in missed:
        print(f"MISSED  {line}")
    print(f"written to {options.out}")
    return 1 if missed and not quick else 0


def _added(*, pairs: int) -> tuple[Any, list[str]]:
    found = [
        added_cost.added_cost(pairs=pairs, client=client) for client in ("asyncio", "blocking")
    ]
    missed = []
    for one in found:
        print(
            f"  {one.client:9} client: echo {one.echo_p50_us:.0f} us, Classify "
            f"{one.classify_p50_us:.0f} us; p50 {_interval(one.p50)}, p99 {_interval(one.p99)}"
        )
        for name, ratio, budget in (
            ("p50", one.p50, added_cost.P50_BUDGET),
            ("p99", one.p99, added_cost.P99_BUDGET),
        ):
            if ratio.median > budget:
                missed.append(
                    f"added cost, {one.client} client: {name} is {ratio.median:.2f} times an "
                    f"echo's, the budget is {budget}"
                )
    return found, missed


def _saturation(*, pairs: int) -> tuple[Any, list[str]]:
    own = added_cost.saturation(pairs=pairs, seconds=1.5, own_core=True)
    shared = added_cost.saturation(pairs=max(2, pairs // 2), seconds=1.5, own_core=False)
    for one in (*own, *shared):
        place = "own core" if one.own_core else "both cores, shared with the generator"
        print(
            f"  {one.method}, decoding in a {one.decode_in}, {place}: {one.served_per_s:.0f}/s of "
            f"{one.bare_per_s:.0f}/s at batch {one.batch}, share {_interval(one.share)}"
        )
    best = max(own, key=lambda one: one.share.median)
    missed = []
    if best.share.median < added_cost.THROUGHPUT_BUDGET:
        missed.append(
            f"throughput at saturation: {best.share.median:.1%} of the bare model's at best "
            f"({best.method}, decoding in a {best.decode_in}), the budget is "
            f"{added_cost.THROUGHPUT_BUDGET:.0%}"
        )
    return {"own_core": own, "shared": shared}, missed


def _overload(*, seconds: float) -> tuple[Any, list[str]]:
    def told(line: str) -> None:
        print(f"  {line}", flush=True)

    stub = overload.measure(seconds, told=told)
    with real_server() as server:
        embedded = overload.measure(
            min(seconds, 20.0), server=server, images=encoded_images(), told=told
        )
    for name, one in (("stub", stub), ("embedded model", embedded)):
        print(
            f"  {name}: {one.offered:.0f}/s offered to {one.capacity:.0f}/s, goodput "
            f"{one.goodput_share:.1%}, refused in {_ms(one.refused_p50_s)} (p99 "
            f"{_ms(one.refused_p99_s)}), {one.outcomes}, recovered in {one.recovery_s:.2f} s"
        )
    missed = [f"overload: {law}" for law in stub.broken]
    return {"stub": stub, "embedded": embedded}, missed


def _metrics(*, pairs: int) -> tuple[Any, list[str]]:
    # A block of the embedded model is long: it is counted in whole batches.
    found = [
        metrics_cost.metrics_cost(model, pairs=pairs, seconds=seconds)
        for model, seconds in (("embedded", 3.0), ("null", 1.0))
    ]
    for one in found:
        print(
            f"  {one.model}: {one.on_per_s:.0f}/s with metrics, {one.off_per_s:.0f}/s without; "
            f"cost {one.cost:.1%}, at most {one.high:.1%}; {one.sent} sent, {one.counted} counted"
        )
    missed = [
        f"metrics: {one.sent} calls sent, {one.counted} counted" for one in found if not one.agrees
    ]
    if found[0].high > metrics_cost.BUDGET:
        missed.append(
            f"metrics: they may cost {found[0].high:.1%} of the embedded model's throughput, the "
            f"budget is {metrics_cost.BUDGET:.0%}"
        )
    return found, missed


def _interval(ratio: Any) -> str:
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.1f} ms"


if __name__ == "__main__":
    sys.exit(main())
