"""A signature stands for the whole bundle: whatever is changed, it no longer holds."""

from __future__ import annotations

import base64
import dataclasses
import json
import stat
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ibinn import bundle, deciding, manifest, signing
from ibinn.errors import (
    BundleIntegrityError,
    BundleNotFoundError,
    BundleSignatureError,
    ConfigError,
    PolicyFormatError,
)
from ibinn.policy import file as policy_file
from ibinn.reference import to_arrays
from ibinn.signing import KeyPair, PublicKey, generate_keypair, sign_bundle, verify_bundle
from ibinn.signing_keys import private_key
from ibinn.trusted import TrustedClassifier
from tests.ibinn.bundles import make_manifest, write_bundle
from tests.ibinn.policies import make_policy

PAIR = generate_keypair()
OTHER = generate_keypair()


def keys_of(*pairs: KeyPair) -> tuple[PublicKey, ...]:
    return tuple(
        signing.public_key_of(private_key(pair.private_pem, passphrase=None).public_key())
        for pair in pairs
    )


def signature_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / manifest.SIGNATURE).read_bytes())
    return content


def write_signature(folder: Path, **changes: Any) -> None:
    content = {**signature_of(folder), **changes}
    (folder / manifest.SIGNATURE).write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A signed bundle without a model: a manifest and two files."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in ("weights.safetensors", "report.html"):
        (folder / name).write_text(name, encoding="utf-8")
    files = {path.name: manifest.file_sha256(path) for path in folder.iterdir()}
    manifest.write(make_manifest(files=files), folder)
    sign_bundle(folder, PAIR.private_pem)
    return folder


def test_a_signed_bundle_is_verified_and_names_its_key(folder: Path) -> None:
    assert verify_bundle(folder, keys_of(PAIR)) == PAIR.key_id
    assert verify_bundle(folder, keys_of(OTHER, PAIR)) == PAIR.key_id


def test_a_signature_changes_nothing_else_about_a_bundle(folder: Path) -> None:
    assert manifest.verify(folder).name == "tiny"
    assert {path.name for path in folder.iterdir()} == {
        manifest.FILE,
        manifest.SIGNATURE,
        "weights.safetensors",
        "report.html",
    }


def test_every_flipped_byte_of_manifest_or_signature_is_refused(folder: Path) -> None:
    for name in (manifest.FILE, manifest.SIGNATURE):
        path = folder / name
        whole = path.read_bytes()
        for position in range(0, len(whole) - 1, max(1, len(whole) // 150)):
            changed = bytearray(whole)
            changed[position] ^= 1
            path.write_bytes(changed)
            with pytest.raises(BundleSignatureError):
                verify_bundle(folder, keys_of(PAIR))
        path.write_bytes(whole)
    assert verify_bundle(folder, keys_of(PAIR)) == PAIR.key_id


def test_a_flipped_byte_of_another_file_is_refused(folder: Path) -> None:
    (folder / "report.html").write_text("report.htmL", encoding="utf-8")
    with pytest.raises(BundleIntegrityError, match=r"report\.html has sha256"):
        verify_bundle(folder, keys_of(PAIR))


def test_a_manifest_forged_with_its_own_digest_right_is_refused(folder: Path) -> None:
    signature = (folder / manifest.SIGNATURE).read_bytes()
    manifest.write(dataclasses.replace(manifest.read(folder), alpha=0.5), folder)
    (folder / manifest.SIGNATURE).write_bytes(signature)
    assert manifest.verify(folder).alpha == 0.5
    with pytest.raises(BundleSignatureError, match="changed after signing"):
        verify_bundle(folder, keys_of(PAIR))


def test_a_key_that_is_not_trusted_is_refused_with_both_names(folder: Path) -> None:
    with pytest.raises(
        BundleSignatureError, match=rf"signed by key {PAIR.key_id}.*trusted are {OTHER.key_id}"
    ):
        verify_bundle(folder, keys_of(OTHER))
    with pytest.raises(BundleSignatureError, match="trusted are none"):
        verify_bundle(folder, ())


def test_a_signature_under_another_keys_name_is_refused(folder: Path) -> None:
    sign_bundle(folder, OTHER.private_pem)
    write_signature(folder, key_id=PAIR.key_id)
    with pytest.raises(BundleSignatureError, match="is not of key"):
        verify_bundle(folder, keys_of(PAIR, OTHER))


def test_a_signature_of_the_bare_manifest_is_refused(folder: Path) -> None:
    key = private_key(PAIR.private_pem, passphrase=None)
    bare = key.sign((folder / manifest.FILE).read_bytes())
    write_signature(folder, signature=base64.b64encode(bare).decode())
    with pytest.raises(BundleSignatureError, match="is not of key"):
        verify_bundle(folder, keys_of(PAIR))


def test_a_bundle_without_a_signature_is_refused_and_told_how_to_sign(folder: Path) -> None:
    (folder / manifest.SIGNATURE).unlink()
    with pytest.raises(BundleSignatureError, match=r"bears no signature.*ibinn sign PATH --key"):
        verify_bundle(folder, keys_of(PAIR))


def test_no_bundle_is_told_apart_from_no_signature(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError):
        verify_bundle(tmp_path, keys_of(PAIR))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"3",
        b"[" * 4000,
        b" " * 5000,
        b'{"format_version": 1, "algorithm": "ed25519", "key_id": "x", "signature": "!"}',
        b'{"format_version": 1, "algorithm": "ed25519", "key_id": "x", "signature": "\xc3\xa9"}',
    ],
)
def test_what_is_no_signature_file_is_refused(folder: Path, content: bytes) -> None:
    (folder / manifest.SIGNATURE).write_bytes(content)
    with pytest.raises(BundleSignatureError, match="is not a signature file"):
        verify_bundle(folder, keys_of(PAIR))


@pytest.mark.parametrize("changes", [{"format_version": 2}, {"algorithm": "none"}])
def test_another_format_or_algorithm_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    write_signature(folder, **changes)
    with pytest.raises(BundleSignatureError, match="this software reads 1 with 'ed25519'"):
        verify_bundle(folder, keys_of(PAIR))


@pytest.mark.parametrize("key_id", [3, None, "", "A" * 32, "line\nbreak", "a" * 3000])
def test_a_key_id_that_could_deceive_a_log_is_not_repeated(folder: Path, key_id: object) -> None:
    write_signature(folder, key_id=key_id)
    with pytest.raises(BundleSignatureError, match="key_id is not 32 hexadecimal digits"):
        verify_bundle(folder, keys_of(PAIR))


@pytest.mark.parametrize("signature", ["", "AAAA", base64.b64encode(bytes(64)).decode()])
def test_a_signature_of_any_length_is_refused(folder: Path, signature: str) -> None:
    write_signature(folder, signature=signature)
    with pytest.raises(BundleSignatureError, match="is not of key"):
        verify_bundle(folder, keys_of(PAIR))


def test_a_damaged_bundle_is_not_signed(folder: Path) -> None:
    before = (folder / manifest.SIGNATURE).read_bytes()
    (folder / "report.html").write_text("other", encoding="utf-8")
    with pytest.raises(BundleIntegrityError):
        sign_bundle(folder, OTHER.private_pem)
    assert (folder / manifest.SIGNATURE).read_bytes() == before


def test_a_new_manifest_has_no_signature(folder: Path) -> None:
    bundle.add_files(manifest.read(folder), folder, {"more.txt": "more"})
    assert not (folder / manifest.SIGNATURE).exists()


def test_saving_over_a_signed_bundle_leaves_it_unsigned(tmp_path: Path) -> None:
    write_bundle(tmp_path, calibrated=False)
    sign_bundle(tmp_path, PAIR.private_pem)
    write_bundle(tmp_path, calibrated=False)
    assert not (tmp_path / manifest.SIGNATURE).exists()


def test_loading_with_keys_takes_a_signed_bundle_and_no_other(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    assert bundle.load(tmp_path).info.name == "tiny"
    with pytest.raises(BundleSignatureError):
        bundle.load(tmp_path, keys=keys_of(PAIR))
    with pytest.raises(BundleSignatureError):
        bundle.load(tmp_path, keys=())
    sign_bundle(tmp_path, PAIR.private_pem)
    assert bundle.load(tmp_path, keys=keys_of(PAIR)).info.name == "tiny"


def test_loading_under_a_policy_asks_for_the_signature_too(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    with pytest.raises(BundleSignatureError):
        deciding.load(tmp_path, make_policy(), keys=keys_of(PAIR))


@pytest.mark.parametrize("name", ["weights.safetensors", "reference.safetensors"])
def test_a_file_replaced_after_it_was_checked_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_bundle(tmp_path)
    sign_bundle(tmp_path, PAIR.private_pem)
    before = bundle.load(tmp_path, keys=keys_of(PAIR))
    read = manifest.read_files

    def read_then_replace(
        found: manifest.Manifest, folder: Path, names: Collection[str]
    ) -> dict[str, bytearray]:
        contents = read(found, folder, names)
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        return contents

    monkeypatch.setattr(manifest, "read_files", read_then_replace)
    loaded = bundle.load(tmp_path, keys=keys_of(PAIR))
    assert_same_model(loaded, before)
    with pytest.raises(BundleIntegrityError, match=name):
        bundle.load(tmp_path, keys=keys_of(PAIR))


def assert_same_model(one: TrustedClassifier, other: TrustedClassifier) -> None:
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
    assert one.reference is not None
    assert other.reference is not None
    others = to_arrays(other.reference)
    for name, values in to_arrays(one.reference).items():
        np.testing.assert_array_equal(values, others[name], err_msg=name)


@pytest.mark.parametrize("files", [[], {"weights.safetensors": 3}, "weights.safetensors", None])
def test_a_manifest_whose_files_are_not_digests_is_refused(tmp_path: Path, files: object) -> None:
    manifest.write(make_manifest(files=files), tmp_path)
    with pytest.raises(manifest.BundleFormatError, match="malformed entry"):
        manifest.verify(tmp_path)


def test_trusted_keys_come_from_a_file_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "one.pem").write_bytes(PAIR.public_pem)
    (tmp_path / "two.pem").write_bytes(OTHER.public_pem + PAIR.public_pem)
    (tmp_path / "readme.txt").write_text("not a key", encoding="utf-8")
    assert signing.trusted_keys(tmp_path / "one.pem") == keys_of(PAIR)
    assert signing.trusted_keys(tmp_path / "two.pem") == keys_of(OTHER, PAIR)
    assert set(signing.trusted_keys(tmp_path)) == set(keys_of(PAIR, OTHER))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PAIR.private_pem, "holds a private key, which does not belong on a server"),
        (b"", "not an Ed25519 public key"),
        (PAIR.public_pem.replace(b"M", b"N"), "not an Ed25519 public key"),
        (PAIR.public_pem + b"-----END PUBLIC KEY-----", "not an Ed25519 public key"),
        (
            ec.generate_private_key(ec.SECP256R1())
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "not an Ed25519 public key",
        ),
    ],
)
def test_other_files_than_public_keys_are_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        signing.trusted_keys(path)


def test_no_trusted_key_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no \*\.pem"):
        signing.trusted_keys(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        signing.trusted_keys(tmp_path / "missing.pem")


def test_a_private_key_is_for_its_owner_alone_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    signing.write_private_key(PAIR.private_pem, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="exists"):
        signing.write_private_key(OTHER.private_pem, path)
    assert path.read_bytes() == PAIR.private_pem
    with pytest.raises(ConfigError, match="cannot be written"):
        signing.write_private_key(OTHER.private_pem, tmp_path / "missing" / "key.pem")


def test_an_encrypted_key_signs_with_its_passphrase_alone(folder: Path) -> None:
    pair = generate_keypair(passphrase=b"open sesame")
    assert b"ENCRYPTED" in pair.private_pem
    with pytest.raises(ConfigError, match="no passphrase was given"):
        sign_bundle(folder, pair.private_pem)
    with pytest.raises(ConfigError, match="passphrase is wrong"):
        sign_bundle(folder, pair.private_pem, passphrase=b"close sesame")
    with pytest.raises(ConfigError, match="is not encrypted"):
        sign_bundle(folder, PAIR.private_pem, passphrase=b"open sesame")
    assert sign_bundle(folder, pair.private_pem, passphrase=b"open sesame") == pair.key_id


def test_a_key_of_another_kind_does_not_sign(folder: Path) -> None:
    from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat

    other = ec.generate_private_key(ec.SECP256R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ConfigError, match="expected Ed25519"):
        sign_bundle(folder, pem)
    with pytest.raises(ConfigError, match="not PEM"):
        sign_bundle(folder, b"nothing")


def test_the_signature_is_what_any_ed25519_library_checks(folder: Path) -> None:
    key = private_key(PAIR.private_pem, passphrase=None)
    assert isinstance(key, Ed25519PrivateKey)
    signature = base64.b64decode(signature_of(folder)["signature"])
    data = (folder / manifest.FILE).read_bytes()
    key.public_key().verify(signature, b"ibinn bundle signature, version 1\x00" + data)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.policy.json"
    policy_file.write(make_policy(), path)
    return path


def test_a_policy_is_signed_and_read_from_the_bytes_that_were_checked(policy: Path) -> None:
    assert signing.read_policy(policy, None) == make_policy()
    with pytest.raises(BundleSignatureError, match=r"no tiny\.policy\.json\.sig"):
        signing.read_policy(policy, keys_of(PAIR))
    assert signing.sign_policy(policy, PAIR.private_pem) == PAIR.key_id
    assert signing.read_policy(policy, keys_of(PAIR)) == make_policy()
    with pytest.raises(BundleSignatureError, match="is not trusted"):
        signing.read_policy(policy, keys_of(OTHER))
    policy_file.write(make_policy(name="laxer"), policy)
    with pytest.raises(BundleSignatureError, match="changed after signing"):
        signing.read_policy(policy, keys_of(PAIR))


def test_the_signature_of_a_bundle_is_none_of_a_policy(folder: Path, policy: Path) -> None:
    data = (folder / manifest.FILE).read_bytes()
    policy.write_bytes(data)
    signing.policy_signature(policy).write_bytes((folder / manifest.SIGNATURE).read_bytes())
    with pytest.raises(BundleSignatureError, match="changed after signing"):
        signing.read_policy(policy, keys_of(PAIR))


def test_what_is_no_policy_is_not_signed(policy: Path) -> None:
    policy.write_text("{}", encoding="utf-8")
    with pytest.raises(PolicyFormatError):
        signing.sign_policy(policy, PAIR.private_pem)
    assert not signing.policy_signature(policy).exists()


def test_bundles_without_signatures_do_without_the_package() -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from pathlib import Path\n"
        "from ibinn import manifest, signing\n"
        "from ibinn.errors import ConfigError\n"
        "folder = Path('ibinn/models/cifar10-small')\n"
        "signing.read_manifest(folder, None)\n"
        "try:\n"
        "    signing.read_manifest(folder, ())\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install 'ibinn[sign]'" in done.stdout
