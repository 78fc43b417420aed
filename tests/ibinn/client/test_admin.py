"""What an operator tells a server reaches it, and what the server says comes back whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import PreconditionFailure

from ibinn import errors
from ibinn import serving as held
from ibinn.client import AdminClient, AsyncClient, Retry
from ibinn.types import Guarantee, Versions
from ibinn.v1 import admin_service_pb2 as admin
from ibinn.v1 import classification_service_pb2 as service
from ibinn.v1 import model_pb2 as model
from tests.ibinn.client.fake import Code, Fail, Fake, serving

QUICK = Retry(base_s=0.001, max_s=0.002)
VERSIONS = Versions(weights="a" * 64, calibration="b", policy="c", taxonomy="1", software="0.1")
TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STATE = held.ServerState(
    served=(
        held.ServedModel(
            name="m", versions=VERSIONS, role=held.ModelRole.DEFAULT, bundle="2026-01"
        ),
    ),
    mode=held.Mode.ABSTAIN_ALL,
    mode_reason="drift",
    shadow=held.Shadow(
        model=held.ServedModel(
            name="s", versions=VERSIONS, role=held.ModelRole.SHADOW, bundle="2026-02"
        ),
        share=0.25,
        compared=10,
        class_differs=2,
        verdict_differs=1,
        mean_confidence_difference=0.125,
        skipped=3,
    ),
    candidates=(
        held.Candidate(
            bundle="2026-03",
            versions=None,
            accepted=False,
            reasons=("not readable",),
            figures=(
                held.AcceptanceFigure(
                    name="accuracy", candidate=0.5, present=None, limit=0.75, passed=False, count=8
                ),
            ),
            time=TIME,
        ),
    ),
    generation=7,
    workers=2,
    workers_agreeing=1,
    drift=held.Drift(
        guarantee=Guarantee.SUSPENDED,
        reason="the p-values drift",
        since=TIME,
        detectors=(
            held.Detector(
                name="p_values", count=1200, log_evidence=6.5, log_threshold=4.1, alarmed=True
            ),
        ),
    ),
    records=held.RecordsState(
        audit="best_effort", database="sqlite:///records.db", reachable=False, waiting=3, dropped=2
    ),
)


def state_message() -> admin.ServerState:
    versions = {
        name: getattr(VERSIONS, name)
        for name in ("weights", "calibration", "policy", "taxonomy", "software")
    }
    time = Timestamp()
    time.FromDatetime(TIME)
    return admin.ServerState(
        served=[{"name": "m", "versions": versions, "role": 1, "bundle": "2026-01"}],
        mode=model.MODE_ABSTAIN_ALL,
        mode_reason="drift",
        shadow={
            "model": {"name": "s", "versions": versions, "role": 3, "bundle": "2026-02"},
            "share": 0.25,
            "compared": 10,
            "class_differs": 2,
            "verdict_differs": 1,
            "mean_confidence_difference": 0.125,
            "skipped": 3,
        },
        candidates=[
            admin.Candidate(
                bundle="2026-03",
                reasons=["not readable"],
                figures=[{"name": "accuracy", "candidate": 0.5, "limit": 0.75, "count": 8}],
                time=time,
            )
        ],
        generation=7,
        workers=2,
        workers_agreeing=1,
        drift={
            "guarantee": "GUARANTEE_SUSPENDED",
            "reason": "the p-values drift",
            "since": time,
            "detectors": [
                {
                    "name": "p_values",
                    "count": 1200,
                    "log_evidence": 6.5,
                    "log_threshold": 4.1,
                    "alarmed": True,
                }
            ],
        },
        records={
            "audit": "best_effort",
            "database": "sqlite:///records.db",
            "waiting": 3,
            "dropped": 2,
        },
    )


async def told(fake: Fake, tell: Callable[[AdminClient], Any], **options: Any) -> Any:
    def ask() -> Any:
        with AdminClient(fake.target, retry=QUICK, **options) as client:
            return tell(client)

    return await asyncio.to_thread(ask)


async def test_the_state_of_a_server_comes_through_whole() -> None:
    reply = admin.GetStatusResponse(state=state_message())
    async with serving(Fake(replies=[reply])) as fake:
        assert await told(fake, AdminClient.status, token="t") == STATE
    assert fake.attempts[0].metadata["authorization"] == "Bearer t"


@pytest.mark.parametrize(
    ("tell", "method", "request_message"),
    [
        (lambda c: c.reload("b"), "Reload", admin.ReloadRequest(bundle="b")),
        (lambda c: c.load("b"), "Reload", admin.ReloadRequest(bundle="b", keep_default=True)),
        (AdminClient.rollback, "Rollback", admin.RollbackRequest()),
        (lambda c: c.set_shadow("b"), "SetShadow", admin.SetShadowRequest(bundle="b")),
        (
            lambda c: c.set_shadow("b", share=0.5),
            "SetShadow",
            admin.SetShadowRequest(bundle="b", share=0.5),
        ),
        (AdminClient.end_shadow, "SetShadow", admin.SetShadowRequest()),
        (
            lambda c: c.set_mode(held.Mode.ABSTAIN_ALL, reason="why"),
            "SetMode",
            admin.SetModeRequest(mode=model.MODE_ABSTAIN_ALL, reason="why"),
        ),
        (
            lambda c: c.set_mode(held.Mode.NORMAL),
            "SetMode",
            admin.SetModeRequest(mode=model.MODE_NORMAL),
        ),
    ],
)
async def test_each_order_is_one_call(
    tell: Callable[[AdminClient], Any], method: str, request_message: Any
) -> None:
    async with serving() as fake:
        await told(fake, tell)
    (attempt,) = fake.attempts
    assert (attempt.method, attempt.request) == (method, request_message)


async def test_a_refused_candidate_tells_every_reason() -> None:
    reasons = PreconditionFailure(
        violations=[PreconditionFailure.Violation(description=words) for words in ("a", "b")]
    )
    fail = Fail(Code.FAILED_PRECONDITION, "refused", reason="CANDIDATE_REFUSED", more=(reasons,))
    async with serving(Fake(replies=[fail])) as fake:
        with pytest.raises(errors.PreconditionError) as caught:
            await told(fake, lambda client: client.reload("b"))
    assert (caught.value.reason, caught.value.reasons) == ("CANDIDATE_REFUSED", ("a", "b"))


@pytest.mark.parametrize(
    ("tell", "attempts"),
    [
        (AdminClient.status, 2),
        (lambda client: client.set_mode(held.Mode.ABSTAIN_ALL), 2),
        (lambda client: client.end_shadow(), 2),
        (lambda client: client.reload("b"), 1),
        (AdminClient.rollback, 1),
    ],
)
async def test_only_what_does_no_harm_twice_is_tried_again(
    tell: Callable[[AdminClient], Any], attempts: int
) -> None:
    async with serving(Fake(replies=[Fail(Code.UNAVAILABLE)])) as fake:
        try:
            await told(fake, tell)
        except errors.UnavailableError:
            assert attempts == 1
    assert len(fake.attempts) == attempts


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
async def test_a_share_out_of_range_is_not_even_sent(share: float) -> None:
    async with serving() as fake:
        with pytest.raises(errors.ConfigError, match="share is"):
            await told(fake, lambda client: client.set_shadow("b", share=share))
    assert fake.attempts == []


async def test_any_caller_may_know_what_is_served() -> None:
    state = state_message()
    reply = service.GetModelResponse(
        model={"name": "m"}, served=state.served, mode=model.MODE_NORMAL
    )
    async with serving(Fake(replies=[reply])) as fake, AsyncClient(fake.target) as client:
        info = await client.served(model="aaaaaaaa")
    assert (info.model.name, info.served, info.mode) == ("m", STATE.served, held.Mode.NORMAL)
    assert fake.attempts[0].request.model == "aaaaaaaa"


async def test_a_mode_that_this_client_does_not_know_is_not_taken_for_another() -> None:
    reply = admin.GetStatusResponse(state={"mode": 9})
    async with serving(Fake(replies=[reply])) as fake:
        with pytest.raises(errors.InternalServerError, match="mode number 9"):
            await told(fake, AdminClient.status)
