"""Where signatures are required, nothing that came from elsewhere is loaded without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ibinn import manifest
from ibinn.errors import BundleSignatureError, PolicyMismatchError
from ibinn.policy import file as policy_file
from ibinn.signing import generate_keypair, sign_bundle, sign_policy
from service.models import loading
from service.models.folder import policy_file as policy_of
from service.settings import Settings
from tests.ibinn.bundles import write_bundle
from tests.ibinn.policies import make_policy

PAIR = generate_keypair()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "key.pem").write_bytes(PAIR.public_pem)
    models = tmp_path / "models"
    models.mkdir()
    return Settings(models=models, require_signature=True, trusted_keys=tmp_path / "key.pem")


@pytest.fixture
def bundle(settings: Settings) -> Path:
    assert settings.models is not None
    bundle = settings.models / "tiny"
    write_bundle(bundle)
    return bundle


def test_a_bundle_is_loaded_with_a_signature_alone(settings: Settings, bundle: Path) -> None:
    for check in (loading.verify, loading.load):
        with pytest.raises(BundleSignatureError, match="bears no signature"):
            check(settings, bundle)
    sign_bundle(bundle, PAIR.private_pem)
    assert loading.verify(settings, bundle).name == "tiny"
    assert loading.load(settings, bundle).info.name == "tiny"


def test_a_policy_that_came_with_a_bundle_needs_a_signature_too(
    settings: Settings, bundle: Path
) -> None:
    sign_bundle(bundle, PAIR.private_pem)
    own = policy_of(bundle)
    policy_file.write(make_policy(), own)
    with pytest.raises(BundleSignatureError, match=r"tiny\.policy\.json bears no signature"):
        loading.load(settings, bundle)
    sign_policy(own, PAIR.private_pem)
    with pytest.raises(PolicyMismatchError):
        loading.load(settings, bundle)


def test_the_embedded_model_is_refused_with_how_to_sign_a_copy(settings: Settings) -> None:
    with pytest.raises(
        BundleSignatureError, match=r"ibinn sign PATH.*of the embedded model: a copy"
    ):
        loading.load(settings, manifest.embedded_path())
