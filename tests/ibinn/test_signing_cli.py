"""`ibinn keygen`, `ibinn sign` and `ibinn verify --public-key`, as an operator runs them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ibinn import cli, manifest
from ibinn.policy import file as policy_file
from ibinn.signing import read_policy, trusted_keys
from tests.ibinn.bundles import make_manifest
from tests.ibinn.policies import make_policy

PHRASE = {"PHRASE": "open sesame"}


def run(*arguments: object, **environment: str) -> Result:
    return CliRunner().invoke(cli.app, [str(each) for each in arguments], env=environment)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    key = tmp_path / "release.pem"
    assert run("keygen", "--out", key).exit_code == 0
    return key


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "report.html").write_text("report", encoding="utf-8")
    files = {"report.html": manifest.file_sha256(folder / "report.html")}
    manifest.write(make_manifest(files=files), folder)
    return folder


def test_a_bundle_is_signed_and_verified_by_the_files_that_keygen_wrote(
    key: Path, bundle: Path
) -> None:
    public = key.with_name("release.pub.pem")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    signed = run("sign", bundle, "--key", key)
    assert signed.exit_code == 0
    key_id = signed.stdout.split()[-1]
    verified = run("verify", bundle, "--public-key", public)
    assert verified.exit_code == 0
    assert "intact; 1 files of tiny, weights" in verified.stdout
    assert f"signed by key {key_id}" in verified.stdout
    assert "signed by" not in run("verify", bundle).stdout


def test_an_unsigned_or_changed_bundle_is_told(key: Path, bundle: Path) -> None:
    public = key.with_name("release.pub.pem")
    unsigned = run("verify", bundle, "--public-key", public)
    assert unsigned.exit_code == 2
    assert "bears no signature" in unsigned.stderr
    run("sign", bundle, "--key", key)
    signature = (bundle / manifest.SIGNATURE).read_bytes()
    manifest.write(make_manifest(files=manifest.read(bundle).files, alpha=0.5), bundle)
    (bundle / manifest.SIGNATURE).write_bytes(signature)
    changed = run("verify", bundle, "--public-key", public)
    assert changed.exit_code == 2
    assert "changed after signing" in changed.stderr


def test_a_passphrase_comes_from_the_environment(tmp_path: Path, bundle: Path) -> None:
    key = tmp_path / "secret.pem"
    made = run("keygen", "--out", key, "--passphrase-env", "PHRASE", **PHRASE)
    assert made.exit_code == 0
    assert b"ENCRYPTED" in key.read_bytes()
    assert "sesame" not in made.output
    refused = run("sign", bundle, "--key", key)
    assert refused.exit_code == 2
    assert "--passphrase-env" in refused.stderr
    signed = run("sign", bundle, "--key", key, "--passphrase-env", "PHRASE", **PHRASE)
    assert signed.exit_code == 0
    unset = run("sign", bundle, "--key", key, "--passphrase-env", "PHRASE")
    assert unset.exit_code == 2
    assert "is empty or not set" in unset.stderr


def test_no_key_is_replaced(key: Path, tmp_path: Path) -> None:
    before = key.read_bytes()
    for left in ("release.pub.pem", "release.pem"):
        again = run("keygen", "--out", key)
        assert again.exit_code == 2
        assert f"{left} exists" in again.stderr
        (tmp_path / "release.pub.pem").unlink(missing_ok=True)
    assert key.read_bytes() == before


def test_what_cannot_be_signed_is_told(key: Path, bundle: Path, tmp_path: Path) -> None:
    assert "cannot be read" in run("sign", bundle, "--key", tmp_path / "no.pem").stderr
    assert "no model bundle at" in run("sign", tmp_path / "none", "--key", key).stderr
    public = key.with_name("release.pub.pem")
    assert "the private key cannot be read" in run("sign", bundle, "--key", public).stderr
    wrong = run("verify", bundle, "--public-key", key)
    assert wrong.exit_code == 2
    assert "holds a private key" in wrong.stderr


def test_a_policy_is_signed_like_a_bundle(key: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy_file.write(make_policy(), policy)
    signed = run("sign", policy, "--key", key)
    assert signed.exit_code == 0
    keys = trusted_keys(key.with_name("release.pub.pem"))
    assert read_policy(policy, keys) == make_policy()
    assert signed.stdout.split()[-1] == keys[0].key_id
