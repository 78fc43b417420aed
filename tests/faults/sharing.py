"""Who gets how much of a full server: modest and greedy callers, Classify and Explain."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ibinn import load_test
from ibinn.client.channels import Connection
from ibinn.load_test import LoadReport, Plan, Rate
from service.access.grants import new_token, token_digest
from tests.faults import overload
from tests.faults.laws import broken
from tests.faults.server import stub_server
from tests.service.stub import png

BATCH_S = overload.BATCH_S
_FAIR_BATCHES = 6
"""A modest caller's image waits for the batch being computed and for one or two with its turn; the
rest is for a busy machine."""
_SHARE = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessResult:
    """A modest caller beside a greedy one. Rates are images per second.

    Attributes:
        capacity: Of the server, measured in the same run.
        seconds: Of the load.
        modest_rate: What the modest caller sends.
        modest_share: Share of its calls that were answered in time.
        modest_p50_s: Latency of its answers; likewise p99.
        greedy_rate: What the greedy caller sends in single calls over many connections.
        greedy_stream_rate: And over streams.
        greedy_goodput: How many of both were answered in time, per second.
        kept_up: Whether the modest caller sent on time; else the machine was too busy to tell.
        faults: Faults in the server's log.
    """

    capacity: float
    seconds: float
    modest_rate: float
    modest_share: float
    modest_p50_s: float
    modest_p99_s: float
    greedy_rate: float
    greedy_stream_rate: float
    greedy_goodput: float
    kept_up: bool
    faults: tuple[str, ...]

    @property
    def broken(self) -> tuple[str, ...]:
        return broken(
            (self.modest_share >= _SHARE, f"modest caller answered {self.modest_share:.1%}"),
            (
                self.modest_p99_s <= _FAIR_BATCHES * BATCH_S,
                f"modest caller's p99 {self.modest_p99_s:.3f} s",
            ),
            (
                self.greedy_goodput + self.modest_rate >= 0.8 * self.capacity,
                f"greedy caller got {self.greedy_goodput:.0f}/s of {self.capacity:.0f}/s",
            ),
            (not self.faults, f"log: {self.faults[:3]}"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class YieldResult:
    """Classify at nine tenths of capacity, alone and beside a flood of Explain.

    Attributes:
        capacity: Of the server, in images per second.
        seconds: Of each load.
        classify_rate: What is sent to Classify.
        explain_rate: What is sent to Explain in the flood.
        alone_share: Share of Classify calls answered in time without the flood.
        beside_share: And with it.
        alone_p99_s: Latency of Classify without the flood.
        beside_p99_s: And with it.
        beside_outcomes: How the calls of Classify ended beside it.
        explain_outcomes: How the calls of the flood ended.
        kept_up: Whether Classify was sent on time; else the machine was too busy to tell.
        faults: Faults in the server's log.
    """

    capacity: float
    seconds: float
    classify_rate: float
    explain_rate: float
    alone_share: float
    beside_share: float
    alone_p99_s: float
    beside_p99_s: float
    beside_outcomes: dict[str, int]
    explain_outcomes: dict[str, int]
    kept_up: bool
    faults: tuple[str, ...]

    @property
    def broken(self) -> tuple[str, ...]:
        answered = self.explain_outcomes.get("OK", 0) / sum(self.explain_outcomes.values())
        told = {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
        return broken(
            (
                self.beside_share >= self.alone_share - 0.01,
                f"Classify answered {self.alone_share:.1%} alone, {self.beside_share:.1%} beside "
                f"Explain: {self.beside_outcomes}",
            ),
            (answered < self.beside_share, f"Explain answered {answered:.1%}"),
            (
                set(self.explain_outcomes) <= told,
                f"Explain ended with {self.explain_outcomes}",
            ),
            (not self.faults, f"log: {self.faults[:3]}"),
        )


def between_callers(
    *, seconds: float = 15.0, capacity_s: float = 4.0, connections: int = 8
) -> FairnessResult:
    """A greedy caller at five times the capacity, half of it over streams, and a modest one.

    Args:
        seconds: Of the load.
        capacity_s: Of the measurement of capacity.
        connections: Of the greedy caller, for single calls and for streams.
    """
    greedy, modest = new_token(), new_token()
    images = [png(value) for value in range(64)]
    with tempfile.TemporaryDirectory(prefix="ibinn-faults-") as folder:
        tokens = Path(folder) / "tokens.toml"
        tokens.write_text(_grant("greedy", greedy) + _grant("modest", modest))
        tokens.chmod(0o600)
        with stub_server(
            batch_s=BATCH_S, max_batch_size=overload.BATCH_SIZE, tokens=str(tokens)
        ) as server:
            mine = Connection(target=server.target, token=modest)
            theirs = Connection(target=server.target, token=greedy)
            capacity = overload.saturated(
                server, images, calls=32, seconds=capacity_s, connection=theirs
            ).goodput
            rate, stream_rate = 2.5 * capacity, 2.5 * capacity
            plans = [
                _plan(mine, images, rate=0.1 * capacity, seconds=seconds),
                _plan(theirs, images, rate=rate, seconds=seconds, connections=connections),
                Plan(
                    target=theirs,
                    work=load_test.stream_work(images, images_per_message=8, timeout_s=1.0),
                    load=Rate(stream_rate),
                    duration_s=seconds,
                    deadline_s=1.0,
                    connections=connections,
                ),
            ]
            found, unary, streams = _together(plans)
            return FairnessResult(
                capacity=capacity,
                seconds=seconds,
                modest_rate=0.1 * capacity,
                modest_share=found.good_share,
                modest_p50_s=_seconds(found.latency.p50_s),
                modest_p99_s=_seconds(found.latency.p99_s),
                greedy_rate=rate,
                greedy_stream_rate=stream_rate,
                greedy_goodput=unary.goodput + streams.goodput,
                kept_up=found.kept_up,
                faults=server.faults(),
            )


def between_lanes(*, seconds: float = 10.0, capacity_s: float = 4.0) -> YieldResult:
    """Classify at 0.9 of the capacity, first alone, then beside Explain at five times of it.

    Args:
        seconds: Of each load.
        capacity_s: Of the measurement of capacity.
    """
    images = [png(value) for value in range(64)]
    with stub_server(batch_s=BATCH_S, max_batch_size=overload.BATCH_SIZE) as server:
        capacity = overload.saturated(server, images, calls=32, seconds=capacity_s).goodput
        target = Connection(target=server.target)
        classify = _plan(target, images, rate=0.9 * capacity, seconds=seconds)
        explain = Plan(
            target=target,
            work=load_test.explain_work(images),
            load=Rate(5 * capacity),
            duration_s=seconds,
            deadline_s=1.0,
            connections=4,
        )
        (alone,) = _together([classify])
        beside, flood = _together([classify, explain])
        return YieldResult(
            capacity=capacity,
            seconds=seconds,
            classify_rate=0.9 * capacity,
            explain_rate=5 * capacity,
            alone_share=alone.good_share,
            beside_share=beside.good_share,
            alone_p99_s=_seconds(alone.latency.p99_s),
            beside_p99_s=_seconds(beside.latency.p99_s),
            beside_outcomes={code.code: code.latency.count for code in beside.codes},
            explain_outcomes={code.code: code.latency.count for code in flood.codes},
            kept_up=alone.kept_up and beside.kept_up,
            faults=server.faults(),
        )


def _together(plans: Sequence[Plan]) -> list[LoadReport]:
    """Each from a process of its own: what one generator has to do makes none of another's late."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(plans), mp_context=spawn) as processes:
        for _ in processes.map(_started, plans):  # all begin at the same time
            pass
        return list(processes.map(load_test.run, plans))


def _started(plan: Plan) -> bool:
    """Imports what a process needs, and holds it long enough for each to get its own."""
    time.sleep(0.5)
    return plan.duration_s > 0


def _plan(
    target: Connection,
    images: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    connections: int = 1,
) -> Plan:
    return Plan(
        target=target,
        work=load_test.classify_work(images),
        load=Rate(rate),
        duration_s=seconds,
        deadline_s=1.0,
        connections=connections,
    )


def _grant(name: str, token: str) -> str:
    digest = token_digest(token).hex()
    return f'[[token]]\nname = "{name}"\nsha256 = "{digest}"\nroles = ["classify"]\n\n'


def _seconds(found: float | None) -> float:
    return float("inf") if found is None else found
