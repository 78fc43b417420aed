"""Several worker processes on one port: what a dead one takes along, and what it does not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ibinn.v1.classification_service_pb2 import ClassifyRequest
from ibinn.v1.classification_service_pb2_grpc import ClassificationServiceStub
from tests.service.running import PATIENCE_S, until
from tests.service.stub import png
from tests.service.stub_worker import HELD

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CALLERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    process: subprocess.Popen[str]
    target: str
    metrics: str
    folder: Path

    def samples(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        with urllib.request.urlopen(self.metrics, timeout=PATIENCE_S) as response:
            text = response.read().decode()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float | None:
        return self.samples().get((name, frozenset(labels.items())))

    def holding(self) -> set[int]:
        return {int(path.name.split("-")[1]) for path in self.folder.glob("holding-*")}


@contextlib.contextmanager
def serving(folder: Path, **changes: Any) -> Iterator[Running]:
    """A supervisor and two stub workers that are ready; all ended afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.service.stub_workers", json.dumps({"workers": 2, **changes})],
        cwd=ROOT,
        env={**os.environ, "STUB_FOLDER": str(folder), "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        found = re.match(r"ready grpc=(\S+) metrics=(\S+) model=stub weights=a{12} ", line)
        assert found is not None, line
        yield Running(process=process, target=found[1], metrics=found[2], folder=folder)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@dataclass(slots=True, kw_only=True)
class Caller:
    """One connection that is no other's."""

    channel: grpc.aio.Channel
    worker: int = 0
    answered: int = 0
    failures: list[grpc.StatusCode] = field(default_factory=list)

    async def classify(self, value: int = 0) -> int:
        """Answers with the worker's process id."""
        stub = ClassificationServiceStub(self.channel)
        call = stub.Classify(
            ClassifyRequest(image=png(value)), wait_for_ready=True, timeout=PATIENCE_S
        )
        self.worker = int((await call).classification.verdict_reason)
        self.answered += 1
        return self.worker

    async def keep_calling(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self.classify()
            except grpc.aio.AioRpcError as error:
                self.failures.append(error.code())


@contextlib.asynccontextmanager
async def callers(run: Running) -> AsyncIterator[list[Caller]]:
    """Callers on connections of their own, at least two on each worker."""
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
    async with contextlib.AsyncExitStack() as stack:
        found: list[Caller] = []
        while len(found) < CALLERS or not _spread(found):
            channel = grpc.aio.insecure_channel(run.target, options=options)
            found.append(Caller(channel=await stack.enter_async_context(channel)))
            await found[-1].classify()
            assert len(found) < 100, "the kernel gives every connection to one worker"
        yield found


def _spread(found: list[Caller]) -> bool:
    counts = Counter(caller.worker for caller in found)
    return len(counts) == 2 and min(counts.values()) >= 2


async def condition(met: Callable[[], bool]) -> None:
    """Waits for what other processes bring about."""
    async with asyncio.timeout(PATIENCE_S):
        while not await asyncio.to_thread(met):
            await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_killed_worker_takes_only_its_calls_along_and_is_replaced(tmp_path: Path) -> None:
    with serving(tmp_path) as run:
        async with callers(run) as found:
            stop = asyncio.Event()
            load = [asyncio.create_task(caller.keep_calling(stop)) for caller in found[1:]]
            victim, held = found[0].worker, found[0]
            lost = asyncio.create_task(held.classify(HELD))
            await condition(lambda: victim in run.holding())
            others = [caller for caller in found if caller.worker != victim]
            seen = sum(caller.answered for caller in others)
            await until(lambda: sum(caller.answered for caller in others) > seen + 100)

            os.kill(victim, signal.SIGKILL)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await lost
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            await condition(lambda: run.metric("ibinn_worker_restarts_total") == 1)
            await condition(lambda: run.metric("ibinn_workers") == 2)
            seen = sum(caller.answered for caller in found)
            await until(lambda: sum(caller.answered for caller in found) > seen + 100)
            stop.set()
            await asyncio.gather(*load)

            at_victim = [caller for caller in found[1:] if caller not in others]
            assert all(caller.failures == [] for caller in others)
            assert all(
                caller.failures in ([], [grpc.StatusCode.UNAVAILABLE]) for caller in at_victim
            )
            assert any(caller.failures for caller in at_victim)
            assert all(caller.worker != victim for caller in found[1:])

        # The one in its place is asked as well.
        async with callers(run) as again:
            workers = {caller.worker for caller in again}
            assert victim not in workers
            answered = sum(caller.answered for caller in (*found, *again))

        await condition(lambda: run.metric("ibinn_pending_requests") == 0)
        samples = await asyncio.to_thread(run.samples)
        labels = frozenset({"method": "Classify", "code": "OK"}.items())
        assert samples["ibinn_requests_total", labels] == answered
        assert samples["ibinn_verdicts_total", frozenset({("verdict", "NOT_FLAGGED")})] == answered


async def test_stop_lets_both_workers_finish_what_they_have(tmp_path: Path) -> None:
    with serving(tmp_path) as run:
        async with callers(run) as found:
            workers = {caller.worker: caller for caller in found}
            in_flight = [asyncio.create_task(caller.classify(HELD)) for caller in workers.values()]
            await condition(lambda: run.holding() == set(workers))
            run.process.send_signal(signal.SIGTERM)
            await condition(lambda: _refuses(run.target))
            assert not any(call.done() for call in in_flight)
            (tmp_path / "open").touch()
            assert set(await asyncio.gather(*in_flight)) == set(workers)
        assert await asyncio.to_thread(run.process.wait, PATIENCE_S) == 0
        assert run.process.stdout.read() == "stopped\n"
        assert not any(map(alive, workers))


def _refuses(target: str) -> bool:
    """Whether a new call is turned away, by whichever worker it reaches, or reaches none."""
    with grpc.insecure_channel(target, (("grpc.use_local_subchannel_pool", 1),)) as channel:
        try:
            ClassificationServiceStub(channel).Classify(ClassifyRequest(image=png()), timeout=5)
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNAVAILABLE
    return False


async def test_workers_end_with_their_supervisor_however_it_ends(tmp_path: Path) -> None:
    with serving(tmp_path) as run:
        async with callers(run) as found:
            workers = {caller.worker for caller in found}
        run.process.kill()
        await condition(lambda: not any(map(alive, workers)))


async def test_worker_that_cannot_start_again_is_retried_while_the_other_serves(
    tmp_path: Path,
) -> None:
    with serving(tmp_path) as run:
        async with callers(run) as found:
            victim = found[0].worker
            other = next(caller for caller in found if caller.worker != victim)
            (tmp_path / "broken").touch()
            os.kill(victim, signal.SIGKILL)
            await condition(lambda: (run.metric("ibinn_worker_restarts_total") or 0) >= 3)
            await other.classify()
            (tmp_path / "broken").unlink()
            await condition(lambda: _workers(run.target) > 1)


def _workers(target: str) -> int:
    """Number of workers that answer new connections."""
    found = set()
    for _ in range(16):
        with grpc.insecure_channel(target, (("grpc.use_local_subchannel_pool", 1),)) as channel:
            answer = ClassificationServiceStub(channel).Classify(
                ClassifyRequest(image=png()), timeout=PATIENCE_S
            )
            found.add(answer.classification.verdict_reason)
    return len(found)


def test_models_that_cannot_be_loaded_end_the_server_with_their_message(tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    result = subprocess.run(
        [sys.executable, "-m", "tests.service.stub_workers", '{"workers": 2}'],
        cwd=ROOT,
        env={**os.environ, "STUB_FOLDER": str(tmp_path), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert "error: the stub is broken; mend it\n" in result.stderr
