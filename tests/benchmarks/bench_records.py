"""How many entries a ledger takes per second, on SQLite and PostgreSQL, both durable at commit.

    python -m tests.benchmarks.bench_records --out out/records-benchmarks.json

Answers have bodies of a model with ten classes. A batch is one transaction. The figures hold for
this machine's disk: each transaction waits for it once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ibinn.records import AnswerEntry
from ibinn.types import ClassScore
from service.converters import records as bodies
from service.records.contents import NewAnswer
from service.records.ledger import Ledger
from tests.service.records.databases import PostgreSQL
from tests.service.records.made import new_answer, prediction, record_id, statement

_CLASSES = 10
_SECONDS = 4.0


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
        batches = ([next(source) for _ in range(size)] for _ in iter(int, 1))
        times = timed(lambda batches=batches: ledger.append_answers(next(batches)))
        found[f"answers_per_s_batch_{size}"] = round(size * len(times) / sum(times), 1)
        found[f"ms_per_batch_{size}_median"] = round(1000 * statistics.median(times), 3)
        found[f"ms_per_batch_{size}_p99"] = round(1000 * sorted(times)[int(0.99 * len(times))], 3)
    numbers = iter(range(1, 10**9))
    times = timed(lambda: ledger.append_feedback(statement(next(numbers)), caller="x", digest=None))
    found["statements_per_s"] = round(len(times) / sum(times), 1)
    found["ms_per_statement_median"] = round(1000 * statistics.median(times), 3)
    ledger.close()
    return found


def timed(action: Callable[[], object]) -> list[float]:
    """Seconds of each call, for some seconds."""
    times: list[float] = []
    until = time.perf_counter() + _SECONDS
    while time.perf_counter() < until:
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    return times


def main() -> None:
    """Measures both and writes them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/records-benchmarks.json"))
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=arguments.out.parent) as folder:
        figures["sqlite"] = measure(f"sqlite:///{folder}/records.db")
    place = Path(tempfile.mkdtemp(prefix="ibinn-pg-"))
    server = PostgreSQL(place)
    try:
        server.start()
        figures["postgresql"] = measure(server.new_database())
    finally:
        server.stop()
        shutil.rmtree(place, ignore_errors=True)
    text = json.dumps(figures, indent=1)
    arguments.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
