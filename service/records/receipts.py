"""Signed receipts: an answer in short that its caller can bring back.

    token = "ib1." key ":" payload "." tag

key names the signing key (8 hexadecimal digits), payload is the `AnswerDigest` as a protobuf
message and tag the HMAC-SHA256 of everything before its dot, both in base64url without padding.
Feedback with a receipt is accepted even where the answer's record was lost, so whoever holds the
key can have any answer counted: it is a secret, and the replicas of one deployment share it.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import os
import re
import secrets
import stat
import tempfile
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path

from ibinn.errors import ConfigError, LedgerError, RequestError
from ibinn.records import AnswerDigest
from service.converters import records as converters
from service.settings import Settings

FORMAT = "ib1"
"""Names the format of a token; one that changes meaning or layout gets another name."""
KEY_FILE = "receipt.key"
"""Name of the key in the state folder, where none is given."""
SMALLEST_KEY_BYTES = 32
LONGEST_TOKEN_BYTES = 4096
"""As in ``proto/ibinn/v1/classification_service.proto``."""

_TOKEN = re.compile(r"ib1\.([0-9a-f]{8}):([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{43})")
_FIELD = "receipt"
_SEND_AS_IT_CAME = "send the answer's receipt.token as it came, or none"


class Receipts:
    """Signs answers and reads what was signed; safe to use from several threads.

    Args:
        keys: The first signs, all are accepted.

    Raises:
        ConfigError: No key, one shorter than 32 bytes, or two different ones with one name.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ConfigError("there is no key to sign receipts with; give at least one")
        self._keys: dict[str, bytes] = {}
        for key in keys:
            if len(key) < SMALLEST_KEY_BYTES:
                raise ConfigError(
                    f"a key for receipts has {len(key)} bytes; expected {SMALLEST_KEY_BYTES} or "
                    "more: make one with `openssl rand -hex 32`"
                )
            if self._keys.setdefault(key_name(key), key) != key:
                raise ConfigError(
                    f"two keys for receipts have the name {key_name(key)}; replace one of them"
                )
        self._signing = keys[0]
        self._head = f"{FORMAT}.{key_name(keys[0])}:".encode()

    @classmethod
    def open(cls, settings: Settings) -> Receipts:
        """With the keys of the settings' file, else the one kept in the state folder, else one
        made for this run.

        Raises:
            ConfigError: The file cannot be read or used, or the state folder cannot be written.
        """
        if settings.receipt_key is not None:
            return cls(read_keys(settings.receipt_key))
        if settings.state_dir is not None:
            return cls(_kept_keys(settings.state_dir))
        return cls([secrets.token_bytes(SMALLEST_KEY_BYTES)])

    @property
    def key_names(self) -> tuple[str, ...]:
        """Names of the keys, the one that signs first."""
        return tuple(self._keys)

    def sign(self, digest: AnswerDigest) -> str:
        """The receipt of an answer: ASCII, some 700 characters."""
        payload = urlsafe_b64encode(converters.digest_bytes(digest)).rstrip(b"=")
        signed = self._head + payload
        return (signed + b"." + _tag(self._signing, signed)).decode("ascii")

    def read(self, token: str, *, record_id: str) -> AnswerDigest:
        """The answer that a receipt is of.

        Args:
            token: As a caller sent it.
            record_id: The answer that the caller speaks of.

        Raises:
            RequestError: Not a receipt, not signed by a key of this server, changed, or of another
                answer; its field is ``receipt``.
        """
        if len(token) > LONGEST_TOKEN_BYTES:
            raise RequestError(
                f"the receipt has {len(token)} characters; expected {LONGEST_TOKEN_BYTES} at most: "
                f"{_SEND_AS_IT_CAME}",
                field=_FIELD,
            )
        found = _TOKEN.fullmatch(token)
        if found is None:
            raise RequestError(
                f"the receipt does not read; expected the form {FORMAT}.KEY:PAYLOAD.TAG in "
                f"letters, digits, - and _: {_SEND_AS_IT_CAME}",
                field=_FIELD,
            )
        name, payload, tag = found.groups()
        key = self._keys.get(name)
        if key is None:
            raise RequestError(
                f"the receipt was signed with the key {name}, which this server does not have (it "
                f"has {', '.join(self._keys)}); send it to the deployment that gave the answer, or "
                "ask its operator whether the key was replaced",
                field=_FIELD,
            )
        # The text is compared, not what it decodes to: base64 has several texts for one value.
        expected = _tag(key, token[: found.end(2)].encode("ascii"))
        if not hmac.compare_digest(expected, tag.encode("ascii")):
            raise RequestError(
                f"the receipt's signature does not fit its content; {_SEND_AS_IT_CAME}",
                field=_FIELD,
            )
        digest = _payload(payload)
        if digest.record_id != record_id:
            raise RequestError(
                f"the receipt is of the answer {digest.record_id}, the feedback about "
                f"{record_id}; send the receipt that came with this answer",
                field=_FIELD,
            )
        return digest


def key_name(key: bytes) -> str:
    """How a token names its key: 8 hexadecimal digits that tell nothing about it."""
    return hashlib.sha256(b"ibinn receipt key\n" + key).hexdigest()[:8]


def read_keys(path: Path) -> list[bytes]:
    """The keys in a file, a line each; empty lines and those that begin with # are left out.

    The first signs, all are accepted: to replace a key, put the new one above it, and take the old
    one away when its receipts are no longer needed.

    Raises:
        ConfigError: The file cannot be read, others may write it, or a line is no key. What stands
            for a key is never shown.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"the file of receipt keys {path} is not text; expected a key of printable characters "
            "on every line: make one with `openssl rand -hex 32`"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"the file of receipt keys {path} cannot be read ({error.strerror or error}); make one "
            f"with `(umask 077; openssl rand -hex 32 > {path})`"
        ) from error
    if mode & stat.S_IWOTH:
        raise ConfigError(
            f"the file of receipt keys {path} can be written by everyone on this machine (mode "
            f"{stat.S_IMODE(mode):o}); expected 600: chmod 600 {path}, and replace the key"
        )
    keys: list[bytes] = []
    for number, line in enumerate(text.splitlines(), start=1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if len(key) < SMALLEST_KEY_BYTES or not key.isprintable() or " " in key:
            raise ConfigError(
                f"line {number} of the file of receipt keys {path} is no key: it has {len(key)} "
                f"characters; expected {SMALLEST_KEY_BYTES} or more printable ones without spaces, "
                "such as `openssl rand -hex 32` prints"
            )
        if (made := key.encode("ascii")) not in keys:
            keys.append(made)
    if not keys:
        raise ConfigError(
            f"the file of receipt keys {path} holds no key; make one with `openssl rand -hex 32`"
        )
    return keys


def warnings(settings: Settings) -> list[str]:
    """What an operator should know about the file of keys, a sentence each."""
    path = settings.receipt_key
    try:
        mode = 0 if path is None else path.stat().st_mode
    except OSError:
        return []
    if mode & stat.S_IROTH:
        return [
            f"the file of receipt keys {path} can be read by everyone on this machine; chmod 600 it"
        ]
    return []


def _tag(key: bytes, signed: bytes) -> bytes:
    return urlsafe_b64encode(hmac.digest(key, signed, "sha256")).rstrip(b"=")


def _payload(text: str) -> AnswerDigest:
    try:
        return converters.read_digest(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError, LedgerError) as error:
        # Signed by us, so made by another version of this server.
        raise RequestError(
            f"the receipt is signed, but what it holds does not read ({error}); the server that "
            "gave it was of another version: send it there, or leave it out",
            field=_FIELD,
        ) from error


def _kept_keys(folder: Path) -> list[bytes]:
    """The key in a state folder, which is made by whichever process comes first."""
    path = folder / KEY_FILE
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _make(path)
    except OSError as error:
        raise ConfigError(
            f"no key for receipts can be made in the state folder {folder} "
            f"({error.strerror or error}); give --receipt-key, or a --state-dir that can be written"
        ) from error
    return read_keys(path)


def _make(path: Path) -> None:
    """Writes a new key that nobody else can read, unless there is one.

    A link appears whole or not at all and never replaces another: of several processes one wins,
    and all of them read its key.
    """
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.") as file:
        file.write(secrets.token_hex(SMALLEST_KEY_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
        try:
            os.link(file.name, path)
        except FileExistsError:
            return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
