"""Keys of signatures: made, written, and read. See `ibinn.signing`."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ibinn.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

KEY_ID_CHARACTERS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A key that signatures are checked by.

    Attributes:
        key_id: Start of the sha256 of the key, hex; names it in signatures and messages.
        raw: The 32 bytes of the key.
    """

    key_id: str
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A new key.

    Attributes:
        private_pem: Signs; keep it secret, and off the server.
        public_pem: Checks; give it to whoever runs a server.
        key_id: Names the key.
    """

    private_pem: bytes
    public_pem: bytes
    key_id: str


def generate_keypair(*, passphrase: bytes | None = None) -> KeyPair:
    """A new Ed25519 key.

    Args:
        passphrase: Encrypts the private key; None: not encrypted.

    Raises:
        ConfigError: The package `cryptography` is missing.
    """
    need_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    encryption = (
        serialization.NoEncryption()
        if passphrase is None
        else serialization.BestAvailableEncryption(passphrase)
    )
    private_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    public_pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    key_id = public_key_of(key.public_key()).key_id
    return KeyPair(private_pem=private_pem, public_pem=public_pem, key_id=key_id)


def write_private_key(pem: bytes, path: Path) -> None:
    """Write a private key that only its owner may read; what is there is never replaced.

    Raises:
        ConfigError: There is such a file, or it cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError(
            f"{path} exists; a key that signed bundles is not replaced, choose another name"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}); make its folder"
        ) from error
    with os.fdopen(handle, "wb") as file:
        file.write(pem)


def trusted_keys(path: Path) -> tuple[PublicKey, ...]:
    """The public keys in a file, or in the files ``*.pem`` of a folder.

    Raises:
        ConfigError: There is none, or what is there is not an Ed25519 public key.
    """
    need_cryptography()
    try:
        files = sorted(path.glob("*.pem")) if path.is_dir() else [path]
        texts = [(file, file.read_bytes()) for file in files]
    except OSError as error:
        raise ConfigError(
            f"trusted keys {path} cannot be read ({error.strerror}); give a public key of `ibinn "
            "keygen`, or a folder of such files"
        ) from error
    keys = [key for file, text in texts for key in _public_keys(text, file)]
    if not keys:
        raise ConfigError(
            f"trusted keys {path}: the folder holds no *.pem; put the public key of `ibinn keygen` "
            "there"
        )
    return tuple({key.key_id: key for key in keys}.values())


def private_key(pem: bytes, *, passphrase: bytes | None) -> Ed25519PrivateKey:
    """A private key from its PEM.

    Raises:
        ConfigError: It is not an Ed25519 key in PEM, or the passphrase is not its own.
    """
    need_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=passphrase)
    except TypeError as error:
        raise ConfigError(
            "the private key is encrypted and no passphrase was given; name the environment "
            "variable that holds it: --passphrase-env NAME"
            if passphrase is None
            else "the private key is not encrypted, and a passphrase was given; leave it out"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            "the private key cannot be read: it is not PEM, or the passphrase is wrong; make one "
            "with `ibinn keygen`"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"the private key is a {type(key).__name__}, expected Ed25519; make one with "
            "`ibinn keygen`"
        )
    return key


def _public_keys(text: bytes, file: Path) -> list[PublicKey]:
    """The keys in a PEM file, which may hold several."""
    if b"PRIVATE KEY-----" in text:
        raise ConfigError(
            f"trusted keys {file}: holds a private key, which does not belong on a server; remove "
            "it there, and give the public key that `ibinn keygen` wrote beside it"
        )
    end = b"-----END PUBLIC KEY-----"
    keys = [_public_key(block + end) for block in text.split(end)[:-1]]
    found = [key for key in keys if key is not None]
    if not found or len(found) < len(keys):
        raise ConfigError(
            f"trusted keys {file}: not an Ed25519 public key in PEM; expected what `ibinn keygen` "
            "writes as NAME.pub.pem"
        )
    return found


def _public_key(pem: bytes) -> PublicKey | None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return public_key_of(key) if isinstance(key, Ed25519PublicKey) else None


def public_key_of(key: Ed25519PublicKey) -> PublicKey:
    """A key by its bytes and id."""
    raw = key.public_bytes_raw()
    return PublicKey(key_id=hashlib.sha256(raw).hexdigest()[:KEY_ID_CHARACTERS], raw=raw)


def need_cryptography() -> None:
    """Raises a ConfigError that says what to install where `cryptography` is missing."""
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "signatures need the package cryptography, which is not installed; install it with "
            "pip install 'ibinn[sign]'"
        ) from error
