"""Calls that take down how they ended, told apart by who said so: the server or the transport."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from ibinn.client import wire

ANSWERED = "OK"
BY_TRANSPORT = " (transport)"
"""Ends the name of a status that has no google.rpc details: no handler of ours gave it."""
WITHOUT_ADVICE = " (no RetryInfo)"
"""Ends the name of a status of ours that should say when to try again and does not."""

OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """One call, or one image of a stream.

    Attributes:
        kind: Its method.
        sent: Monotonic time; likewise `ended`.
        outcome: ``OK`` or the name of its status, see `outcome_of`.
    """

    kind: str
    sent: float
    ended: float
    outcome: str


@dataclass(slots=True)
class Ledger:
    """All calls of a scenario."""

    calls: list[Ended] = field(default_factory=list)

    def add(self, kind: str, sent: float, outcome: str) -> None:
        self.calls.append(Ended(kind=kind, sent=sent, ended=time.monotonic(), outcome=outcome))

    def outcomes(self, *kinds: str) -> Counter[str]:
        """How many ended how; of these methods, or of all."""
        return Counter(call.outcome for call in self.calls if not kinds or call.kind in kinds)


def outcome_of(error: grpc.aio.AioRpcError) -> str:
    """The name of a status, and whether the server's own words came with it."""
    name = str(error.code().name)
    metadata = dict(error.trailing_metadata() or ())
    details = metadata.get("grpc-status-details-bin")
    if details is None:
        return name + BY_TRANSPORT
    return name + advice_missing(Status.FromString(details))


def advice_missing(status: Status) -> str:
    """`WITHOUT_ADVICE` where another try makes sense later and the status does not say when."""
    retried = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
    if status.code not in [code.value[0] for code in retried]:
        return ""
    advice = any(detail.Is(RetryInfo.DESCRIPTOR) for detail in status.details)
    return "" if advice else WITHOUT_ADVICE


async def unary(
    channel: grpc.aio.Channel,
    path: str,
    request: bytes,
    ledger: Ledger,
    *,
    timeout_s: float,
    metadata: Sequence[tuple[str, str]] = (),
) -> str:
    """One call; how it ended goes into the ledger and is returned."""
    sent = time.monotonic()
    try:
        await channel.unary_unary(path)(request, timeout=timeout_s, metadata=tuple(metadata))
        outcome = ANSWERED
    except grpc.aio.AioRpcError as error:
        outcome = outcome_of(error)
    ledger.add(path.rpartition("/")[2], sent, outcome)
    return outcome


async def stream(
    channel: grpc.aio.Channel, images: Sequence[bytes], ledger: Ledger, *, timeout_s: float
) -> str:
    """Messages of one image over one stream, until it is over or the server ends it.

    Each image's end goes into the ledger, at the latest with the stream's status, which is
    returned.
    """
    kind = wire.CLASSIFY_STREAM.rpartition("/")[2]
    call: Any = channel.stream_stream(wire.CLASSIFY_STREAM)(timeout=timeout_s)
    status = _FirstStatus(call)
    sent: dict[int, float] = {}
    try:
        for index, image in enumerate(images):
            sent[index] = time.monotonic()
            await call.write(wire.stream_bytes([image], timeout_s=timeout_s))
            message = await call.read()
            if message is grpc.aio.EOF:
                break
            for answered, name in wire.stream_results(message):
                ledger.add(kind, sent.pop(answered), name)
        else:
            await call.done_writing()
            await call.read()
    except (grpc.RpcError, asyncio.InvalidStateError):
        pass  # what writing raises once the server has ended the call; its status says why
    outcome = await status.outcome()
    for time_sent in sent.values():
        ledger.add(kind, time_sent, outcome)
    return outcome


class _FirstStatus:
    """The status that a call ended with.

    Where sending meets the end of a call, grpc.aio puts a failure of its own in the place of the
    server's status: before that came, so that it follows, or after it, so that the first counts.

    Args:
        call: A call that is written to.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._first: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._note)

    async def outcome(self) -> str:
        await self._call.code()
        found = self._first or _error_of(self._call)
        for _ in range(1000):
            if found.details() != "Internal error from Core":
                break
            await asyncio.sleep(0.001)
            found = _error_of(self._call)
        return ANSWERED if found.code() is grpc.StatusCode.OK else outcome_of(found)

    def _note(self, call: Any) -> None:
        self._first = self._first or _error_of(call)


def _error_of(call: Any) -> grpc.aio.AioRpcError:
    """The status of a call that has ended."""
    found = map(_at_once, (call.code(), call.initial_metadata(), call.trailing_metadata()))
    return grpc.aio.AioRpcError(*found, details=_at_once(call.details()))


def _at_once(answer: Coroutine[Any, Any, Any]) -> Any:
    """What a call that has ended answers without waiting."""
    try:
        answer.send(None)
    except StopIteration as end:
        return end.value
    answer.close()
    raise RuntimeError("the call has not ended")
