"""What the supervisor does about its workers; they are stand-ins that start in no time."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ibinn.errors import ConfigError
from service import workers
from service.ready import Ready
from service.settings import Settings
from service.worker import Orders
from tests.service.running import PATIENCE_S, until

READY = Ready(grpc="here", metrics="", model="m", weights="w" * 64, alpha=0.01, policy="")

WORKER = """
import dataclasses, json, os, sys, time
from pathlib import Path

folder, how = Path(sys.argv[1]), sys.argv[2]
orders = json.loads(sys.stdin.readline())
seen = folder / f"{orders['place']}-{os.getpid()}"
seen.write_text(json.dumps({**orders, "threads": os.environ["OMP_NUM_THREADS"]}))
with os.fdopen(orders["report"], "w") as report:
    if how == "refuse":
        print(json.dumps({"failed": "no model today"}), file=report)
        sys.exit(2)
    if how == "die":
        os.kill(os.getpid(), 9)
    print(json.dumps({"ready": json.loads(sys.argv[3])}), file=report, flush=True)
    sys.stdin.read()
"""


def command(folder: Path, how: str) -> Sequence[str]:
    ready = json.dumps({name: getattr(READY, name) for name in READY.__slots__})
    return (sys.executable, "-I", "-c", WORKER, str(folder), how, ready)


def settings(**changes: Any) -> Settings:
    return Settings(**{"port": 0, "metrics_port": 0, "workers": 2, **changes})


def seen(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.iterdir())]


def pids(folder: Path, place: int) -> list[int]:
    return [int(path.name.split("-")[1]) for path in folder.glob(f"{place}-*")]


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """The supervisor's handlers go with its event loop; the process keeps what it had."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def serve_until(
    met: Callable[[list[Ready]], bool], folder: Path, **changes: Any
) -> list[Ready]:
    """Serves with stand-ins until a condition is met, then stops as SIGTERM does."""
    told: list[Ready] = []
    serving = asyncio.create_task(
        workers.serve(settings(**changes), on_ready=told.append, command=command(folder, "serve"))
    )
    waiting = asyncio.create_task(until(lambda: met(told)))
    await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, PATIENCE_S)
    return told


async def test_ready_is_told_once_when_every_worker_is(tmp_path: Path) -> None:
    told = await serve_until(bool, tmp_path, workers=3)
    (ready,) = told
    assert ready.metrics.startswith("http://127.0.0.1:")
    assert len(seen(tmp_path)) == 3


async def test_workers_get_one_port_one_state_and_their_share_of_the_cores(tmp_path: Path) -> None:
    await serve_until(bool, tmp_path)
    one, other = seen(tmp_path)
    assert {one["place"], other["place"]} == {0, 1}
    assert one["settings"] == other["settings"]
    assert one["settings"]["port"] > 0
    assert one["settings"]["workers"] == 1
    assert one["settings"]["state_dir"]
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert (one["settings"]["threads"], one["threads"]) == (share, str(share))


async def test_settings_arrive_as_they_were_given(tmp_path: Path) -> None:
    await serve_until(
        bool, tmp_path, threads=5, alpha=0.03, state_dir=tmp_path / "s", metrics=False
    )
    orders = seen(tmp_path)[0]
    orders.pop("threads")
    arrived = Settings(**Orders(**orders).settings)
    assert (arrived.threads, arrived.alpha, arrived.state_dir) == (5, 0.03, tmp_path / "s")
    assert orders["metrics"] == ""


async def test_dead_worker_is_replaced_at_its_place_and_ready_is_not_told_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    killed: list[int] = []

    def replaced(told: list[Ready]) -> bool:
        if told and not killed:
            killed.extend(pids(tmp_path, 1))
            os.kill(killed[0], signal.SIGKILL)
        return len(pids(tmp_path, 1)) == 2

    with caplog.at_level(logging.WARNING, "service.workers"):
        told = await serve_until(replaced, tmp_path)
    assert len(told) == 1
    assert len(pids(tmp_path, 0)) == 1
    (entry,) = [record.message for record in caplog.records]
    assert entry.startswith("worker 1 was killed by SIGKILL")


@pytest.mark.parametrize(
    ("how", "words"),
    [("refuse", "^no model today$"), ("die", "was killed by SIGKILL 3 times")],
)
async def test_workers_that_cannot_start_end_the_server_with_the_reason(
    tmp_path: Path, how: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        await workers.serve(
            settings(), on_ready=lambda ready: pytest.fail("ready"), command=command(tmp_path, how)
        )
    assert all(not Path(f"/proc/{pid}").exists() for pid in pids(tmp_path, 0) + pids(tmp_path, 1))


async def test_port_in_use_is_refused_though_its_owner_would_share_it(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127.0.0.1:{port}"):
            await workers.serve(
                settings(port=port),
                on_ready=lambda ready: None,
                command=command(tmp_path, "serve"),
            )
    assert seen(tmp_path) == []
