"""Laws of the watched folder: the newest bundle that passes is served, each content judged once."""

from __future__ import annotations

import pytest

from service.models.served import Served
from tests.service.models import scripted
from tests.service.models.scripted import Script, acceptance_set, flip_a_byte, managed, write
from tests.service.running import until

QUICK = {"watch_interval_s": 0.01}


async def looks(found, times: int = 6) -> None:
    """Waits until the folder was looked at some more times."""
    watch, seen = found.manager._watch, []
    look = watch.look

    def counted(judged):
        seen.append(judged)
        return look(judged)

    watch.look = counted
    await until(lambda: len(seen) >= times)
    watch.look = look


async def test_a_new_bundle_becomes_the_default(tmp_path):
    async with managed(tmp_path, **QUICK) as found:
        write(tmp_path / "models", "v2")
        await until(lambda: found.default == "v2")
        write(tmp_path / "models", "v3")
        await until(lambda: found.default == "v3")
        assert found.models.previous.bundle == "v2"
        await looks(found)
        assert found.candidates("accepted", "none") == 2


async def test_of_several_new_bundles_the_last_by_name_is_served_and_the_others_passed_over(
    tmp_path,
):
    for name in ("v2", "v4", "v3"):
        write(tmp_path / "models", name)
    async with managed(tmp_path, **QUICK) as found:
        await until(lambda: found.default != "initial")
        await looks(found)
        assert found.default == "v4"
        assert found.candidates("accepted", "none") == 1


async def test_where_the_last_one_fails_the_one_before_it_is_served(tmp_path):
    write(tmp_path / "models", "v2")
    write(tmp_path / "models", "v3", Script(name="v3", fault="load"))
    async with managed(tmp_path, **QUICK) as found:
        await until(lambda: found.default == "v2")
        assert found.candidates("refused", "format") == 1


async def test_a_refused_bundle_is_tried_again_only_when_it_changed(tmp_path):
    (tmp_path / "models").mkdir()
    broken = write(tmp_path / "models", "v2") / "weights.safetensors"
    flip_a_byte(broken)
    async with managed(tmp_path, **QUICK) as found:
        await until(lambda: found.candidates("refused", "integrity") == 1)
        await looks(found)
        assert found.candidates("refused", "integrity") == 1
        flip_a_byte(broken)
        await until(lambda: found.default == "v2")


async def test_what_was_judged_stays_judged_over_a_restart(tmp_path):
    changes = {**QUICK, "state_dir": tmp_path / "state"}
    flip_a_byte(write(tmp_path / "models", "v3") / "weights.safetensors")
    async with managed(tmp_path, **changes) as found:
        await until(lambda: found.candidates("refused", "integrity") == 1)
        write(tmp_path / "models", "v2")
        await until(lambda: found.default == "v2")
        await found.manager.rollback()
    async with managed(tmp_path, **changes) as found:
        await looks(found)
        assert found.default == "initial"
        assert found.candidates("refused", "integrity") == 0
        assert [c.bundle for c in (await found.manager.state()).candidates] == ["v2", "v3"]


async def test_whoever_starts_with_one_of_several_bundles_gets_none_of_the_older_ones(tmp_path):
    for name in ("v1", "v2"):
        write(tmp_path / "models", name)
    bundle = tmp_path / "models" / "v2"
    served = Served.of(scripted.load(bundle))
    async with managed(tmp_path, served=served, bundle=bundle, **QUICK) as found:
        await looks(found)
        assert found.default == "v2"
        write(tmp_path / "models", "a-hotfix")
        await until(lambda: found.default == "a-hotfix")


async def test_a_broken_acceptance_set_is_said_once_and_the_bundle_waits_for_it(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("service.models.manager._REST_S", 0.01)
    folder = acceptance_set(tmp_path / "acceptance")
    async with managed(tmp_path, acceptance=folder, **QUICK) as found:
        (folder / "cat").rename(folder / "hat")
        write(tmp_path / "models", "v2")
        await until(lambda: "'hat', which no model here knows" in caplog.text)
        await looks(found)
        assert caplog.text.count("'hat', which no model here knows") == 1
        (folder / "hat").rename(folder / "cat")
        await until(lambda: found.default == "v2")


@pytest.mark.parametrize("name", ["v2.tmp", ".v2"])
async def test_unfinished_bundles_are_left_alone_until_they_are_renamed(tmp_path, name):
    async with managed(tmp_path, **QUICK) as found:
        unfinished = write(tmp_path / "models", name)
        await looks(found)
        assert found.default == "initial"
        unfinished.rename(tmp_path / "models" / "v2")
        await until(lambda: found.default == "v2")
