"""How many calls a second the load generator can send on time, against a bare echo server.

    python -m tests.benchmarks.bench_load_generator

The server is a process of its own, a `grpc.aio` handler that returns what it gets: nothing can
answer faster, so what limits is generator and gRPC. A rate counts as sent on time if the generator
says of itself that it kept up. Requests have 15 KB.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys

import grpc.aio

from ibinn import load_test

ECHO = "/tests.Echo/Echo"
RATES = (500, 1000, 2000, 3000, 4000, 5000, 6000)
REQUEST = bytes(15_000)
SECONDS = 4.0


async def serve() -> None:
    async def echo(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return request

    _, name, method = ECHO.split("/")
    handler = grpc.unary_unary_rpc_method_handler(echo)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(name, {method: handler}),)
    )
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


def measure(target: str, load: load_test.Rate | load_test.Concurrency) -> load_test.LoadReport:
    work = load_test.UnaryWork(path=ECHO, requests=(REQUEST,))
    plan = load_test.Plan(target=target, work=work, load=load, duration_s=SECONDS)
    return load_test.run(plan)


def line(name: str, report: load_test.LoadReport) -> str:
    latency, lag = report.latency, report.lag
    cpu_us = 1e6 * report.generator_cpu_s / max(1, report.sent * (1 + 1 / SECONDS))
    return (
        f"{name:>12}  {report.goodput:6.0f} answered/s"
        f"  latency p50 {1e3 * (latency.p50_s or 0):6.2f} p99 {1e3 * (latency.p99_s or 0):7.2f} ms"
        f"  lag p50 {1e3 * (lag.p50_s or 0):5.2f} p99 {1e3 * (lag.p99_s or 0):6.2f} ms"
        f"  {cpu_us:4.0f} us CPU a call  {'kept up' if report.kept_up else 'did not keep up'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help="be the echo server")
    if parser.parse_args().serve:
        asyncio.run(serve())
        return
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.bench_load_generator", "--serve"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        target = f"127.0.0.1:{int(server.stdout.readline())}"
        for rate in RATES:
            print(line(f"{rate}/s", measure(target, load_test.Rate(rate))), flush=True)
        for calls in (1, 8, 64):
            print(line(f"{calls} at a time", measure(target, load_test.Concurrency(calls))))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
