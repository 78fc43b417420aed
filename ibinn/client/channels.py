"""Where a server is and how it is spoken to: addresses, TLS, load balancing, token."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import grpc
import grpc.aio

from ibinn.errors import ConfigError

Option = tuple[str, str | int]

_MAX_ANSWER_BYTES = 64 * 2**20
_SCHEMES = ("dns", "ipv4", "ipv6", "unix", "unix-abstract", "xds")
_LOCAL_SCHEMES = ("unix", "unix-abstract")
# Calls go round over the servers that say SERVING (`grpc.health.v1`): one that drains gets none.
_BALANCED = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": "ibinn.v1.ClassificationService"},
    }
)
_OPTIONS: tuple[Option, ...] = (
    ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
    # A retry policy from a DNS record would multiply with `Retry`. What gRPC repeats by itself,
    # once and only where the server provably saw nothing of the call, stays on.
    ("grpc.service_config_disable_resolution", 1),
    # A server that is back is found again within seconds, not minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """What a client needs for TLS, as PEM.

    Attributes:
        root_certificates: Authorities that the server's certificate must come from; None: those
            that gRPC brings along.
        certificate: The client's own certificate chain, where the server asks for one.
        key: Its private key.
        server_name: Name that the server's certificate must have; empty: the address's host.
    """

    root_certificates: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate is None) is not (self.key is None):
            got, missing = ("key", "certificate") if self.key else ("certificate", "key")
            raise ConfigError(f"TLS got a client {got} without its {missing}; give both or neither")

    @classmethod
    def from_files(
        cls,
        *,
        root_certificates: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        server_name: str = "",
    ) -> Self:
        """The same from files.

        Raises:
            ConfigError: A file cannot be read, or a certificate stands without its key.
        """
        return cls(
            root_certificates=_read(root_certificates),
            certificate=_read(certificate),
            key=_read(key),
            server_name=server_name,
        )

    def credentials(self) -> grpc.ChannelCredentials:
        """The same for gRPC."""
        return grpc.ssl_channel_credentials(
            root_certificates=self.root_certificates,
            private_key=self.key,
            certificate_chain=self.certificate,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where a server is and how it is spoken to; makes channels.

    Attributes:
        target: ``host:port``; ``dns:///host:port``, whose addresses take turns; several
            ``host:port`` with commas between them, which take turns and are looked up once; or
            another address of gRPC, such as ``unix:/run/ibinn.sock``. Those that take turns are
            asked for their health, and one that does not serve is passed over.
        tls: For a server behind TLS; None sends in the clear.
        credentials: In place of `tls`, for what it cannot say.
        token: Sent with every call; empty: none.
        allow_plaintext_token: Send the token in the clear even beyond this machine, where whoever
            carries the bytes can read and use it.
        wait_for_ready: Whether calls wait, within their time, for a server that is not there yet.
        keepalive_s: During a call, time without a sign of the server after which it is asked for
            one; without an answer within 10 s the call ends as UNAVAILABLE. None: never asked.

    Raises:
        ConfigError: The address or the combination is not valid, or the token would be readable.
    """

    target: str
    tls: ClientTls | None = None
    credentials: grpc.ChannelCredentials | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)
    allow_plaintext_token: bool = False
    wait_for_ready: bool = False
    keepalive_s: float | None = 30.0

    def __post_init__(self) -> None:
        if self.tls is not None and self.credentials is not None:
            raise ConfigError("got tls and credentials; give one of them")
        entries = _entries(self.target)
        if len(entries) > 1 and self.tls is not None and not self.tls.server_name:
            raise ConfigError(
                f"{len(entries)} addresses behind TLS need one name that all their certificates "
                "have; give server_name, or one dns:/// name"
            )
        if self.token and not (self.token.isascii() and self.token.isprintable()):
            raise ConfigError("the token holds characters other than printable ASCII; check it")
        if self.token and not (self.secure or self.allow_plaintext_token or _is_local(self.target)):
            raise ConfigError(
                f"the token would go to {self.target} in the clear; use TLS, or allow it where the "
                "network itself is trusted (allow_plaintext_token=True, --allow-plaintext-token)"
            )

    @property
    def secure(self) -> bool:
        """Whether what is sent is encrypted."""
        return self.tls is not None or self.credentials is not None

    def channel(self, *, options: Sequence[Option] = ()) -> grpc.Channel:
        """A channel for threads; connects on its first call and keeps the connection.

        Args:
            options: Beside the ones that follow from the connection.
        """
        target, options, credentials = self._arguments(options)
        if credentials is None:
            return grpc.insecure_channel(target, options=options)
        return grpc.secure_channel(target, credentials, options=options)

    def aio_channel(self, *, options: Sequence[Option] = ()) -> grpc.aio.Channel:
        """A channel for asyncio; as `channel`."""
        target, options, credentials = self._arguments(options)
        if credentials is None:
            return grpc.aio.insecure_channel(target, options=options)
        return grpc.aio.secure_channel(target, credentials, options=options)

    def metadata(self, request_id: str) -> tuple[tuple[str, str], ...]:
        """What accompanies a call: its name for logs, and the token if there is one."""
        named = (("x-request-id", request_id),)
        return (*named, ("authorization", f"Bearer {self.token}")) if self.token else named

    def _arguments(
        self, options: Sequence[Option]
    ) -> tuple[str, tuple[Option, ...], grpc.ChannelCredentials | None]:
        found = _OPTIONS
        if self.keepalive_s is not None:
            found += (("grpc.keepalive_time_ms", round(1000 * self.keepalive_s)),)
        if _takes_turns(self.target):
            found += (("grpc.service_config", _BALANCED),)
        if self.tls is not None and self.tls.server_name:
            found += (("grpc.ssl_target_name_override", self.tls.server_name),)
        credentials = self.credentials if self.tls is None else self.tls.credentials()
        return _uri(self.target), (*found, *options), credentials


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror or error}; give the path of a PEM file"
        ) from error


def _scheme(target: str) -> str | None:
    scheme, colon, _ = target.partition(":")
    return scheme if colon and scheme in _SCHEMES else None


def _takes_turns(target: str) -> bool:
    return _scheme(target) == "dns" or len(_entries(target)) > 1


def _entries(target: str) -> list[tuple[str, int]]:
    """Host and port of each address; none for a scheme that has no hosts."""
    scheme = _scheme(target)
    if scheme in _LOCAL_SCHEMES or scheme == "xds":
        return []
    listed = target if scheme is None else target.partition(":")[2].rpartition("/")[2]
    return [_host_and_port(entry.strip(), target) for entry in listed.split(",")]


def _host_and_port(entry: str, target: str) -> tuple[str, int]:
    host, _, port = entry.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    bracketed = bare != host
    if not bare or not port.isdecimal() or int(port) > 65535 or (":" in bare and not bracketed):
        raise ConfigError(
            f"{target!r} is not the address of a server; expected host:port, [ipv6]:port, or "
            "several with commas between them"
        )
    return bare, int(port)


def _is_local(target: str) -> bool:
    if _scheme(target) in _LOCAL_SCHEMES:
        return True
    hosts = [host for host, _ in _entries(target)]
    return bool(hosts) and all(map(_is_loopback, hosts))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _uri(target: str) -> str:
    """The address as gRPC takes it; a list of hosts becomes one of addresses."""
    entries = _entries(target)
    if _scheme(target) is not None or len(entries) == 1:
        return target
    found = [_addresses(host, port) for host, port in entries]
    # One list holds addresses of one kind.
    for family, scheme in ((socket.AF_INET, "ipv4"), (socket.AF_INET6, "ipv6")):
        if all(family in by_family for by_family in found):
            return f"{scheme}:" + ",".join(by_family[family] for by_family in found)
    raise ConfigError(
        f"the hosts of {target!r} have no kind of address in common, some IPv4 and some IPv6; "
        "name them in one way"
    )


def _addresses(host: str, port: int) -> dict[socket.AddressFamily, str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"host {host!r} is not known: {error}; check its name") from error
    addresses: dict[socket.AddressFamily, str] = {}
    for family, _, _, _, address in found:
        text = f"[{address[0]}]" if family == socket.AF_INET6 else str(address[0])
        addresses.setdefault(family, f"{text}:{port}")
    return addresses
