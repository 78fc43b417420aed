"""Which addresses others can reach, and what may be served there."""

from __future__ import annotations

import ipaddress

from service.settings import Settings


def is_local(host: str) -> bool:
    """Whether only this machine can reach an address to listen on.

    >>> is_local("127.0.0.1"), is_local("localhost"), is_local("0.0.0.0"), is_local("10.0.0.3")
    (True, True, False, False)
    """
    if host.startswith("unix:") or host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def problems(settings: Settings) -> list[str]:
    """Why the settings' address may not be served as it is; empty if it may.

    Plaintext beyond this machine shows images and tokens to everyone on the way, so that it must
    be asked for. The endpoint for Prometheus is served beside it without TLS: it holds counts and
    digests, neither images nor names of callers.
    """
    if settings.tls_certificate is not None or settings.insecure or is_local(settings.host):
        return []
    return [
        f"host is {settings.host!r}, which other machines can reach, and there is no certificate: "
        "images and tokens would travel in plaintext; give --tls-certificate and --tls-key, "
        "listen on 127.0.0.1, or allow it with --insecure (behind a proxy that does TLS)"
    ]


def warnings(settings: Settings) -> list[str]:
    """What an operator should know about who can call."""
    if is_local(settings.host):
        return []
    found = []
    if settings.tls_certificate is None:
        found.append(
            f"{settings.host} is served in plaintext (--insecure): whoever is on the way can read "
            "images and tokens"
        )
    if settings.tokens is None and settings.tls_client_ca is None:
        found.append(
            f"everyone who reaches {settings.host} may use the server; --tokens or "
            "--tls-client-ca asks callers who they are"
        )
    return found
