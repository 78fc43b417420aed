"""Laws of several workers with one state: what one is told all follow, also after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from ibinn import manifest
from ibinn.errors import CandidateRefusedError, ConfigError
from service.models.manager import ModelManager
from service.models.registry import Models
from service.models.served import Served
from service.monitoring import Monitor
from tests.service.models import scripted
from tests.service.models.scripted import (
    Managed,
    Script,
    acceptance_set,
    flip_a_byte,
    managed,
    write,
)
from tests.service.running import settings, until


def bundles(found: Managed) -> dict[str, str]:
    return {served.bundle: role.value for served, role in found.models.served()}


@contextlib.asynccontextmanager
async def workers(tmp_path, count: int = 2, **changes):
    changes = {"state_dir": tmp_path / "state", **changes}
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(managed(tmp_path, **changes)) for _ in range(count)]


@contextlib.asynccontextmanager
async def restarted(tmp_path, **changes):
    """A server that starts as a real one does: by the folder that the manager names."""
    changes = {"state_dir": tmp_path / "state", **changes}
    served: list[Served] = []
    folder = write(tmp_path / "elsewhere", "initial", Script())
    changes = {"bundle": folder, **changes}

    async def start(manager: ModelManager, _: Served) -> None:
        found = manager.initial_folder()
        served.append(Served.of(scripted.load(found), bundle=found.name))
        await original(manager, served[0])

    original = ModelManager.start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelManager, "start", start)
        async with managed(tmp_path, **changes) as found:
            yield found


async def test_when_a_change_returns_every_worker_follows_it(tmp_path):
    async with workers(tmp_path, 3) as (first, second, third):
        write(tmp_path / "models", "v2")
        await first.manager.reload("v2")
        for worker in (first, second, third):
            assert bundles(worker) == {"v2": "default", "initial": "previous"}
        await second.manager.set_mode(abstain_all=True, reason="stop")
        assert all(worker.models.mode.abstain_all for worker in (first, second, third))
        await third.manager.rollback()
        for worker in (first, second, third):
            assert bundles(worker) == {"initial": "default", "v2": "previous"}
            state = await worker.manager.state()
            assert (state.generation, state.workers, state.workers_agreeing) == (3, 3, 3)


async def test_shadow_and_pinned_models_reach_every_worker(tmp_path):
    async with workers(tmp_path, max_models=4) as (first, second):
        for name in ("v2", "v3"):
            write(tmp_path / "models", name)
        await first.manager.set_shadow("v2", share=0.5)
        await second.manager.reload("v3", keep_default=True)
        for worker in (first, second):
            assert bundles(worker) == {"initial": "default", "v2": "shadow", "v3": "pinned"}
            assert (await worker.manager.state()).shadow.share == 0.5


async def test_a_candidate_is_judged_by_one_worker_and_told_by_all(tmp_path):
    folder = acceptance_set(tmp_path / "acceptance")
    async with workers(tmp_path, acceptance=folder) as (first, second):
        write(tmp_path / "models", "bad", Script(name="bad", wrong=9))
        with pytest.raises(CandidateRefusedError):
            await first.manager.reload("bad")
        await until(lambda: second.manager._arrangement.state.candidates != ())
        told = [(await worker.manager.state()).candidates for worker in (first, second)]
        assert told[0] == told[1]
        assert second.candidates("refused", "accuracy") == 0
        assert bundles(second) == {"initial": "default"}


async def test_one_worker_alone_acts_on_a_new_bundle(tmp_path):
    async with workers(tmp_path, 3, watch_interval_s=0.01) as found:
        write(tmp_path / "models", "v2")
        await until(lambda: all(worker.default == "v2" for worker in found))
        assert sum(worker.candidates("accepted", "none") for worker in found) == 1


async def test_changes_told_to_different_workers_at_once_come_one_after_the_other(tmp_path):
    async with workers(tmp_path, 3, max_models=9) as found:
        names = [f"v{number}" for number in range(3)]
        for name in names:
            write(tmp_path / "models", name)
        await asyncio.gather(
            *(worker.manager.reload(name) for worker, name in zip(found, names, strict=True))
        )
        held = [bundles(worker) for worker in found]
        assert held[0] == held[1] == held[2]
        assert sorted(held[0].values()) == ["default", "previous"]
        assert (await found[0].manager.state()).generation == 3


async def test_a_worker_that_cannot_follow_keeps_its_model_and_is_counted(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("service.models.manager._AGREEMENT_S", 0.3)
    async with workers(tmp_path) as (first, second):

        def broken(_):
            raise RuntimeError("no memory on this device")

        second.manager._checks._load = broken
        write(tmp_path / "models", "v2")
        await first.manager.reload("v2")
        state = await first.manager.state()
        assert (state.workers, state.workers_agreeing) == (2, 1)
        assert (first.default, second.default) == ("v2", "initial")
        assert "bundle 'v2', approved for all workers, cannot be loaded by this one" in caplog.text
        assert "1 of 2 workers follow generation 1" in caplog.text


async def test_a_worker_that_starts_late_serves_what_the_others_serve(tmp_path):
    async with workers(tmp_path, 1) as (first,):
        for name in ("v2", "v3"):
            write(tmp_path / "models", name)
            await first.manager.reload(name)
        await first.manager.set_mode(abstain_all=True, reason="stop")
        async with restarted(tmp_path) as second:
            assert second.default == "v3"
            assert second.models.mode.abstain_all
            await until(lambda: bundles(second) == {"v3": "default", "v2": "previous"})
        await first.manager.set_mode(abstain_all=False)
        assert (await first.manager.state()).workers == 1


async def test_a_restart_honours_default_previous_and_stop_button(tmp_path):
    async with restarted(tmp_path) as found:
        assert found.default == "initial"
        write(tmp_path / "models", "v2")
        await found.manager.reload("v2")
        await found.manager.set_mode(abstain_all=True, reason="lamp")
    async with restarted(tmp_path) as found:
        assert found.models.mode.reason == "lamp"
        await until(lambda: bundles(found) == {"v2": "default", "initial": "previous"})
        await found.manager.rollback()
    async with restarted(tmp_path) as found:
        await until(lambda: bundles(found) == {"initial": "default", "v2": "previous"})


async def test_a_server_does_not_start_without_the_model_that_operators_chose(tmp_path):
    async with restarted(tmp_path) as found:
        folder = write(tmp_path / "models", "v2")
        await found.manager.reload("v2")
    flip_a_byte(folder / "weights.safetensors")
    with pytest.raises(ConfigError, match=r"was changed since it was checked.*remove state\.json"):
        async with restarted(tmp_path):
            pass
    folder.rename(tmp_path / "models" / "gone")
    with pytest.raises(ConfigError, match=r"'v2' is in use and is gone.*remove state\.json"):
        async with restarted(tmp_path):
            pass
    (tmp_path / "state" / "state.json").unlink()
    async with restarted(tmp_path) as found:
        assert found.default == "initial"


async def test_a_previous_model_that_is_gone_is_missed_only_by_a_rollback(tmp_path, caplog):
    async with restarted(tmp_path) as found:
        for name in ("v2", "v3"):
            write(tmp_path / "models", name)
            await found.manager.reload(name)
    (tmp_path / "models" / "v2").rename(tmp_path / "v2")
    async with restarted(tmp_path) as found:
        await until(lambda: "bundle 'v2', approved for all workers, cannot be" in caplog.text)
        with pytest.raises(Exception, match="'v2' cannot be loaded, see the log"):
            await found.manager.rollback()
        await found.manager.set_mode(abstain_all=True)
        state = await found.manager.state()
        assert (found.default, state.workers_agreeing) == ("v3", 1)


async def test_settings_with_another_bundle_win_over_a_rollback_to_the_old_one(tmp_path):
    async with restarted(tmp_path) as found:
        write(tmp_path / "models", "v2")
        await found.manager.reload("v2")
        await found.manager.rollback()
    other = write(tmp_path / "elsewhere", "other", Script(name="another"))
    async with restarted(tmp_path, bundle=other) as found:
        await until(lambda: bundles(found) == {"other": "default", "v2": "previous"})
    async with restarted(tmp_path) as found:
        await until(lambda: bundles(found) == {"initial": "default", "v2": "previous"})


def test_a_server_does_not_start_from_a_damaged_state(tmp_path):
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be used"):
        ModelManager(
            settings(state_dir=tmp_path),
            models=Models(),
            load=scripted.load,
            verify=manifest.verify,
            background=scripted.in_background,
            monitor=Monitor(),
        )
    assert not list(tmp_path.glob("worker*"))


async def test_a_change_is_followed_whichever_of_two_changes_is_followed_first(tmp_path):
    async with managed(tmp_path) as found:
        write(tmp_path / "models", "v2")
        arrangement, store = found.manager._arrangement, found.manager._store
        change, entered, gate = store.change, threading.Event(), threading.Event()

        def late(how):
            state = change(how)
            if state.default is not None and not state.mode.abstain_all:
                entered.set()
                gate.wait(60)
            return state

        store.change = late
        reload = asyncio.create_task(found.manager.reload("v2"))
        await until(entered.is_set)
        await found.manager.set_mode(abstain_all=True)
        assert (found.default, arrangement.state.generation) == ("v2", 2)
        gate.set()
        await reload
        assert (found.default, found.models.mode.abstain_all) == ("v2", True)
        assert found.models.default.classifier.batch_sizes == [1, 32]


async def test_the_stop_button_reaches_a_worker_that_is_busy_with_a_reload(tmp_path):
    entered, gate = threading.Event(), threading.Event()

    def load(bundle):
        entered.set()
        gate.wait(60)
        return scripted.load(bundle)

    async with workers(tmp_path) as (first, second):
        write(tmp_path / "models", "v2")
        second.manager._checks._load = load
        reload = asyncio.create_task(second.manager.reload("v2"))
        await until(entered.is_set)
        await first.manager.set_mode(abstain_all=True)
        assert second.models.mode.abstain_all
        assert (await first.manager.state()).workers_agreeing == 2
        gate.set()
        await reload
        assert (first.default, second.default) == ("v2", "v2")
