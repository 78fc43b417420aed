"""Contract of AdminService, over a real connection: what an operator is told, and when."""

from __future__ import annotations

import asyncio
import gc
import weakref

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, PreconditionFailure
from grpc_status import rpc_status

from ibinn.v1 import admin_service_pb2 as admin
from ibinn.v1 import answer_pb2, model_pb2
from ibinn.v1 import classification_service_pb2 as service
from service.models.served import Served
from tests.service.administered import administered
from tests.service.models import scripted
from tests.service.models.scripted import Script, acceptance_set, write
from tests.service.running import until


async def refusal(call) -> tuple[grpc.StatusCode, str, list[str]]:
    """Status, reason and every single reason of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    status = rpc_status.from_call(raised.value)
    reason, violations = "", []
    for detail in status.details:
        info, failure = ErrorInfo(), PreconditionFailure()
        if detail.Unpack(info):
            reason = info.reason
        if detail.Unpack(failure):
            violations = [violation.description for violation in failure.violations]
    return raised.value.code(), reason, violations


def roles(served) -> list[tuple[str, int]]:
    return [(model.bundle, model.role) for model in served]


async def test_a_reload_is_told_with_candidate_figures_and_state(tmp_path):
    folder = acceptance_set(tmp_path / "acceptance")
    async with administered(tmp_path, acceptance=folder) as found:
        write(found.models, "v2")
        response = await found.admin.Reload(admin.ReloadRequest(bundle="v2"))
        assert response.candidate.accepted
        assert response.candidate.bundle == "v2"
        assert [figure.name for figure in response.candidate.figures] == [
            "accuracy",
            "top_label_ece",
            "false_positive_rate",
        ]
        accuracy = response.candidate.figures[0]
        assert (accuracy.candidate, accuracy.present, accuracy.count) == (1.0, 1.0, 60)
        assert accuracy.limit == pytest.approx(0.99)
        assert accuracy.passed
        assert response.candidate.time.seconds > 0
        assert roles(response.state.served) == [
            ("v2", model_pb2.MODEL_ROLE_DEFAULT),
            ("initial", model_pb2.MODEL_ROLE_PREVIOUS),
        ]
        assert response.state.mode == model_pb2.MODE_NORMAL
        assert (response.state.generation, response.state.workers) == (1, 1)
        answer = await found.classify()
        assert answer.versions.weights == response.candidate.versions.weights


async def test_a_refused_candidate_is_a_failed_precondition_with_every_reason(tmp_path):
    folder = acceptance_set(tmp_path / "acceptance")
    async with administered(tmp_path, acceptance=folder) as found:
        before = await found.classify()
        write(found.models, "bad", Script(name="bad", wrong=9, flagged=9))
        code, reason, reasons = await refusal(found.admin.Reload(admin.ReloadRequest(bundle="bad")))
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CANDIDATE_REFUSED")
        assert any("accuracy is 0.5500 on 60 acceptance images" in text for text in reasons)
        assert any("false-positive rate is 0.4500" in text for text in reasons)
        assert (await found.classify()).versions == before.versions
        told = (await found.status()).candidates[0]
        assert (told.bundle, told.accepted, list(told.reasons)) == ("bad", False, reasons)


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (admin.ReloadRequest(bundle="v9"), grpc.StatusCode.NOT_FOUND, "MODEL_UNKNOWN"),
        (admin.ReloadRequest(bundle="../v"), grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID"),
        (admin.ReloadRequest(), grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID"),
    ],
)
async def test_a_bundle_that_is_not_there_or_no_name_is_refused(tmp_path, request_, code, reason):
    async with administered(tmp_path) as found:
        assert (await refusal(found.admin.Reload(request_)))[:2] == (code, reason)


async def test_without_a_previous_model_a_rollback_is_a_failed_precondition(tmp_path):
    async with administered(tmp_path) as found:
        code, reason, _ = await refusal(found.admin.Rollback(admin.RollbackRequest()))
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_POSSIBLE")
        write(found.models, "v2")
        await found.admin.Reload(admin.ReloadRequest(bundle="v2"))
        response = await found.admin.Rollback(admin.RollbackRequest())
        assert [model.bundle for model in response.state.served] == ["initial", "v2"]


async def test_a_pinned_model_answers_calls_that_name_it_and_get_model_lists_it(tmp_path):
    async with administered(tmp_path) as found:
        write(found.models, "v2")
        request = admin.ReloadRequest(bundle="v2", keep_default=True)
        pinned = (await found.admin.Reload(request)).candidate.versions.weights
        default = (await found.classify()).versions.weights
        assert default != pinned
        assert (await found.classify(model=pinned[:8])).versions.weights == pinned
        told = await found.classification.GetModel(service.GetModelRequest())
        assert told.model.versions.weights == default
        assert roles(told.served) == [
            ("initial", model_pb2.MODEL_ROLE_DEFAULT),
            ("v2", model_pb2.MODEL_ROLE_PINNED),
        ]
        assert told.mode == model_pb2.MODE_NORMAL


async def test_the_stop_button_defers_every_answer_until_it_is_released(tmp_path):
    async with administered(tmp_path) as found:
        free = await found.classify()
        request = admin.SetModeRequest(mode=model_pb2.MODE_ABSTAIN_ALL, reason="lamp broken")
        state = (await found.admin.SetMode(request)).state
        assert (state.mode, state.mode_reason) == (model_pb2.MODE_ABSTAIN_ALL, "lamp broken")
        stopped = await found.classify()
        assert stopped.decision.action == answer_pb2.ACTION_DEFER
        assert stopped.decision.rule == "abstain_all"
        assert "lamp broken" in stopped.decision.reason
        assert stopped.classes == free.classes
        told = await found.classification.GetModel(service.GetModelRequest())
        assert told.mode == model_pb2.MODE_ABSTAIN_ALL
        await found.admin.SetMode(admin.SetModeRequest(mode=model_pb2.MODE_NORMAL))
        assert (await found.classify()).decision == free.decision


async def test_a_shadow_hears_of_live_answers_and_its_differences_are_told(tmp_path):
    async with administered(tmp_path) as found:
        write(found.models, "v2", Script(name="v2", wrong=256, flagged=256))
        request = admin.SetShadowRequest(bundle="v2", share=1.0)
        state = (await found.admin.SetShadow(request)).state
        assert (state.shadow.model.bundle, state.shadow.share) == ("v2", 1.0)
        for _ in range(3):
            assert not (await found.classify()).HasField("decision")
        await found.server.manager._arrangement.shadow.until_idle()
        shadow = (await found.status()).shadow
        assert (shadow.compared, shadow.class_differs, shadow.verdict_differs) == (3, 3, 3)
        assert shadow.mean_confidence_difference == pytest.approx(0.85)
        state = (await found.admin.SetShadow(admin.SetShadowRequest())).state
        assert not state.HasField("shadow")


async def test_a_model_in_use_is_usable_to_the_end_though_others_replaced_it(tmp_path):
    async with administered(tmp_path) as found:
        served: Served = found.server.predictor.model()
        for name in ("v2", "v3", "v4"):
            write(found.models, name)
            await found.admin.Reload(admin.ReloadRequest(bundle=name))
        answer = await found.server.predictor.in_background(served, scripted.image(), patience_s=30)
        assert answer.versions == served.info.versions


async def test_a_model_that_callers_asked_leaves_memory_when_it_is_replaced(tmp_path):
    async with administered(tmp_path) as found:
        gone = weakref.ref(found.server.predictor.model().classifier)
        await asyncio.gather(*(found.classify() for _ in range(8)))
        for name in ("v2", "v3"):
            write(found.models, name)
            await found.admin.Reload(admin.ReloadRequest(bundle=name))
            await asyncio.gather(*(found.classify() for _ in range(8)))
        gc.collect()
        assert gone() is None


async def test_reloads_under_load_fail_no_call_and_no_answer_mixes_two_models(tmp_path):
    confidences = {name: 0.5 + 0.05 * number for number, name in enumerate(("v2", "v3", "v4"))}
    async with administered(tmp_path, max_batch_size=4) as found:
        told = {(await found.classify()).versions.weights: 0.9}
        answers, stop = [], asyncio.Event()

        async def call() -> None:
            while not stop.is_set():
                answers.append(await found.classify())

        async with asyncio.TaskGroup() as callers:  # a call that fails would end it
            for _ in range(8):
                callers.create_task(call())
            for name, confidence in confidences.items():
                write(found.models, name, Script(name=name, confidence=confidence))
                response = await found.admin.Reload(admin.ReloadRequest(bundle=name))
                told[response.candidate.versions.weights] = confidence
                write(found.models, "bad", Script(name=name, fault="load"))
                await refusal(found.admin.Reload(admin.ReloadRequest(bundle="bad")))
            await until(lambda: {answer.versions.weights for answer in answers} == set(told))
            stop.set()
        for answer in answers:
            assert answer.classes[0].probability == pytest.approx(told[answer.versions.weights])
