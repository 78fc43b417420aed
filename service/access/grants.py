"""The file of tokens: who holds which token or certificate, and what that allows.

    [[token]]
    name = "line-3"                     # in logs; shares of the server are dealt out by it
    sha256 = "9f86d0…"                  # of the token, hex; the token itself is nowhere
    roles = ["classify", "explain"]     # of classify, explain, feedback, audit, admin
    rate = 20.0                         # images per second (or the server's; inf: no limit)
    burst = 64                          # images at once before the rate applies (or the server's)
    expires = 2027-01-31                # refused from then on: midnight UTC, or a time with zone

    [[certificate]]
    name = "press-shop"
    subject = "press.example.org"       # a subject alternative name, or the common name
    roles = ["classify"]

A token is 32 random bytes, so a plain sha256 gives nothing away: there are 2^256 tokens to guess
among, and a slow, salted hash would only make every call dearer. The file may therefore be read
by others; who can write it can make himself an administrator.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

from ibinn.errors import ConfigError
from service.call import Role

TOKEN_PREFIX = "ibinn_"
"""Lets people and secret scanners recognise a token."""
_TOKEN_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_COMMON = frozenset({"name", "roles", "rate", "burst", "expires"})
_KEYS = {"token": _COMMON | {"sha256"}, "certificate": _COMMON | {"subject"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What the holder of a token or certificate may do.

    Attributes:
        name: Names the holder in logs; letters, digits and ``._@-``.
        roles: What it may do.
        rate: Images per second; infinite: no limit; None: the server's default.
        burst: Images at once before the rate applies; None: the server's default.
        expires: From when on it is refused; None: never.
    """

    name: str
    roles: frozenset[Role]
    rate: float | None = None
    burst: int | None = None
    expires: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """Everything in a file of tokens.

    Attributes:
        tokens: (sha256 of the token, grant).
        certificates: Grant by subject.
    """

    tokens: tuple[tuple[bytes, Grant], ...]
    certificates: Mapping[str, Grant]

    def of_token(self, digest: bytes) -> Grant | None:
        """The grant of the token with a sha256.

        Every entry is compared, each in constant time: how long it takes tells nothing of which
        entry matched, or how closely.
        """
        found = None
        for known, grant in self.tokens:
            if hmac.compare_digest(known, digest):
                found = grant
        return found

    def of_certificate(self, names: tuple[str, ...]) -> Grant | None:
        """The grant of the first of a certificate's names that has one."""
        return next((self.certificates[name] for name in names if name in self.certificates), None)


def new_token() -> str:
    """A token of 32 random bytes."""
    return TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)


def token_digest(token: str) -> bytes:
    """sha256 of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def read(path: Path) -> Grants:
    """Read a file of tokens.

    Raises:
        ConfigError: It cannot be read, others may write it, or an entry is not valid; all entries
            at fault are named. What stands for a token is never shown.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the file of tokens {path} cannot be read ({error}); make one with "
            f"`ibinn-serve token new --file {path}`"
        ) from error
    if mode & stat.S_IWOTH:
        raise ConfigError(
            f"the file of tokens {path} can be written by everyone on this machine (mode "
            f"{stat.S_IMODE(mode):o}); expected 600 or 644: chmod o-w {path}"
        )
    return parse(text, where=f"the file of tokens {path}")


def parse(text: str, *, where: str) -> Grants:
    """The entries in the text of a file of tokens.

    Args:
        text: TOML.
        where: Names the text in errors.

    Raises:
        ConfigError: As in `read`.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Its message tells a place and never quotes a value, which might be a token.
        raise ConfigError(f"{where} is not TOML: {error}; correct it") from None
    wrong = [f"unknown table {_shown(name)}" for name in content if name not in _KEYS]
    grants: dict[str, Grant] = {}
    tokens: dict[bytes, Grant] = {}
    certificates: dict[str, Grant] = {}
    for kind in _KEYS:
        entries = content.get(kind, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            wrong.append(f"{kind!r} is not a list of tables; write [[{kind}]]")
            continue
        for number, entry in enumerate(entries, start=1):
            called = f"{kind} {_called(entry, number)}"
            try:
                grant = _grant(entry, known=_KEYS[kind])
                if grant.name in grants:
                    raise ValueError(f"the name {grant.name!r} is taken; names are unique")
                grants[grant.name] = grant
                if kind == "token":
                    _add(tokens, _digest(entry), grant, what="sha256")
                else:
                    _add(certificates, _subject(entry), grant, what="subject")
            except ValueError as error:
                wrong.append(f"{called}: {error}")
    if wrong:
        raise ConfigError(f"{where} is not valid: {'; '.join(wrong)}; correct it")
    return Grants(tokens=tuple(tokens.items()), certificates=certificates)


def _shown(key: str) -> str:
    """A key for a message, unless it is long enough to be a token."""
    return repr(key) if len(key) < _TOKEN_BYTES else f"of {len(key)} characters"


def _called(entry: Mapping[str, Any], number: int) -> str:
    name = entry.get("name")
    known = isinstance(name, str) and _NAME.fullmatch(name)
    return f"{name!r} (number {number})" if known else f"number {number}"


def _grant(entry: Mapping[str, Any], *, known: frozenset[str]) -> Grant:
    if unknown := sorted(set(entry) - known):
        raise ValueError(f"unknown key {_shown(unknown[0])}; expected {', '.join(sorted(known))}")
    name = entry.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError("name is missing or not 1 to 64 letters, digits and ._@-")
    return Grant(
        name=name,
        roles=_roles(entry.get("roles")),
        rate=_rate(entry.get("rate")),
        burst=_burst(entry.get("burst")),
        expires=_expires(entry.get("expires")),
    )


def _roles(value: object) -> frozenset[Role]:
    names = [role.value for role in Role]
    if not isinstance(value, list) or not value or not all(role in names for role in value):
        raise ValueError(f"roles are missing or not a list of {', '.join(names)}")
    return frozenset(Role(role) for role in value)


def _rate(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError("rate is not a number above 0 (images per second; inf: no limit)")
    return float(value)


def _burst(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("burst is not a whole number of images from 1")
    return value


def _expires(value: object) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("expires has a time without a zone; write 2027-01-31T12:00:00Z")
        return value.astimezone(UTC)
    if isinstance(value, date):
        return datetime.combine(value, time.min, tzinfo=UTC)
    raise ValueError("expires is not a date such as 2027-01-31, without quotes")


def _digest(entry: Mapping[str, Any]) -> bytes:
    value = entry.get("sha256")
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError("sha256 is missing or not 64 hexadecimal digits (the token's hash)")
    return bytes.fromhex(value)


def _subject(entry: Mapping[str, Any]) -> str:
    value = entry.get("subject")
    if not isinstance(value, str) or not value.strip():
        raise ValueError("subject is missing or empty; write a name that the certificate bears")
    return value


def _add(found: dict[Any, Grant], key: Any, grant: Grant, *, what: str) -> None:
    if key in found:
        raise ValueError(f"the same {what} as {found[key].name!r}; every entry has its own")
    found[key] = grant


def in_words(grant: Grant) -> str:
    """Limits and expiry of a grant, for people; empty if it has none."""
    parts = []
    if grant.rate is not None:
        parts.append("no rate limit" if math.isinf(grant.rate) else f"{grant.rate:g} images/s")
    if grant.burst is not None:
        parts.append(f"{grant.burst} at once")
    if grant.expires is not None:
        parts.append(f"expires {grant.expires:%Y-%m-%d %H:%M} UTC")
    return ", ".join(parts)
