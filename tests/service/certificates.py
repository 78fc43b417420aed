"""Certificates for tests: authorities made on the spot, and a folder with one of every kind."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOSTS = ("localhost", "127.0.0.1", "::1")
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> Pair:
        """Writes ``name.pem`` and ``name.key.pem``; replaces what is there."""
        pair = Pair(certificate=folder / f"{name}.pem", key=folder / f"{name}.key.pem")
        pair.certificate.write_bytes(self.certificate)
        pair.key.write_bytes(self.key)
        pair.key.chmod(0o600)
        return pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The files of a certificate and its private key."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority that lives as long as the object."""

    def __init__(self, name: str = "authority of the tests") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 1000 * DAY)
            .not_valid_after(now + 1000 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        self.certificate: bytes = certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        name: str,
        *,
        hosts: tuple[str, ...] = HOSTS,
        valid_from: timedelta = -DAY,
        valid_until: timedelta = 100 * DAY,
    ) -> Issued:
        """A certificate for servers and clients alike.

        Args:
            name: Its subject's common name.
            hosts: DNS names and addresses in its subject's alternative names.
            valid_from: When it begins to hold, from now.
            valid_until: When it ceases to hold, from now.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + valid_from)
            .not_valid_after(now + valid_until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if hosts:
            names = x509.SubjectAlternativeName([_alternative_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return Issued(
            certificate=builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM),
            key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Files of every kind that a test of TLS needs.

    Attributes:
        authority: What issued all but the foreign ones; issues more.
        ca: The authority's certificate.
        server: For localhost, 127.0.0.1 and ::1.
        client: Of ``client.test``.
        expired: Like `server`, and no longer valid; serves as a client's as well.
        foreign_ca: Certificate of an authority that nobody trusts.
        foreign: A pair from that one, for the same hosts.
    """

    authority: Authority
    ca: Path
    server: Pair
    client: Pair
    expired: Pair
    foreign_ca: Path
    foreign: Pair


def certificates(folder: Path) -> Certificates:
    """Writes one certificate of every kind to a folder."""
    authority, foreign = Authority(), Authority("an authority that nobody trusts")
    ca, foreign_ca = folder / "ca.pem", folder / "foreign-ca.pem"
    ca.write_bytes(authority.certificate)
    foreign_ca.write_bytes(foreign.certificate)
    expired = authority.issue("expired.test", valid_from=-10 * DAY, valid_until=-DAY)
    return Certificates(
        authority=authority,
        ca=ca,
        server=authority.issue("server.test").write(folder, "server"),
        client=authority.issue("client.test", hosts=("client.test",)).write(folder, "client"),
        expired=expired.write(folder, "expired"),
        foreign_ca=foreign_ca,
        foreign=foreign.issue("client.test").write(folder, "foreign"),
    )


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
