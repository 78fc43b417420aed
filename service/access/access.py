"""Who calls, whether they may, and how much they may send."""

from __future__ import annotations

import functools
import ipaddress
import math
import time
import urllib.parse
from collections.abc import Callable, Iterable
from typing import NoReturn

from ibinn.errors import ForbiddenError, UnauthenticatedError
from service.access.grants import Grant, Grants, token_digest
from service.access.grants_file import GrantsFile
from service.access.shares import Shares
from service.call import Caller, Role
from service.settings import Settings

ANONYMOUS_ROLES = frozenset(Role) - {Role.ADMIN}
"""What callers may do where no tokens are set up; to administer takes a token or certificate."""
_REMEMBERED = 4096
_SCHEME = "bearer "


class Access:
    """Decides who calls. Not thread-safe; meant for the event loop.

    Without a file of tokens every caller is anonymous: named by its certificate, or by its host
    where there is none, with every role but admin. With one, a caller needs a token
    (``authorization: Bearer …``) or a certificate that stands in it. A token that is sent must be
    known, also beside a certificate.

    Args:
        grants: File of tokens; None: anonymous callers.
        rate: Images per second of callers that have no rate of their own; None: no limit.
        burst: Images at once, of callers that have none of their own.
        clock: Monotonic seconds.
        now: Seconds since 1970, for expiry.
    """

    def __init__(
        self,
        *,
        grants: GrantsFile | None,
        rate: float | None,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._file = grants
        self._rate = rate
        self._burst = burst
        self._now = now
        self._shares = Shares(clock=clock)
        self._grants: Grants | None = None
        self._known: dict[bytes, Grant] = {}
        self._callers: dict[str, Caller] = {}
        self._anonymous = functools.lru_cache(maxsize=_REMEMBERED)(self._make_anonymous)

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> Access:
        """Access as the settings say.

        Raises:
            ConfigError: The file of tokens is not valid.
        """
        file = None if settings.tokens is None else GrantsFile(settings.tokens, clock=clock)
        return cls(
            grants=file,
            rate=settings.caller_rate,
            burst=settings.caller_burst,
            clock=clock,
            now=now,
        )

    def identify(
        self,
        metadata: Iterable[tuple[str, str | bytes]],
        peer: str,
        certificate_names: tuple[str, ...],
    ) -> Caller:
        """Who makes a call.

        Args:
            metadata: The call's metadata, keys in lower case.
            peer: Its peer as gRPC writes it, such as ``ipv4:127.0.0.1:50812``.
            certificate_names: From `service.access.tls.certificate_names`.

        Raises:
            UnauthenticatedError: A token or known certificate is needed and missing, or the token
                sent is unknown or expired.
        """
        if self._file is None:
            return self._anonymous(certificate_names[0] if certificate_names else host_of(peer))
        grants = self._current(self._file)
        token = _bearer(metadata)
        if token is not None:
            grant = self._of_token(grants, token)
        else:
            grant = grants.of_certificate(certificate_names)
        if grant is None:
            _refuse(token, certificate_names)
        if grant.expires is not None and self._now() >= grant.expires.timestamp():
            raise UnauthenticatedError(
                f"the access of {grant.name!r} expired at {grant.expires:%Y-%m-%d %H:%M} UTC; ask "
                "the server's operator for a new one"
            )
        caller = self._callers.get(grant.name)
        if caller is None:
            caller = self._callers[grant.name] = self._caller(grant)
        return caller

    def may_enter(self, metadata: Iterable[tuple[str, str | bytes]]) -> bool:
        """Whether a call's message is worth reading: False where `identify` will refuse anyway.

        Args:
            metadata: The call's metadata; it is all that is known so early.
        """
        if self._file is None:
            return True
        grants = self._current(self._file)
        try:
            token = _bearer(metadata)
        except UnauthenticatedError:
            return False
        if token is None:
            return bool(grants.certificates)  # Who it is, its certificate says later.
        return self._of_token(grants, token) is not None

    def require(self, caller: Caller, role: Role) -> None:
        """Checks that a caller has a role.

        Raises:
            ForbiddenError: It has not.
        """
        if role in caller.roles:
            return
        held = ", ".join(sorted(caller.roles))
        if self._file is None:
            how = (
                f"this server asks nobody for a token, and {role} always needs one: make a file "
                f"with `ibinn-serve token new --name NAME --role {role} --file FILE` and start "
                "the server with --tokens FILE"
            )
        else:
            how = f"use a token with it; the operator adds the role {role} in the file of tokens"
        raise ForbiddenError(
            f"this call needs the role {role}, caller {caller.name!r} has {held}; {how}"
        )

    def charge(self, caller: Caller, images: int) -> None:
        """Takes images from the caller's share.

        Raises:
            RateLimitedError: It sends more than its rate; it says when to try again.
        """
        if caller.rate is not None:
            self._shares.take(caller.name, images, rate=caller.rate, burst=caller.burst)

    def _current(self, file: GrantsFile) -> Grants:
        """The grants in force; what was remembered of others is forgotten."""
        grants = file.current()
        if grants is not self._grants:
            self._grants = grants
            self._known.clear()
            self._callers.clear()
        return grants

    def _of_token(self, grants: Grants, token: str) -> Grant | None:
        # Remembered by hash, so that no token outlives its call in memory. A look-up by hash
        # tells by its time nothing that helps to find a token: nobody can choose a sha256.
        digest = token_digest(token)
        found = self._known.get(digest)
        if found is None:
            found = grants.of_token(digest)
            if found is not None:
                self._known[digest] = found
        return found

    def _caller(self, grant: Grant) -> Caller:
        rate = self._rate if grant.rate is None else grant.rate
        return Caller(
            name=grant.name,
            roles=grant.roles,
            rate=None if rate is None or math.isinf(rate) else rate,
            burst=self._burst if grant.burst is None else grant.burst,
        )

    def _make_anonymous(self, name: str) -> Caller:
        return Caller(name=name, roles=ANONYMOUS_ROLES, rate=self._rate, burst=self._burst)


@functools.lru_cache(maxsize=_REMEMBERED)
def host_of(peer: str) -> str:
    """The host of a peer as gRPC writes it; ``unix`` for a socket of this machine.

    >>> host_of("ipv4:127.0.0.1:50812"), host_of("ipv6:%5B::1%5D:50812"), host_of("unix:")
    ('127.0.0.1', '::1', 'unix')
    """
    scheme, _, rest = peer.partition(":")
    if scheme not in ("ipv4", "ipv6"):
        return scheme if scheme.startswith("unix") else "unknown"
    host = urllib.parse.unquote(rest).rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "unknown"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _bearer(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """The token sent, or None if there is none."""
    found: str | bytes | None = None
    for key, value in metadata:
        if key == "authorization":
            if found is not None:
                raise UnauthenticatedError("got several authorization entries; send one")
            found = value
    if found is None:
        return None
    if not isinstance(found, str) or found[: len(_SCHEME)].lower() != _SCHEME:
        raise UnauthenticatedError(
            "the authorization entry is not of the form 'Bearer TOKEN'; send it so"
        )
    return found[len(_SCHEME) :].strip()


def _refuse(token: str | None, certificate_names: tuple[str, ...]) -> NoReturn:
    if token is not None:
        raise UnauthenticatedError(
            "the token sent is not known to this server; ask its operator for one"
        )
    if certificate_names:
        raise UnauthenticatedError(
            f"no token was sent, and the certificate of {certificate_names[0]!r} has no entry in "
            "the file of tokens; send 'authorization: Bearer TOKEN', or have the operator add one"
        )
    raise UnauthenticatedError(
        "no token was sent and this server asks for one; send 'authorization: Bearer TOKEN' "
        "(the server's operator makes one with `ibinn-serve token new`)"
    )
