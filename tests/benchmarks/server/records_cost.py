"""What records cost an answer: servers that differ in their records alone, loaded in turn.

The model does nothing and nothing is decoded: in proportion, records cannot cost more.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.server.pairs import Ratio
from tests.benchmarks.server.process import Kind, Started, started
from tests.benchmarks.server.records_load import Block, Load
from tests.faults.durability import running_postgresql

NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsCost:
    """A server with records against one without.

    Attributes:
        records: Database and setting `audit`.
        callers: Calls that are unanswered at any time.
        per_s: Answers per second, median over blocks.
        p50_ms: Of a call, median over blocks of the block's; likewise `p99_ms`.
        throughput: Ratio to the server without records.
        p50: Likewise.
        p99: Likewise.
        failed: Calls without an answer.
        waiting: Most answers whose records were still to be written at the end of a block.
    """

    records: str
    callers: int
    per_s: float
    p50_ms: float
    p99_ms: float
    throughput: Ratio
    p50: Ratio
    p99: Ratio
    failed: int
    waiting: float


def records_cost(*, pairs: int, seconds: float, callers: int) -> list[RecordsCost]:
    """Blocks of all of them in turn.

    Args:
        pairs: Blocks of each.
        seconds: Of a block.
        callers: Calls that are unanswered at any time.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ibinn-bench-")))
        postgresql = stack.enter_context(running_postgresql())
        kinds: dict[str, dict[str, str]] = {NONE: {}}
        for audit in ("best_effort", "required"):
            kinds[f"sqlite, {audit}"] = {
                "records": f"sqlite:///{folder}/{audit}.db",
                "audit": audit,
            }
            kinds[f"postgresql, {audit}"] = {"records": postgresql.new_database(), "audit": audit}
        servers = {
            name: stack.enter_context(started(Kind(what="null", settings=settings)))
            for name, settings in kinds.items()
        }
        blocks = asyncio.run(_blocks(servers, pairs=pairs, seconds=seconds, callers=callers))
    without = blocks.pop(NONE)
    return [_cost(name, callers, found, without) for name, found in blocks.items()]


async def _blocks(
    servers: Mapping[str, Started], *, pairs: int, seconds: float, callers: int
) -> dict[str, list[Block]]:
    loads = {
        name: Load(server, callers=callers, waits=name != NONE) for name, server in servers.items()
    }
    found: dict[str, list[Block]] = {name: [] for name in servers}
    for number in range(pairs + 1):
        order = list(loads.items())
        for name, load in order if number % 2 else reversed(order):
            block = await load.block(seconds)
            if number:  # the first round warms up
                found[name].append(block)
    for load in loads.values():
        await load.close()
    return found


def _cost(name: str, callers: int, blocks: list[Block], without: list[Block]) -> RecordsCost:
    def ratio(of: str) -> Ratio:
        share = {"p50": 0.5, "p99": 0.99}.get(of)
        both = [
            [one.per_s if share is None else one.quantile_s(share) for one in each]
            for each in (blocks, without)
        ]
        return Ratio.of(*both)

    return RecordsCost(
        records=name,
        callers=callers,
        per_s=statistics.median(one.per_s for one in blocks),
        p50_ms=1e3 * statistics.median(one.quantile_s(0.5) for one in blocks),
        p99_ms=1e3 * statistics.median(one.quantile_s(0.99) for one in blocks),
        throughput=ratio("throughput"),
        p50=ratio("p50"),
        p99=ratio("p99"),
        failed=sum(one.failed for one in blocks),
        waiting=max(one.waiting for one in blocks),
    )
