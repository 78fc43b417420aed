"""What the service knows of one call beside its message, and which calls there are.

A handler gets the message and a `Call`; it never sees gRPC's context.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any


class Role(enum.StrEnum):
    """What a caller may do."""

    CLASSIFY = "classify"
    EXPLAIN = "explain"
    FEEDBACK = "feedback"
    AUDIT = "audit"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls.

    Attributes:
        name: Of the token or the certificate; the peer's host where neither is asked for. Shares
            of the server are dealt out by it. It appears in logs, never in metrics.
        roles: What it may do.
        rate: Images per second that it may send; None: no limit.
        burst: Images that it may send at once before the rate applies.
    """

    name: str
    roles: frozenset[Role]
    rate: float | None = None
    burst: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call.

    Attributes:
        method: Its name without the service, such as ``Classify``.
        request_id: The caller's name for it, or one made here.
        caller: Who calls.
        deadline: Monotonic time after which the caller does not wait; infinite if it did not say.
        charge: Takes a number of images from the caller's share; raises RateLimitedError. A unary
            call was charged one before its handler ran.
    """

    method: str
    request_id: str
    caller: Caller
    deadline: float
    charge: Callable[[int], None]


Unary = Callable[[Any, Call], Awaitable[Any]]
Stream = Callable[[AsyncIterator[Any], Call], AsyncIterator[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A method of a service and what handles it; exactly one of `unary` and `stream` is given.

    Attributes:
        method: Its name without the service.
        role: What a caller must be allowed; None: nothing.
        request: The message class it takes.
        unary: One message to one message; errors leave as exceptions.
        stream: Messages to messages.
        images: How many images a unary call counts for against the caller's rate.
    """

    method: str
    role: Role | None
    request: type[Any]
    unary: Unary | None = None
    stream: Stream | None = None
    images: int = 0
