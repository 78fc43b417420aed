"""What records take: of the database, of an answer, and of answers while the database is bad.

    python -m tests.benchmarks.bench_records --out out/records-benchmarks.json

1. Entries per second of SQLite and PostgreSQL, both durable at commit. Answers have bodies of a
   model with ten classes. A batch is one transaction. The figures hold for this machine's disk:
   each transaction waits for it once.
2. Throughput and latency of a server that keeps records against one that keeps none.
3. Latency while the database is slow, silent, gone or locked against one that is well.

Servers are real processes whose model does nothing; what is compared alternates in one run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ibinn.records import AnswerEntry
from ibinn.types import ClassScore
from service.converters import records as bodies
from service.records.contents import NewAnswer, Said
from service.records.ledger import Ledger
from tests.benchmarks.server import bad_store, records_cost
from tests.benchmarks.server.pairs import Ratio
from tests.faults.durability import running_postgresql
from tests.service.records.made import new_answer, prediction, record_id, statement

_CLASSES = 10
_SECONDS = 3.0


def answers() -> Iterator[NewAnswer]:
    """Answers with bodies that are made already, without end."""
    base = prediction(0)
    score = base.classes[1]
    classes = tuple(
        ClassScore(
            index=n,
            name=f"class {n}",
            probability=score.probability,
            raw_probability=score.raw_probability,
            log_likelihood=score.log_likelihood - n,
        )
        for n in range(_CLASSES)
    )
    entry = AnswerEntry(
        prediction=dataclasses.replace(base, classes=classes),
        caller="ann",
        method="Classify",
        group_id="",
        bundle="animals",
        server="server-1",
        image_kept=None,
    )
    body = bodies.answer_body(entry)
    made = new_answer(0)
    number = 0
    while True:
        digest = dataclasses.replace(made.digest, record_id=record_id(number))
        yield dataclasses.replace(made, digest=digest, body=lambda: body)
        number += 1


def measure(url: str) -> dict[str, float]:
    """Entries per second and milliseconds per transaction, by the size of a batch."""
    ledger = Ledger.open(url, timeout_s=30)
    source = answers()
    found: dict[str, float] = {"body_bytes": len(next(source).body())}
    for size in (1, 32, 256):
        times = timed(lambda: ledger.append_answers([next(source) for _ in range(size)]))  # noqa: B023
        found[f"answers_per_s_batch_{size}"] = round(size * len(times) / sum(times), 1)
        found[f"ms_per_batch_{size}_median"] = round(1000 * statistics.median(times), 3)
        found[f"ms_per_batch_{size}_p99"] = round(1000 * sorted(times)[int(0.99 * len(times))], 3)
    numbers = iter(range(1, 10**9))
    for size in (1, 32):
        times = timed(lambda: ledger.append_statements(_said(numbers, size)))  # noqa: B023
        found[f"statements_per_s_batch_{size}"] = round(size * len(times) / sum(times), 1)
        found[f"ms_per_statements_{size}_median"] = round(1000 * statistics.median(times), 3)
    ledger.close()
    return found


def _said(numbers: Iterator[int], size: int) -> list[Said]:
    return [Said(statement=statement(next(numbers)), caller="x", digest=None) for _ in range(size)]


def timed(action: Callable[[], object]) -> list[float]:
    """Seconds of each call, for some seconds."""
    times: list[float] = []
    until = time.perf_counter() + _SECONDS
    while time.perf_counter() < until:
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    return times


def main(arguments: list[str] | None = None) -> int:
    """Measures and writes down; returns 1 where a budget is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/records-benchmarks.json"))
    parser.add_argument("--quick", action="store_true", help="few blocks")
    parser.add_argument("--only", choices=("ledger", "cost", "bad"), action="append")
    options = parser.parse_args(arguments)
    quick = options.quick
    start = time.monotonic()
    parts: dict[str, Callable[[], tuple[Any, list[str]]]] = {
        "ledger": lambda: (_ledger(options.out.parent), []),
        "cost": lambda: _cost(pairs=2 if quick else 12),
        "bad": lambda: _bad(pairs=3 if quick else 36),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
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
        "load_average": os.getloadavg()[0],
        "seconds": round(time.monotonic() - start),
        "quick": quick,
        "missed": missed,
        **found,
    }
    text = json.dumps(report, indent=1, default=dataclasses.asdict)
    options.out.write_text(text + "\n", encoding="utf-8")
    for line in missed:
        print(f"MISSED  {line}")
    print(f"written to {options.out}")
    return 1 if missed and not quick else 0


def _ledger(folder: Path) -> dict[str, dict[str, float]]:
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=folder) as place:
        figures["sqlite"] = measure(f"sqlite:///{place}/records.db")
    with running_postgresql() as server:
        figures["postgresql"] = measure(server.new_database())
    print(json.dumps(figures, indent=1))
    return figures


def _cost(*, pairs: int) -> tuple[Any, list[str]]:
    found = records_cost.records_cost(pairs=pairs, seconds=1.0, callers=16)
    for one in found:
        print(
            f"  {one.records}: {one.per_s:.0f}/s, throughput {_interval(one.throughput)}, p50 "
            f"{one.p50_ms:.1f} ms {_interval(one.p50)}, p99 {one.p99_ms:.1f} ms "
            f"{_interval(one.p99)}; at most {one.waiting:.0f} waited"
        )
    missed = [f"{one.failed} calls failed with {one.records}" for one in found if one.failed]
    return found, missed


def _bad(*, pairs: int) -> tuple[Any, list[str]]:
    found = bad_store.bad_store(pairs=pairs, seconds=0.5, callers=8)
    missed = []
    for one in found:
        print(
            f"  {one.fault}: p99 {one.well_p99_ms:.1f} -> {one.bad_p99_ms:.1f} ms, "
            f"{_interval(one.p99)}, by block {_interval(one.p99_by_block)}; {one.calls} calls, "
            f"{one.failed} failed, {one.dropped:.0f} dropped; recovered in {one.recovered_s:.1f} s"
        )
        if one.p99.high > bad_store.BUDGET:
            missed.append(
                f"{one.fault}: the p99 may grow to {one.p99.high:.2f} times, the budget is "
                f"{bad_store.BUDGET}"
            )
        if one.failed:
            missed.append(f"{one.fault}: {one.failed} calls failed")
        if not one.dropped:
            missed.append(f"{one.fault}: nothing was dropped")
    return found, missed


def _interval(ratio: Ratio) -> str:
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


if __name__ == "__main__":
    sys.exit(main())
