"""Laws of what operators can do: what passes is served, what fails changes nothing and says why."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import threading
import weakref

import pytest

from ibinn.errors import (
    BundleSignatureError,
    CandidateRefusedError,
    ConfigError,
    NotPossibleError,
    UnknownModelError,
)
from ibinn.serving import ModelRole
from ibinn.types import Action
from service.models import mode
from tests.service.models import scripted
from tests.service.models.scripted import Script, acceptance_set, flip_a_byte, managed, write
from tests.service.running import until

MARGINS = {"accuracy_margin": 0.1, "calibration_margin": 0.2, "false_positive_margin": 0.05}


def roles(found) -> dict[str, str]:
    return {served.bundle: role.value for served, role in found.models.served()}


async def test_a_bundle_that_passes_becomes_the_default_and_the_old_one_the_previous(tmp_path):
    async with managed(tmp_path) as found:
        write(tmp_path / "models", "v2")
        candidate = await found.manager.reload("v2")
        state = await found.manager.state()
    assert candidate.accepted
    assert candidate.versions == found.models.default.info.versions
    assert roles(found) == {"v2": "default", "initial": "previous"}
    assert state.candidates == (candidate,)
    assert (state.generation, state.workers, state.workers_agreeing) == (1, 1, 1)
    assert found.candidates("accepted", "none") == 1


async def test_a_candidate_is_warm_at_both_batch_sizes_before_it_answers(tmp_path):
    async with managed(tmp_path, max_batch_size=7) as found:
        write(tmp_path / "models", "v2")
        await found.manager.reload("v2")
        assert found.models.default.classifier.batch_sizes == [1, 7]


def faulty(tmp_path, fault: str) -> dict:
    """A bundle ``bad`` with a fault, and the settings under which it is one."""
    models, script = tmp_path / "models", Script(name="bad")
    match fault:
        case "integrity":
            flip_a_byte(write(models, "bad") / "weights.safetensors")
        case "format":
            write(models, "bad", dataclasses.replace(script, fault="load"))
        case "warm_up":
            write(models, "bad", dataclasses.replace(script, fault="assess"))
        case "accuracy":
            write(models, "bad", dataclasses.replace(script, wrong=3))
        case "calibration":
            write(models, "bad", dataclasses.replace(script, confidence=0.6))
        case "false_positives":
            write(models, "bad", dataclasses.replace(script, flagged=2))
    return {"acceptance": acceptance_set(tmp_path / "acceptance"), **MARGINS}


WORDS = {
    "integrity": "weights.safetensors has sha256",
    "format": "it failed with RuntimeError (tensors do not fit)",
    "warm_up": "it failed with RuntimeError (shapes do not match)",
    "accuracy": "accuracy is 0.8500 on 60 acceptance images, the present model has 1.0000, "
    "expected is at least 0.9000 (IBINN_ACCURACY_MARGIN)",
    "calibration": "top-label calibration error is 0.4000 on 60 acceptance images, the present "
    "model has 0.1000, expected is at most 0.3000 (IBINN_CALIBRATION_MARGIN)",
    "false_positives": "false-positive rate is 0.1000 on 60 acceptance images, the present model "
    "has 0.0000, expected is at most 0.0500 (IBINN_FALSE_POSITIVE_MARGIN)",
}


@pytest.mark.parametrize("fault", WORDS)
async def test_a_candidate_that_fails_is_refused_in_answer_log_and_metric(tmp_path, fault, caplog):
    (tmp_path / "models").mkdir()
    changes = faulty(tmp_path, fault)
    async with managed(tmp_path, **changes) as found:
        present = found.models.default
        with pytest.raises(CandidateRefusedError, match="bundle 'bad' is refused") as raised:
            await found.manager.reload("bad")
        assert any(WORDS[fault] in reason for reason in raised.value.reasons)
        assert found.candidates("refused", fault) == 1
        entries = [r for r in caplog.records if "refused" in r.message]
        assert len(entries) == 1
        assert fault in entries[0].message
        assert WORDS[fault] in entries[0].message
        assert found.models.served() == ((present, ModelRole.DEFAULT),)
        state = await found.manager.state()
        assert not state.candidates[0].accepted
        assert state.candidates[0].reasons == raised.value.reasons
        assert state.generation == 0


async def test_every_figure_that_fails_is_a_reason(tmp_path):
    async with managed(tmp_path, acceptance=acceptance_set(tmp_path / "a"), **MARGINS) as found:
        write(tmp_path / "models", "bad", Script(name="bad", wrong=10, flagged=10))
        with pytest.raises(CandidateRefusedError) as raised:
            await found.manager.reload("bad")
        assert len(raised.value.reasons) == 3
        assert len((await found.manager.state()).candidates[0].figures) == 3
        assert found.candidates("refused", "accuracy") == 1


async def test_a_bundle_without_the_signature_that_is_required_is_refused(tmp_path):
    def verify(_):
        raise BundleSignatureError("bundle is not signed by a trusted key")

    async with managed(tmp_path) as found:
        write(tmp_path / "models", "v2")
        found.manager._checks._verify = verify
        with pytest.raises(CandidateRefusedError, match="not signed by a trusted key"):
            await found.manager.reload("v2")
        assert found.candidates("refused", "signature") == 1
        assert found.default == "initial"


async def test_a_bundle_that_changes_while_it_is_loaded_is_refused(tmp_path):
    def load(bundle):
        flip_a_byte(bundle / "weights.safetensors", 10)
        return classifier

    async with managed(tmp_path) as found:
        classifier = scripted.load(write(tmp_path / "models", "v2"))
        found.manager._checks._load = load
        with pytest.raises(CandidateRefusedError, match="changed while it was loaded"):
            await found.manager.reload("v2")
        assert found.candidates("refused", "integrity") == 1


async def test_an_acceptance_set_that_breaks_stops_reloads_but_blames_no_bundle(tmp_path):
    folder = acceptance_set(tmp_path / "acceptance")
    async with managed(tmp_path, acceptance=folder) as found:
        write(tmp_path / "models", "v2")
        (folder / "cat").rename(folder / "hat")
        with pytest.raises(NotPossibleError, match="class 'hat', which no model here knows"):
            await found.manager.reload("v2")
        assert found.default == "initial"
        (folder / "hat").rename(folder / "cat")
        await found.manager.reload("v2")
        assert found.default == "v2"


async def test_a_server_does_not_start_with_an_acceptance_set_that_judges_nothing(tmp_path):
    (tmp_path / "acceptance").mkdir()
    with pytest.raises(ConfigError, match="holds no images"):
        async with managed(tmp_path, acceptance=tmp_path / "acceptance"):
            pass


async def test_an_acceptance_set_too_small_for_its_margins_is_warned_of(tmp_path, caplog):
    folder = acceptance_set(tmp_path / "acceptance")
    async with managed(tmp_path, acceptance=folder):
        assert "one image moves its figures by 0.0167" in caplog.text


async def test_an_unknown_bundle_or_no_models_folder_is_told(tmp_path):
    async with managed(tmp_path) as found:
        with pytest.raises(UnknownModelError, match="there is no bundle 'v9'"):
            await found.manager.reload("v9")
    async with managed(tmp_path, models=None) as found:
        with pytest.raises(NotPossibleError, match="no models folder"):
            await found.manager.reload("v9")


async def test_a_rollback_returns_and_a_second_one_takes_it_back(tmp_path):
    async with managed(tmp_path) as found:
        with pytest.raises(NotPossibleError, match="no previous model"):
            await found.manager.rollback()
        write(tmp_path / "models", "v2")
        await found.manager.reload("v2")
        for default, previous in (("initial", "v2"), ("v2", "initial")):
            await found.manager.rollback()
            assert roles(found) == {default: "default", previous: "previous"}


async def test_a_bundle_can_be_loaded_to_be_asked_by_its_digest_alone(tmp_path):
    async with managed(tmp_path) as found:
        write(tmp_path / "models", "v2")
        candidate = await found.manager.reload("v2", keep_default=True)
        assert roles(found) == {"initial": "default", "v2": "pinned"}
        assert found.models.resolve(candidate.versions.weights[:8]).bundle == "v2"
        pinned = found.models.resolve(candidate.versions.weights)
        await found.manager.reload("v2")
        assert found.models.default is pinned
        assert roles(found) == {"v2": "default", "initial": "previous"}


async def test_the_least_recently_asked_pinned_model_makes_room(tmp_path):
    async with managed(tmp_path, max_models=3) as found:
        for name in ("v2", "v3", "v4"):
            write(tmp_path / "models", name)
        for name in ("v2", "v3"):
            await found.manager.reload(name, keep_default=True)
        found.models.resolve(found.models.pinned[0].digest)
        await found.manager.reload("v4", keep_default=True)
        assert roles(found) == {"initial": "default", "v2": "pinned", "v4": "pinned"}


async def test_where_nothing_can_make_room_the_candidate_is_refused(tmp_path):
    async with managed(tmp_path, max_models=2) as found:
        for name in ("v2", "v3"):
            write(tmp_path / "models", name)
        await found.manager.reload("v2")
        with pytest.raises(CandidateRefusedError, match=r"2 models.*default, previous.*MAX_MODELS"):
            await found.manager.reload("v3")
        assert found.candidates("refused", "memory") == 1
        assert roles(found) == {"v2": "default", "initial": "previous"}


async def test_models_that_are_served_no_more_leave_memory(tmp_path):
    async with managed(tmp_path) as found:
        gone = weakref.ref(found.models.default.classifier)
        for name in ("v2", "v3"):
            write(tmp_path / "models", name)
            await found.manager.reload(name)
        write(tmp_path / "models", "bad", Script(name="bad", fault="silent"))
        with pytest.raises(CandidateRefusedError):
            await found.manager.reload("bad")
        gc.collect()
        assert gone() is None
        alive = [o for o in gc.get_objects() if type(o) is scripted.ScriptedClassifier]
        assert {one.info.name for one in alive} == {"v2", "v3"}


async def test_a_reload_that_is_cancelled_leaves_no_trace(tmp_path):
    gate = threading.Event()
    entered = threading.Event()

    def load(bundle):
        entered.set()
        gate.wait(60)
        return scripted.load(bundle)

    async with managed(tmp_path) as found:
        write(tmp_path / "models", "v2")
        found.manager._checks._load = load
        reload = asyncio.create_task(found.manager.reload("v2"))
        await until(entered.is_set)
        reload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reload
        gate.set()
        state = await found.manager.state()
        assert (state.generation, state.candidates) == (0, ())
        assert roles(found) == {"initial": "default"}
        await found.manager.reload("v2")
        assert found.default == "v2"


async def test_the_stop_button_does_not_wait_for_a_reload(tmp_path):
    gate, entered = threading.Event(), threading.Event()

    def load(bundle):
        entered.set()
        gate.wait(60)
        return scripted.load(bundle)

    async with managed(tmp_path) as found:
        write(tmp_path / "models", "v2")
        found.manager._checks._load = load
        reload = asyncio.create_task(found.manager.reload("v2"))
        await until(entered.is_set)
        await found.manager.set_mode(abstain_all=True, reason="lamp broken")
        assert found.models.mode.abstain_all
        gate.set()
        await reload
        assert (found.default, found.models.mode.abstain_all) == ("v2", True)
        assert found.monitor.registry.get_sample_value("ibinn_abstaining") == 1
        answer = await scripted.in_background(found.models.default, scripted.image(), patience_s=1)
        assert mode.apply(found.models.mode, answer).decision.action is Action.DEFER
        await found.manager.set_mode(abstain_all=False)
        assert mode.apply(found.models.mode, answer) is answer


async def test_a_shadow_answers_what_the_default_model_answered_and_ends_on_request(tmp_path):
    async with managed(tmp_path) as found:
        write(tmp_path / "models", "v2", Script(name="v2", wrong=256, flagged=256))
        await found.manager.set_shadow("v2", share=1.0)
        assert roles(found) == {"initial": "default", "v2": "shadow"}
        default, shadow = (served for served, _ in found.models.served())
        answer = await scripted.in_background(default, scripted.image(), patience_s=1)
        found.manager.observe(scripted.image(), default, answer)
        found.manager.observe(scripted.image(), shadow, answer)
        await found.manager._arrangement.shadow.until_idle()
        state = (await found.manager.state()).shadow
        assert (state.model.bundle, state.share, state.compared) == ("v2", 1.0, 1)
        assert (state.class_differs, state.verdict_differs) == (1, 1)
        await found.manager.set_shadow("")
        assert (await found.manager.state()).shadow is None
        assert roles(found) == {"initial": "default"}


async def test_a_shadow_has_the_settings_share_where_none_is_given(tmp_path):
    async with managed(tmp_path, shadow_share=0.125) as found:
        write(tmp_path / "models", "v2")
        await found.manager.set_shadow("v2")
        assert (await found.manager.state()).shadow.share == 0.125


async def test_a_shadow_that_becomes_the_default_is_a_shadow_no_more(tmp_path):
    async with managed(tmp_path) as found:
        write(tmp_path / "models", "v2")
        await found.manager.set_shadow("v2")
        shadow = found.models.shadow
        await found.manager.reload("v2")
        assert found.models.default is shadow
        assert (await found.manager.state()).shadow is None
        with pytest.raises(NotPossibleError, match="is the default model"):
            await found.manager.set_shadow("v2")


async def test_changes_come_one_after_the_other(tmp_path):
    async with managed(tmp_path, max_models=9) as found:
        names = [f"v{number}" for number in range(4)]
        for name in names:
            write(tmp_path / "models", name)
        await asyncio.gather(*map(found.manager.reload, names))
        assert roles(found) == {"v3": "default", "v2": "previous"}
        assert (await found.manager.state()).generation == 4


async def test_the_same_content_under_another_name_is_served_under_that_name(tmp_path):
    async with managed(tmp_path) as found:
        for name in ("v2", "v3"):
            write(tmp_path / "models", name, Script(name="same"), name="same")
        for name in ("v2", "v3"):
            await found.manager.reload(name)
        assert roles(found) == {"v3": "default", "v2": "previous"}
