"""Latency of answers while the database of their records is bad, against one that is well.

Two servers with ``audit = best_effort`` and databases of their own answer in turn, in blocks; the
database of one of them is slow, silent, gone or locked all the while.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.benchmarks.server.pairs import Ratio
from tests.benchmarks.server.process import Kind, Started, started
from tests.benchmarks.server.records_load import Block, Load, metric
from tests.faults import proxy as proxies
from tests.faults import stores
from tests.faults.durability import running_postgresql
from tests.faults.proxy import Network

BUDGET = 1.15
"""Most that the p99 may grow, by its upper 95 % bound."""

Happens = Callable[[], contextlib.AbstractContextManager[None]]
"""A fault, for as long as its context lasts."""

_RESAMPLES = 2000
_PATIENCE_S = 60.0
_QUEUE = 2000
"""Answers that may wait: some of the blocks are of a time in which it fills, most of a full one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadStore:
    """One fault.

    Attributes:
        fault: Database and what was done to it.
        well_p99_ms: Of all calls to the server whose database was well.
        bad_p99_ms: Of the other.
        p99: Their ratio; its interval by a bootstrap over pairs of blocks, of which `high` is the
            upper 95 % bound (one-sided).
        p99_by_block: Median over pairs of the ratio of the blocks' own p99.
        p50: Likewise of the medians.
        calls: Calls to the server with the bad database.
        failed: Those among them without an answer.
        dropped: Answers without a record.
        recovered_s: From the fault's end until all that waited was on record.
    """

    fault: str
    well_p99_ms: float
    bad_p99_ms: float
    p99: Ratio
    p99_by_block: Ratio
    p50: Ratio
    calls: int
    failed: int
    dropped: float
    recovered_s: float


def bad_store(*, pairs: int, seconds: float, callers: int) -> list[BadStore]:
    """Every fault in turn.

    Args:
        pairs: Blocks of each server and fault.
        seconds: Of a block.
        callers: Calls that are unanswered at any time.
    """
    size = (pairs, seconds, callers)
    with contextlib.ExitStack() as stack:
        postgresql = stack.enter_context(running_postgresql())
        proxy = stack.enter_context(proxies.running(postgresql.port))
        behind = postgresql.new_database().replace(f":{postgresql.port}/", f":{proxy.port}/")
        faults: dict[str, Happens] = {
            f"postgresql, {network.value}": functools.partial(stores.network_is, proxy, network)
            for network in (Network.SLOW, Network.SILENT, Network.GONE)
        }
        found = _on((behind, postgresql.new_database()), faults, size)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ibinn-bench-"))
        paths = [Path(folder) / name for name in ("locked.db", "well.db")]
        urls = (f"sqlite:///{paths[0]}", f"sqlite:///{paths[1]}")
        found += _on(urls, {"sqlite, locked": lambda: stores.locked(paths[0])}, size)
    return found


def _on(
    urls: tuple[str, str], faults: Mapping[str, Happens], size: tuple[int, float, int]
) -> list[BadStore]:
    """The faults of one kind of database, on a server for the bad one and one for the other."""
    with _server(urls[0]) as bad, _server(urls[1]) as well:
        return [
            asyncio.run(_measured(name, bad, well, happens, size))
            for name, happens in faults.items()
        ]


async def _measured(
    fault: str,
    bad: Started,
    well: Started,
    happens: Happens,
    size: tuple[int, float, int],
) -> BadStore:
    pairs, seconds, callers = size
    loads = [Load(server, callers=callers, waits=False) for server in (bad, well)]
    blocks: tuple[list[Block], list[Block]] = ([], [])
    for load in loads:
        await load.block(1.0)
        await load.recorded()
    before = metric(bad, "ibinn_records_dropped_total")
    with happens():
        for number in range(pairs + 1):
            both = list(zip(loads, blocks, strict=True))
            for load, found in both if number % 2 else reversed(both):
                block = await load.block(seconds)
                if number:
                    found.append(block)
        dropped = metric(bad, "ibinn_records_dropped_total") - before
    ended = time.monotonic()
    while not (metric(bad, "ibinn_records_waiting") == 0 < metric(bad, "ibinn_records_reachable")):
        if time.monotonic() - ended > _PATIENCE_S:
            break
        await asyncio.sleep(0.02)
    recovered_s = time.monotonic() - ended
    for load in loads:
        await load.close()
    return BadStore(
        fault=fault,
        well_p99_ms=1e3 * _pooled(blocks[1]),
        bad_p99_ms=1e3 * _pooled(blocks[0]),
        p99=_bootstrapped(*blocks),
        p99_by_block=Ratio.of(*([one.quantile_s(0.99) for one in each] for each in blocks)),
        p50=Ratio.of(*([one.quantile_s(0.5) for one in each] for each in blocks)),
        calls=sum(len(one.latencies_s) for one in blocks[0]),
        failed=sum(one.failed for one in blocks[0]),
        dropped=dropped,
        recovered_s=recovered_s,
    )


@contextlib.contextmanager
def _server(url: str) -> Iterator[Started]:
    settings = {"records": url, "records_timeout_s": 2.0, "records_queue": _QUEUE}
    with started(Kind(what="null", settings=settings)) as server:
        yield server


def _pooled(blocks: list[Block]) -> float:
    found = np.concatenate([one.latencies_s for one in blocks])
    return float(np.quantile(found, 0.99, method="higher"))


def _bootstrapped(bad: list[Block], well: list[Block]) -> Ratio:
    """Ratio of p99 over all calls, with pairs of blocks drawn anew again and again."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(_RESAMPLES):
        chosen = rng.integers(len(bad), size=len(bad))
        drawn.append(_pooled([bad[n] for n in chosen]) / _pooled([well[n] for n in chosen]))
    low, high = np.quantile(drawn, (0.05, 0.95))
    return Ratio(
        median=_pooled(bad) / _pooled(well), low=float(low), high=float(high), pairs=len(bad)
    )
