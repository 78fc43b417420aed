"""Laws of the state: it survives, it is whole, workers see and hear of each other."""

from __future__ import annotations

import asyncio
import dataclasses
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from ibinn.errors import ConfigError, NotPossibleError
from ibinn.serving import AcceptanceFigure, Candidate
from service.models.candidates import Judged, Reason
from service.models.mode import ModeState
from service.models.state import Entry, State, from_json, to_json
from service.models.store import FileStore, MemoryStore
from tests.service.stub import VERSIONS

ENTRY = Entry(bundle="new-1", fingerprint="f" * 64, weights="a" * 64, calibration="b" * 64)
OTHER = dataclasses.replace(ENTRY, bundle="new-2", fingerprint="e" * 64)
CANDIDATE = Candidate(
    bundle="new-3",
    versions=VERSIONS,
    accepted=False,
    reasons=("accuracy is 0.5",),
    figures=(
        AcceptanceFigure(
            name="accuracy", candidate=0.5, present=0.75, limit=0.74, passed=False, count=8
        ),
        AcceptanceFigure(
            name="top_label_ece",
            candidate=0.1,
            present=None,
            limit=1.0,
            passed=True,
            count=8,
        ),
    ),
    time=datetime(2026, 11, 22, 8, 15, 0, 123456, tzinfo=UTC),
)
JUDGED = Judged(candidate=CANDIDATE, fingerprint="d" * 64, reason=Reason.ACCURACY)
UNREAD = dataclasses.replace(CANDIDATE, versions=None, figures=())
FULL = State(
    generation=7,
    default=ENTRY,
    previous=OTHER,
    shadow=OTHER,
    shadow_share=0.25,
    pinned=(OTHER,),
    mode=ModeState(abstain_all=True, reason="lamp – broken"),
    candidates=(JUDGED, dataclasses.replace(JUDGED, candidate=UNREAD)),
    judged=("d" * 64,),
)


@pytest.fixture
def worker(tmp_path):
    """Makes the stores of workers that share a folder."""
    made = []

    def make(folder=tmp_path) -> FileStore:
        made.append(FileStore(folder))
        return made[-1]

    yield make
    for store in made:
        store.close()


def press(state: State) -> State:
    return dataclasses.replace(state, mode=ModeState(abstain_all=True))


@pytest.mark.parametrize("state", [State(), FULL])
def test_a_state_is_what_its_file_says(state):
    assert from_json(to_json(state)) == state


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format_version": 2}',
        to_json(FULL)[:-20],
        to_json(FULL).replace("pin", "pan"),
    ],
)
def test_a_damaged_state_file_is_refused_with_what_to_do(tmp_path, worker, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(ConfigError, match=r"state\.json cannot be used.*remove it to start"):
        worker().read()


@pytest.mark.parametrize("kept", ["memory", "folder"])
def test_the_number_counts_changes_of_models_and_mode_alone(worker, kept):
    store = MemoryStore() if kept == "memory" else worker()
    assert store.read().generation == 0
    assert store.change(press).generation == 1
    assert store.change(press).generation == 1
    assert store.change(lambda state: state.with_candidate(JUDGED)).generation == 1
    assert store.read().candidates == (JUDGED,)
    assert store.change(lambda s: dataclasses.replace(s, pinned=(ENTRY,))).generation == 2


def test_candidates_and_judged_bundles_are_remembered_within_bounds():
    state = State()
    for number in range(2000):
        fingerprint = f"{number:064}"
        state = state.with_candidate(dataclasses.replace(JUDGED, fingerprint=fingerprint))
    assert len(state.candidates) == 20
    assert state.candidates[0].fingerprint == state.judged[-1] == f"{1999:064}"
    assert len(state.judged) == 1000


def test_what_was_told_outlives_the_process_that_was_told(worker):
    worker().change(lambda _: dataclasses.replace(FULL, generation=0))
    assert worker().read() == dataclasses.replace(FULL, generation=1)


def test_no_change_is_lost_when_many_workers_change_at_once(tmp_path, worker):
    def count(store: FileStore) -> None:
        for _ in range(10):
            store.change(lambda s: dataclasses.replace(s, shadow_share=s.shadow_share + 1.0))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, [worker() for _ in range(4)]))
    assert worker().read().shadow_share == 40.0
    assert not list(tmp_path.glob(".state*"))


def test_workers_know_how_many_there_are_and_how_many_follow(tmp_path, worker):
    first, second = worker(), worker()
    assert first.workers(0) == (2, 0)
    first.acknowledge(3)
    second.acknowledge(2)
    assert second.workers(3) == (2, 1)
    assert second.workers(2) == (2, 2)
    second.close()
    assert first.workers(3) == (1, 1)
    assert not [path for path in tmp_path.glob("*worker*") if first._name not in path.name]


def test_one_worker_watches_and_the_next_takes_over(worker):
    first, second = worker(), worker()
    assert [first.leads(), second.leads(), first.leads()] == [True, False, True]
    first.close()
    assert second.leads()


async def test_changes_of_models_wait_for_each_other(worker):
    order = []

    async def change(store: FileStore, name: str) -> None:
        async with store.exclusive():
            order.append(name)
            await asyncio.sleep(0)
            order.append(name)

    await asyncio.gather(*(change(worker(), name) for name in "abc"))
    assert [order[0] == order[1], order[2] == order[3], order[4] == order[5]] == [True] * 3


def _live(folder, ready) -> None:
    store = FileStore(folder)
    store.acknowledge(1)
    assert store.leads()
    ready.set()
    signal.pause()


@pytest.mark.slow
def test_a_worker_that_was_killed_is_no_worker_and_watches_no_more(tmp_path, worker):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_live, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    store = worker()
    assert store.workers(1) == (2, 1)
    assert not store.leads()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert store.workers(1) == (1, 0)
    assert store.leads()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written.*IBINN_STATE_DIR"):
        FileStore(tmp_path / "file")


def test_a_folder_that_goes_away_changes_nothing_and_says_so(tmp_path, worker):
    store = worker(tmp_path / "state")
    store.change(press)
    for path in (tmp_path / "state").iterdir():
        path.unlink()
    (tmp_path / "state").rmdir()
    with pytest.raises(NotPossibleError, match="nothing was changed"):
        store.change(lambda state: dataclasses.replace(state, default=ENTRY))
    assert store.read().mode.abstain_all
