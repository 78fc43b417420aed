"""Signed bundles: who made a model, and that nobody changed it since.

``manifest.sig`` holds an Ed25519 signature of the exact bytes of ``manifest.json``, which states
the sha256 of every other file; so it stands for the whole bundle. A file that the manifest does
not list is never read, and needs no signature. What is signed is

    DOMAIN || bytes of manifest.json

so that a signature made here means nothing anywhere else, and the other way round. A policy, which
lies beside its bundle, is signed alike in ``NAME.json.sig``, under a domain of its own. Signatures
say who made a file, not that it is the newest: an older signed bundle is as good.

The package `cryptography` is needed and comes with ``pip install 'ibinn[sign]'``; importing this
module does without.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibinn import manifest
from ibinn.errors import BundleSignatureError
from ibinn.manifest import SIGNATURE, Manifest
from ibinn.signing_keys import (
    KEY_ID_CHARACTERS,
    KeyPair,
    PublicKey,
    generate_keypair,
    need_cryptography,
    private_key,
    public_key_of,
    trusted_keys,
    write_private_key,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from ibinn.policy import Policy

__all__ = [
    "KeyPair",
    "PublicKey",
    "generate_keypair",
    "policy_signature",
    "read_manifest",
    "read_policy",
    "sign_bundle",
    "sign_bytes",
    "sign_policy",
    "trusted_keys",
    "verify_bundle",
    "verify_bytes",
    "write_private_key",
]

FORMAT_VERSION = 1
ALGORITHM = "ed25519"
DOMAIN = b"ibinn bundle signature, version 1\x00"
POLICY_DOMAIN = b"ibinn policy signature, version 1\x00"
_KEY_ID = re.compile(rf"[0-9a-f]{{{KEY_ID_CHARACTERS}}}")
_MOST_BYTES = 4096
"""Far more than a signature's file takes; a larger one is not read."""
_SIGN = "sign it with `ibinn sign PATH --key FILE`"


def sign_bundle(folder: Path, private_key_pem: bytes, *, passphrase: bytes | None = None) -> str:
    """Check a bundle and write ``manifest.sig`` beside its manifest, in place of the one there.

    Args:
        folder: The bundle.
        private_key_pem: Ed25519 key, PEM.
        passphrase: Of the key; None: it is not encrypted.

    Returns:
        The key's id.

    Raises:
        BundleError: The bundle is not intact.
        ConfigError: The key cannot be used, or the package `cryptography` is missing.
    """
    key = private_key(private_key_pem, passphrase=passphrase)
    data = manifest.read_bytes(folder)
    manifest.verify_files(manifest.parse(data, folder), folder)
    return _sign(key, DOMAIN + data, folder / SIGNATURE)


def sign_policy(policy: Path, private_key_pem: bytes, *, passphrase: bytes | None = None) -> str:
    """Check a policy file and write ``NAME.json.sig`` beside it, in place of the one there.

    Args:
        policy: The file.
        private_key_pem, passphrase: As for `sign_bundle`.

    Returns:
        The key's id.

    Raises:
        PolicyFormatError: It is not a policy.
        ConfigError: The key cannot be used, or the package `cryptography` is missing.
    """
    from ibinn.policy import file as policy_file

    key = private_key(private_key_pem, passphrase=passphrase)
    data = policy_file.read_bytes(policy)
    policy_file.from_bytes(data, policy)
    return _sign(key, POLICY_DOMAIN + data, policy_signature(policy))


def policy_signature(policy: Path) -> Path:
    """Where the signature of a policy file lies."""
    return policy.with_name(f"{policy.name}.sig")


def read_policy(policy: Path, keys: Sequence[PublicKey] | None) -> Policy:
    """The policy in a file, from the very bytes whose signature was checked.

    Args:
        policy: The file.
        keys: Of which one must have signed it; None: it needs no signature.

    Raises:
        PolicyFormatError: As in `ibinn.policy.file.read`.
        BundleSignatureError: There is no signature, or none of these keys over this policy.
        ConfigError: The package `cryptography` is missing.
    """
    from ibinn.policy import file as policy_file

    data = policy_file.read_bytes(policy)
    if keys is not None:
        _verify(POLICY_DOMAIN + data, policy_signature(policy), keys, signed=policy)
    return policy_file.from_bytes(data, policy)


def verify_bundle(folder: Path, keys: Sequence[PublicKey]) -> str:
    """Check the signature of a bundle, and that every file is the one that was signed.

    To load a bundle, give the keys to `ibinn.bundle.load` instead: it uses the very bytes that it
    checked, which a file that is replaced in between cannot change.

    Args:
        folder: The bundle.
        keys: Of which one must have signed it.

    Returns:
        The id of the key that did.

    Raises:
        BundleSignatureError: There is no signature, or none of these keys over this manifest.
        BundleError: The bundle is not intact.
        ConfigError: The package `cryptography` is missing.
    """
    data = manifest.read_bytes(folder)
    key_id = _verify(DOMAIN + data, folder / SIGNATURE, keys, signed=folder)
    manifest.verify_files(manifest.parse(data, folder), folder)
    return key_id


def read_manifest(folder: Path, keys: Sequence[PublicKey] | None) -> Manifest:
    """The manifest of a bundle, from the very bytes whose signature was checked.

    The other files are not looked at.

    Args:
        folder: The bundle.
        keys: Of which one must have signed it; None: it needs no signature.

    Raises:
        BundleSignatureError, BundleError, ConfigError: As in `verify_bundle`.
    """
    data = manifest.read_bytes(folder)
    if keys is not None:
        _verify(DOMAIN + data, folder / SIGNATURE, keys, signed=folder)
    return manifest.parse(data, folder)


def sign_bytes(
    data: bytes,
    signature: Path,
    private_key_pem: bytes,
    *,
    domain: bytes,
    passphrase: bytes | None = None,
) -> str:
    """Write the signature of something that is neither a bundle nor a policy.

    Args:
        data: What is signed.
        signature: File to write.
        private_key_pem, passphrase: As for `sign_bundle`.
        domain: What the signature is for; ends with a zero byte, and no other kind has it.

    Returns:
        The key's id.

    Raises:
        ConfigError: The key cannot be used, or the package `cryptography` is missing.
    """
    return _sign(private_key(private_key_pem, passphrase=passphrase), domain + data, signature)


def verify_bytes(
    data: bytes,
    signature: Path,
    keys: Sequence[PublicKey],
    *,
    domain: bytes,
    signed: Path,
    how: str,
) -> str:
    """Check a signature of `sign_bytes`.

    Args:
        data: What was signed.
        signature: The signature's file.
        keys: Of which one must have signed.
        domain: As for `sign_bytes`.
        signed: What is signed, for messages.
        how: To sign it, for messages.

    Returns:
        The id of the key that did.

    Raises:
        BundleSignatureError: There is no signature, or none of these keys over these bytes.
        ConfigError: The package `cryptography` is missing.
    """
    return _verify(domain + data, signature, keys, signed=signed, how=how)


def _sign(key: Ed25519PrivateKey, message: bytes, path: Path) -> str:
    key_id = public_key_of(key.public_key()).key_id
    content = {
        "format_version": FORMAT_VERSION,
        "algorithm": ALGORITHM,
        "key_id": key_id,
        "signature": base64.b64encode(key.sign(message)).decode("ascii"),
    }
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
    return key_id


def _verify(
    message: bytes, path: Path, keys: Sequence[PublicKey], *, signed: Path, how: str = _SIGN
) -> str:
    """Check that the signature in a file is of these bytes, by one of the keys; returns its id."""
    need_cryptography()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key_id, signature = _read_signature(path, signed, how)
    known = {key.key_id: key for key in keys}
    if key_id not in known:
        raise BundleSignatureError(
            f"{path}: signed by key {key_id}, which is not trusted; trusted are "
            f"{', '.join(known) or 'none'}; check who made {signed.name}, then add that key to the "
            f"trusted ones, or {how}"
        )
    try:
        Ed25519PublicKey.from_public_bytes(known[key_id].raw).verify(signature, message)
    except InvalidSignature as error:
        raise BundleSignatureError(
            f"{path}: the signature is not of key {key_id} over {signed} as it is; it was changed "
            f"after signing: copy it again, or {how} after checking it"
        ) from error
    return key_id


def _read_signature(path: Path, signed: Path, how: str) -> tuple[str, bytes]:
    """Key id and signature in a file."""
    if not path.is_file():
        raise BundleSignatureError(
            f"{signed} bears no signature: there is no {path.name}, and only what is signed is "
            f"trusted here; {how} (of the embedded model: a copy)"
        )
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    try:
        content: Any = json.loads(data) if len(data) <= _MOST_BYTES else None
        version, algorithm = content["format_version"], content["algorithm"]
        key_id, signature = content["key_id"], base64.b64decode(content["signature"], validate=True)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BundleSignatureError(
            f"{path} is not a signature file; expected JSON with format_version, algorithm, "
            f"key_id and signature; {how} again"
        ) from error
    if (version, algorithm) != (FORMAT_VERSION, ALGORITHM):
        raise BundleSignatureError(
            f"{path}: format version {version!r} with {algorithm!r}, this software reads "
            f"{FORMAT_VERSION} with {ALGORITHM!r}; {how} again"
        )
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
        raise BundleSignatureError(
            f"{path}: key_id is not {KEY_ID_CHARACTERS} hexadecimal digits; {how} again"
        )
    return key_id, signature
