"""The server's policy: applied to every answer, told to every caller, changed by none."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from ibinn.errors import ConfigError, PolicyFormatError, PolicyMismatchError
from ibinn.policy import RULES, Origin, action_of
from ibinn.policy import file as policy_file
from ibinn.types import Action, Prediction
from ibinn.v1 import classification_service_pb2 as service
from service import cli
from tests.ibinn.bundles import write_bundle
from tests.ibinn.test_deciding import digit_policy
from tests.service.running import running, settings
from tests.service.stub import ACCEPTED, DEFERRED, StubClassifier, make_prediction, png


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle")
    write_bundle(path)
    return path


@pytest.fixture
def policy_path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.json"
    policy_file.write(digit_policy(), path)
    return path


async def test_wire_and_library_decide_alike(folder: Path, policy_path: Path) -> None:
    policy = policy_file.read(policy_path)
    classifier = cli.load_bundle(settings(bundle=folder, policy=policy_path))
    images = [png(value, width=20, height=12) for value in range(0, 250, 50)]
    async with running() as run:
        await run.server.load(lambda: classifier)
        remote = await asyncio.gather(*(run.client.classify(image) for image in images))
        explained = await run.client.explain(images[0])
        info = await run.client.model()
        decisions = sum(
            run.metric("ibinn_decisions_total", action=action.value, rule=rule)
            for action, rule in {(a.decision.action, a.decision.rule) for a in remote}
        )
    assert info == classifier.info
    assert info.versions.policy == policy.digest
    assert info.policy is not None
    assert info.policy.digest == policy.digest
    for answer, image in zip(remote, images, strict=True):
        local = classifier.classify(image)  # type: ignore[attr-defined]
        assert isinstance(local, Prediction)
        assert answer.decision is not None
        assert answer.versions.policy == policy.digest
        assert (answer.decision.action, answer.decision.rule) == (
            local.decision.action,
            local.decision.rule,
        )
    assert explained.prediction.decision is not None
    assert decisions == len(images) + 1


async def test_decisions_are_counted_by_action_and_rule() -> None:
    async with running(StubClassifier(make_prediction(decision=ACCEPTED))) as run:
        for rule in RULES:  # a series that exists from the start has a rate from the start
            if rule.value not in ("accepted", "unknown_picture"):
                assert run.metric("ibinn_decisions_total", action="DEFER", rule=rule.value) == 0
        await run.client.classify(png())
        await run.client.explain(png())
        run.stub.prediction = make_prediction(decision=DEFERRED)
        await run.client.classify(png())
        assert run.metric("ibinn_decisions_total", action="ACCEPT", rule="accepted") == 2
        assert run.metric("ibinn_decisions_total", action="DEFER", rule="not_assessed") == 1


async def test_without_a_policy_there_is_no_decision() -> None:
    info = dataclasses.replace(StubClassifier().info, policy=None)
    async with running(StubClassifier(info=info)) as run:
        assert (await run.client.classify(png())).decision is None
        assert (await run.client.model()).policy is None
        assert not [name for name, _ in await run.scrape() if "decisions" in name]


def test_no_request_can_name_a_policy_or_a_significance() -> None:
    for message in (service.ClassifyRequest, service.ExplainRequest, service.GetModelRequest):
        names = {field.name for field in message.DESCRIPTOR.fields}
        assert not names & {"policy", "alpha", "costs", "threshold", "priors", "significance"}


def test_policy_of_another_model_stops_the_start(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    policy_file.write(digit_policy(origin=Origin(weights="a" * 64, calibration="b" * 64)), path)
    with pytest.raises(PolicyMismatchError, match=r"weights.*calibration"):
        cli.load_bundle(settings(bundle=folder, policy=path))


def test_changed_policy_file_stops_the_start(folder: Path, policy_path: Path) -> None:
    text = policy_path.read_text("utf-8")
    policy_path.write_text(text.replace('"defer": 0.3', '"defer": 30.0'), "utf-8")
    with pytest.raises(PolicyFormatError, match="sha256"):
        cli.load_bundle(settings(bundle=folder, policy=policy_path))


def test_significance_beside_a_policy_is_refused(folder: Path, policy_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"got alpha 0\.5 and policy"):
        cli.load_bundle(settings(bundle=folder, policy=policy_path, alpha=0.5))


def test_every_action_has_a_rule() -> None:
    assert {action_of(rule) for rule in RULES} == set(Action)
