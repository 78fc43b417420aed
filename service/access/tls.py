"""The server's side of TLS: credentials that follow their files, and names of callers."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import grpc

from ibinn.errors import ConfigError
from service.access import exposure
from service.access.pem import Examined, Material, TlsFiles, examine
from service.settings import Settings

_log = logging.getLogger(__name__)

_NAME_KEYS = ("x509_subject_alternative_name", "x509_common_name")


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """Credentials of the settings' certificate, for one port; None: plaintext, where it may be.

    With client authorities every caller must show a certificate of theirs (mutual TLS). At each
    handshake the files are looked at, and a changed set holds for new connections; connections
    that are open stay open. A set that is not valid, such as a new certificate whose key is not
    written yet, changes nothing: the one of before stays in force and an error is logged.

    Raises:
        ConfigError: The files cannot be used, or the address may not be served in plaintext;
            everything that is wrong is told.
    """
    if wrong := [*_incomplete(settings), *exposure.problems(settings)]:
        raise ConfigError("; ".join(wrong))
    files = _files(settings)
    if files is None:
        return None
    certificate = ServerCertificate(files)
    return grpc.dynamic_ssl_server_credentials(
        _configuration(certificate.material),
        certificate.fetch,
        require_client_authentication=files.client_ca is not None,
    )


def problems(settings: Settings) -> list[str]:
    """Everything for which the settings' TLS cannot be served."""
    if wrong := _incomplete(settings):
        return wrong
    files = _files(settings)
    return [] if files is None else list(examine(files, now=datetime.now(UTC)).problems)


def warnings(settings: Settings) -> list[str]:
    """What to mend soon about the settings' TLS."""
    files = None if _incomplete(settings) else _files(settings)
    return [] if files is None else list(examine(files, now=datetime.now(UTC)).warnings)


def certificate_names(auth_context: Mapping[str, Iterable[bytes]]) -> tuple[str, ...]:
    """The names of a caller's certificate, from gRPC's authentication context.

    Its subject alternative names, then its common name; none without mutual TLS. A name with
    characters that cannot be shown is left out: it could deceive who reads a log.
    """
    names = (
        raw.decode("utf-8", "replace") for key in _NAME_KEYS for raw in auth_context.get(key, ())
    )
    return tuple(dict.fromkeys(name for name in names if name and _is_plain(name)))


class ServerCertificate:
    """Certificate, key and client authorities in force, read again when their files change.

    gRPC asks for them in its own threads, one handshake at a time.

    Args:
        files: Where they stand.

    Raises:
        ConfigError: They cannot be used now.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamps = _stamps(files)
        self._told: tuple[str, ...] = ()
        found = self._examine()
        if found.material is None:
            raise ConfigError("; ".join(found.problems))
        self.material: Material = found.material

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """What gRPC asks before each handshake: the new configuration, or None for no change."""
        stamps = _stamps(self._files)
        if stamps == self._stamps and not self._told:
            return None
        # Stamps are taken before the files are read: a change in between shows at the next call.
        # A set with a problem is read anew each time, however its files are stamped.
        self._stamps = stamps
        found = self._examine()
        if found.material is None:
            if found.problems != self._told:
                _log.error(
                    "%s; the certificate of before stays in force", "; ".join(found.problems)
                )
            self._told = found.problems
            return None
        self._told = ()
        if found.material == self.material:
            return None
        self.material = found.material
        _log.info("certificate %s was read again", self._files.certificate)
        return _configuration(found.material)

    def _examine(self) -> Examined:
        found = examine(self._files, now=datetime.now(UTC))
        for warning in found.warnings:
            _log.warning("%s", warning)
        return found


def _incomplete(settings: Settings) -> list[str]:
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is not None and key is None:
        return [f"tls_certificate is {certificate}, tls_key is not set; give --tls-key as well"]
    if key is not None and certificate is None:
        return [f"tls_key is {key}, tls_certificate is not set; give --tls-certificate as well"]
    if settings.tls_client_ca is not None and certificate is None:
        return [
            f"tls_client_ca is {settings.tls_client_ca}, tls_certificate is not set: callers' "
            "certificates are asked for over TLS; give --tls-certificate and --tls-key as well"
        ]
    return []


def _files(settings: Settings) -> TlsFiles | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return TlsFiles(
        certificate=settings.tls_certificate,
        key=settings.tls_key,
        client_ca=settings.tls_client_ca,
    )


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    # A new object at each call: gRPC takes over what it is given.
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], root_certificates=material.client_ca
    )


def _stamps(files: TlsFiles) -> tuple[tuple[int, int, int] | None, ...]:
    return tuple(
        _stamp(path) for path in (files.certificate, files.key, files.client_ca) if path is not None
    )


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def _is_plain(name: str) -> bool:
    return name.isprintable() and "\ufffd" not in name
