"""Laws of loading: which policy a bundle is served under, and what it must bear to be served."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import pytest

from ibinn import manifest, signing
from ibinn.errors import (
    AlphaTooSmallError,
    BundleIntegrityError,
    BundleSignatureError,
    CandidateRefusedError,
    ConfigError,
    PolicyError,
)
from ibinn.policy import Costs, Origin, Policy, file
from service.models import loading
from service.models.candidates import Reason
from service.settings import Settings
from tests.ibinn.bundles import CLASSES, write_bundle
from tests.service.models.scripted import flip_a_byte, managed
from tests.service.running import settings

KEYS = signing.generate_keypair()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "models" / "v2")
    return tmp_path / "models"


def make_policy(bundle: Path, **changes) -> Policy:
    found = manifest.read(bundle)
    policy = Policy(
        name="test",
        classes=CLASSES,
        origin=Origin(weights=found.weights_digest, calibration=found.calibration_digest),
        alpha=0.05,
        class_alphas=(),
        coverage=0.9,
        costs=Costs.zero_one(len(CLASSES), defer=0.5, reject=0.1),
        priors=None,
        certificate=None,
    )
    return dataclasses.replace(policy, **changes)


def set_policy(bundle: Path, path: Path, **changes) -> Policy:
    policy = make_policy(bundle, **changes)
    file.write(policy, path)
    return policy


def served_policy(chosen: Settings, bundle: Path) -> str | None:
    info = loading.load(chosen, bundle).info
    return None if info.policy is None else info.policy.digest


def test_without_a_policy_a_bundle_decides_nothing(models):
    assert served_policy(settings(models=models), models / "v2") is None


def test_a_bundles_own_policy_goes_before_the_settings(models, tmp_path):
    general = set_policy(models / "v2", tmp_path / "policy.json")
    chosen = settings(models=models, policy=tmp_path / "policy.json")
    assert served_policy(chosen, models / "v2") == general.digest
    own = set_policy(models / "v2", models / "v2.policy.json", name="own")
    assert served_policy(chosen, models / "v2") == own.digest
    assert served_policy(settings(models=models), models / "v2") == own.digest


def test_a_policy_beside_a_bundle_elsewhere_is_no_word_of_the_operator(models):
    set_policy(models / "v2", models / "v2.policy.json")
    assert served_policy(settings(), models / "v2") is None


def test_a_policy_for_another_model_is_refused(models, tmp_path):
    other = Origin(weights="0" * 64, calibration="0" * 64)
    set_policy(models / "v2", tmp_path / "policy.json", origin=other)
    with pytest.raises(PolicyError, match="fitted for weights"):
        loading.load(settings(policy=tmp_path / "policy.json"), models / "v2")


def test_a_significance_beside_a_policy_is_refused(models, tmp_path):
    set_policy(models / "v2", tmp_path / "policy.json")
    with pytest.raises(ConfigError, match="leave --alpha"):
        loading.load(settings(policy=tmp_path / "policy.json", alpha=0.01), models / "v2")


def test_a_signature_that_is_required_must_be_there_and_of_a_trusted_key(models, tmp_path):
    (tmp_path / "trusted.pem").write_bytes(KEYS.public_pem)
    chosen = settings(require_signature=True, trusted_keys=tmp_path / "trusted.pem")
    for work in (loading.verify, loading.load):
        with pytest.raises(BundleSignatureError):
            work(chosen, models / "v2")
    signing.sign_bundle(models / "v2", signing.generate_keypair().private_pem)
    for work in (loading.verify, loading.load):
        with pytest.raises(BundleSignatureError):
            work(chosen, models / "v2")
    signing.sign_bundle(models / "v2", KEYS.private_pem)
    assert loading.verify(chosen, models / "v2") == manifest.read(models / "v2")
    flip_a_byte(models / "v2" / "weights.safetensors")
    with pytest.raises(BundleIntegrityError):
        loading.verify(chosen, models / "v2")


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        ("policy", Reason.POLICY, "fitted for weights"),
        ("alpha", Reason.POLICY, "cannot be tested"),
        ("entry", Reason.FORMAT, "the model cannot be built"),
        ("manifest", Reason.INTEGRITY, "its entries have sha256"),
        ("gone", Reason.INTEGRITY, "reference.safetensors"),
    ],
)
async def test_a_real_bundle_with_a_fault_is_refused_for_its_reason(
    models, tmp_path, fault, reason, words
):
    changes = {"models": models}
    match fault:
        case "policy":
            other = Origin(weights="0" * 64, calibration="0" * 64)
            set_policy(models / "v2", tmp_path / "policy.json", origin=other)
            changes["policy"] = tmp_path / "policy.json"
        case "alpha":
            changes["alpha"] = 1e-6
        case "entry":
            found = manifest.read(models / "v2")
            manifest.write(dataclasses.replace(found, mixture={"no": 1}), models / "v2")
        case "manifest":
            path = models / "v2" / manifest.FILE
            path.write_text(path.read_text().replace('"Tests."', '"Texts."'))
        case "gone":
            (models / "v2" / "reference.safetensors").unlink()
    async with managed(tmp_path, **changes) as found:
        found.manager._checks._load = partial(loading.load, found.settings)
        found.manager._checks._verify = partial(loading.verify, found.settings)
        with pytest.raises(CandidateRefusedError, match=words):
            await found.manager.reload("v2")
        assert found.candidates("refused", reason.value) == 1


async def test_a_real_bundle_is_served_after_a_reload(models, tmp_path):
    async with managed(tmp_path) as found:
        found.manager._checks._load = partial(loading.load, found.settings)
        await found.manager.reload("v2")
        weights = manifest.read(models / "v2").weights_digest
        assert found.models.resolve("").digest == weights


def test_a_significance_that_the_calibration_cannot_give_is_refused(models):
    with pytest.raises(AlphaTooSmallError):
        loading.load(settings(alpha=1e-6), models / "v2")
