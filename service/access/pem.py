"""The files of TLS: read, and everything that is wrong with them told at once."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

_CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})
SOON = timedelta(days=14)
"""A certificate that holds no longer than this is warned of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Where certificate chain, private key and callers' authorities stand, all PEM.

    Attributes:
        certificate: The server's certificate, then those that lead to its authority.
        key: Its private key, not encrypted.
        client_ca: Authorities that callers' certificates must come from; None: callers need none.
    """

    certificate: Path
    key: Path
    client_ca: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """The content of `TlsFiles`, checked."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What a look at the files found.

    Attributes:
        material: Their content; None if there is a problem.
        problems: Everything for which they cannot be used.
        warnings: What to mend soon.
    """

    material: Material | None
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def examine(files: TlsFiles, *, now: datetime) -> Examined:
    """Read and check the files of TLS.

    Args:
        files: Where they are.
        now: With time zone.
    """
    problems: list[str] = []
    warnings: list[str] = []
    chain_pem = _read(files.certificate, "certificate", problems)
    key_pem = _read(files.key, "private key", problems)
    ca_pem = None if files.client_ca is None else _read(files.client_ca, "client CA", problems)
    chain = _certificates(files.certificate, "certificate", chain_pem, problems)
    public_key = _public_key_of(files.key, key_pem, problems)
    if chain:
        _check_times(files.certificate, chain[0], now, problems, warnings)
        if public_key is not None and public_key != _public_bytes(chain[0]):
            problems.append(
                f"private key {files.key} does not belong to certificate {files.certificate} "
                f"({_subject(chain[0])}); give the key that it was made for"
            )
    if files.client_ca is not None and ca_pem is not None:
        authorities = _certificates(files.client_ca, "client CA", ca_pem, problems)
        if authorities and all(_expired(authority, now) for authority in authorities):
            problems.append(
                f"client CA {files.client_ca}: every certificate in it has expired, so that no "
                "caller could connect; renew it"
            )
    if key_pem is not None and _mode(files.key) & stat.S_IROTH:
        warnings.append(
            f"private key {files.key} can be read by everyone on this machine; chmod 600 it"
        )
    if problems or chain_pem is None or key_pem is None:
        return Examined(material=None, problems=tuple(problems), warnings=tuple(warnings))
    material = Material(certificate=chain_pem, key=key_pem, client_ca=ca_pem)
    return Examined(material=material, problems=(), warnings=tuple(warnings))


def _read(path: Path, what: str, problems: list[str]) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        problems.append(f"{what} {path} cannot be read ({reason}); give the path of a PEM file")
        return None


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _certificates(
    path: Path, what: str, pem: bytes | None, problems: list[str]
) -> Sequence[x509.Certificate]:
    if pem is None:
        return ()
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        problems.append(
            f"{what} {path} holds no readable PEM certificate; expected blocks that begin with "
            "-----BEGIN CERTIFICATE-----"
        )
        return ()


def _public_key_of(path: Path, pem: bytes | None, problems: list[str]) -> bytes | None:
    if pem is None:
        return None
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        problems.append(
            f"private key {path} is encrypted with a passphrase, which nobody can enter at a "
            f"restart; decrypt it: openssl pkey -in {path} -out server.key, mode 600"
        )
        return None
    except (ValueError, UnsupportedAlgorithm):
        problems.append(
            f"private key {path} is no readable PEM private key; expected a block that begins "
            "with -----BEGIN PRIVATE KEY-----"
        )
        return None
    usable = isinstance(key, rsa.RSAPrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES
    )
    if not usable:
        problems.append(
            f"private key {path} is neither RSA nor EC over P-256, P-384 or P-521, which callers "
            "need; make a key of one of these and have a certificate issued for it"
        )
        return None
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _check_times(
    path: Path,
    certificate: x509.Certificate,
    now: datetime,
    problems: list[str],
    warnings: list[str],
) -> None:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if _expired(certificate, now):
        problems.append(
            f"certificate {path} ({_subject(certificate)}) expired at {ends:%Y-%m-%d %H:%M} UTC; "
            "renew it"
        )
    elif now < begins:
        problems.append(
            f"certificate {path} ({_subject(certificate)}) is valid only from "
            f"{begins:%Y-%m-%d %H:%M} UTC; check this machine's clock"
        )
    elif ends - now < SOON:
        warnings.append(
            f"certificate {path} ({_subject(certificate)}) expires at {ends:%Y-%m-%d %H:%M} UTC; "
            "renew it, it is read again without a restart"
        )


def _expired(certificate: x509.Certificate, now: datetime) -> bool:
    return now > certificate.not_valid_after_utc


def _public_bytes(certificate: x509.Certificate) -> bytes:
    """The certificate's public key; empty if it is of a kind that no private key here can be of."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return b""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "no subject"
