"""Mutated images, messages and connections against a real server: no crash, no hang, no growth.

    python -m tests.fuzz.campaign --inputs 150000 --seed 1 --out out/fuzz

Three steps. Inputs guided by coverage look for what breaks decoding, rules and conversion inside a
process of their own. What they found to reach something new is mutated further and sent to a
server over real sockets, beside messages and connections that break protobuf, gRPC or HTTP/2.
Afterwards the server must answer as before. The report is ``fuzz-report.json``, inputs that failed
lie beside it; exit status 1 says that there are some. The same seed makes the same inputs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from ibinn.v1 import classification_service_pb2 as service
from tests.fuzz import calls, guided, http2, judging, process, seeds, targets
from tests.fuzz.calls import OURS, FuzzCall
from tests.fuzz.judging import SLOW_S, Tally

_AT_ONCE = 8
_GROWTH_LIMIT_MB = 50.0
_WARM_SHARE = 0.1
_CONNECTIONS_SHARE = 0.02
_SMALL_BYTES = 2000
_TRACE = "Traceback (most recent call last)"
_CALLER_GONE = "ExecuteBatchError"
_OUR_PATHS = ("/service/", "/ibinn/", "/tests/")


@dataclass(slots=True, kw_only=True)
class Report:
    """What a campaign found.

    Attributes:
        seed: That it began with.
        inputs: Mutated inputs in all.
        seconds: How long it took.
        guided: Of each guided target: runs, and inputs that reached something new.
        statuses: Of each stage: how often each status came.
        slowest_s: Longest time of a call, the machine's load included.
        decoder_faults: Images on which a decoder broke down; the server went on.
        memory_mb: Of server and decoders after the warm-up, at most after it, and at the end.
        findings: Inputs that failed, and how.
    """

    seed: int
    inputs: int = 0
    seconds: float = 0.0
    guided: dict[str, dict[str, Any]] = field(default_factory=dict)
    statuses: dict[str, dict[str, int]] = field(default_factory=dict)
    slowest_s: float = 0.0
    decoder_faults: int = 0
    memory_mb: dict[str, float] = field(default_factory=dict)
    findings: list[dict[str, str]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def run(*, inputs: int, seed: int, out: Path) -> Report:
    """Runs a campaign and writes its report.

    Args:
        inputs: Number of mutated inputs in all.
        seed: Decides everything.
        out: Folder of the report and of inputs that failed.
    """
    start = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    report = Report(seed=seed)
    found = {
        name: _guided(name, runs=inputs * share // 100, seed=seed, out=out, report=report)
        for name, share in (("decode", 20), ("messages", 10))
    }
    left = inputs - report.inputs
    asyncio.run(_against_server(report, left, found["decode"], found["messages"], out))
    report.seconds = round(time.monotonic() - start, 1)
    text = json.dumps({"passed": report.passed, **asdict(report)}, indent=2)
    (out / "fuzz-report.json").write_text(text + "\n", "utf-8")
    return report


def main() -> None:
    """Runs a campaign and tells what it found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=150_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"))
    options = parser.parse_args()
    report = run(inputs=options.inputs, seed=options.seed, out=options.out)
    print(json.dumps(asdict(report), indent=2))
    print(f"report: {options.out / 'fuzz-report.json'}")
    sys.exit(0 if report.passed else 1)


# -------------------------------------------------------------------------- guided by coverage


def _guided(name: str, *, runs: int, seed: int, out: Path, report: Report) -> list[bytes]:
    """Inputs that reach something, the seeds among them; failures go to the report."""
    if name == "decode":
        known = list(seeds.images())
    else:
        known = list(targets.message_seeds(random.Random(seed)))
    corpus, failures = out / f"corpus-{name}", out / f"failures-{name}"
    for folder in (corpus, failures):
        for path in folder.glob("*"):
            path.unlink()
    if not guided.available():
        report.guided[name] = {"skipped": "atheris is not installed"}
        return known
    command = [sys.executable, "-m", "tests.fuzz.guided", name]
    options = (
        *(f"--runs={runs}", f"--seed={seed}"),
        *(f"--corpus={corpus.absolute()}", f"--failures={failures.absolute()}"),
    )
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    (out / f"guided-{name}.log").write_text(done.stderr, "utf-8")
    if done.returncode:
        report.findings.append(
            {"input": str(failures), "what": f"guided {name}: {done.stderr[-1500:]}"}
        )
    slow = sorted(path.read_bytes() for path in failures.glob("slow-*"))
    reached = sorted(path.read_bytes() for path in corpus.glob("*"))
    report.inputs += runs
    report.guided[name] = {"runs": runs, "reached": len(reached), "slow": len(slow)}
    return list(dict.fromkeys((*known, *slow, *reached)))


# ----------------------------------------------------------------------------- against a server


async def _against_server(
    report: Report,
    inputs: int,
    images: Sequence[bytes],
    messages: Sequence[bytes],
    out: Path,
) -> None:
    small = [image for image in images if len(image) < _SMALL_BYTES]
    connections = int(inputs * _CONNECTIONS_SHARE)
    image_count = (inputs - connections) * 2 // 3
    message_count = inputs - connections - image_count
    warm_up = int(inputs * _WARM_SHARE)
    seed = report.seed
    with process.running(out / "server.log") as server:
        stage = _Stage(report=report, server=server, out=out)
        async with grpc.aio.insecure_channel(server.address) as channel:
            stage.channel = channel
            await stage.calls("warm-up", calls.image_calls(-seed, warm_up, images))
            await stage.calls("warm-up", calls.message_calls(-seed, warm_up // 2, messages, small))
            await stage.connections("warm-up", -seed, min(connections, 600))
            stage.weigh("after_warm_up")
            await stage.calls("images", calls.image_calls(seed, image_count, images))
            await stage.calls("messages", calls.message_calls(seed, message_count, messages, small))
            await stage.connections("connections", seed, connections)
            await stage.answers_as_before()
            stage.weigh("at_end")
    _judge_process(report, server, out)


def _judge_process(report: Report, server: process.FuzzedServer, out: Path) -> None:
    if server.status != 0:
        report.findings.append(
            {"input": str(out), "what": f"the server ended with status {server.status}"}
        )
    for trace in _traces(server.logged()):
        report.findings.append({"input": str(server.log), "what": f"the server logged: {trace}"})
    memory = report.memory_mb
    growth = memory.get("at_end", 0.0) - memory.get("after_warm_up", 0.0)
    memory["growth"] = round(growth, 1)
    if growth > _GROWTH_LIMIT_MB:
        report.findings.append(
            {
                "input": str(out),
                "what": f"memory grew by {growth:.1f} MB; {_GROWTH_LIMIT_MB:g} allowed",
            }
        )


def _traces(logged: str) -> list[str]:
    """The first few traces that tell of our own code.

    gRPC logs one for what it cannot parse, and one where a caller has gone before its status.
    """
    traces = [_TRACE + part[:3000] for part in logged.split(_TRACE)[1:]]
    ours = [trace for trace in traces if any(path in trace for path in _OUR_PATHS)]
    return [trace for trace in ours if _CALLER_GONE not in trace][:5]


@dataclass(slots=True, kw_only=True)
class _Stage:
    """Sends inputs to the server and writes down what comes of them."""

    report: Report
    server: process.FuzzedServer
    out: Path
    channel: Any = None

    async def calls(self, name: str, made: Iterable[FuzzCall]) -> None:
        """Sends calls, a few at a time."""

        async def one(call: FuzzCall, tally: Tally) -> None:
            if await judging.send(self.channel, call, tally) > SLOW_S:
                await self._try_alone(call, tally)

        await self._all(name, made, one)

    async def connections(self, name: str, seed: int, count: int) -> None:
        """Opens bare connections, a few at a time."""

        async def one(number: int, tally: Tally) -> None:
            took_s = await http2.converse(self.server.address, seed, number, tally)
            tally.slowest_s = max(tally.slowest_s, took_s)

        await self._all(name, range(count), one)

    async def answers_as_before(self) -> None:
        """A sound image must be answered within a second."""
        request = service.ClassifyRequest(image=seeds.good()).SerializeToString()
        call = FuzzCall(
            name="afterwards", method=f"{OURS}Classify", stream=False, messages=(request,)
        )
        tally = Tally()
        took_s = await judging.send(self.channel, call, tally)
        if took_s > SLOW_S or tally.statuses["OK"] != 1:
            tally.find(call, f"a sound image got {dict(tally.statuses)} after {took_s:.2f} s")
        self._write_down("afterwards", tally)

    def weigh(self, name: str) -> None:
        """Writes down the memory in use."""
        if self.server.alive:
            self.report.memory_mb[name] = round(self.server.rss_bytes() / 2**20, 1)

    async def _all(
        self, name: str, made: Iterable[Any], one: Callable[[Any, Tally], Awaitable[None]]
    ) -> None:
        tally, inputs = Tally(), iter(made)

        async def work() -> None:
            for each in inputs:
                if not self.server.alive:
                    break
                await one(each, tally)
                if tally.inputs % 1000 < _AT_ONCE:
                    self._note_peak()

        await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
        self._write_down(name, tally)

    async def _try_alone(self, call: FuzzCall, tally: Tally) -> None:
        """A busy machine makes calls slow; a call that is slow three more times hangs."""
        again = [await judging.send(self.channel, call, Tally()) for _ in range(3)]
        if min(again) > SLOW_S:
            tally.find(call, f"{call.method} took {min(again):.2f} s")

    def _note_peak(self) -> None:
        memory = self.report.memory_mb
        if "after_warm_up" in memory and self.server.alive:
            now = round(self.server.rss_bytes() / 2**20, 1)
            memory["most"] = max(memory.get("most", 0.0), now)

    def _write_down(self, name: str, tally: Tally) -> None:
        report = self.report
        report.inputs += tally.inputs if name != "afterwards" else 0
        counts = report.statuses.setdefault(name, {})
        for status, count in sorted(tally.statuses.items()):
            counts[status] = counts.get(status, 0) + count
        report.slowest_s = round(max(report.slowest_s, tally.slowest_s), 3)
        report.decoder_faults += tally.decoder_faults
        report.findings += judging.save(tally.findings[:100], self.out / "inputs")


if __name__ == "__main__":
    main()
