"""What an answer to a mutated input may be, and what is a fault."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from ibinn.v1 import classification_service_pb2 as service
from tests.fuzz.calls import GRPCS_OWN, OURS, FuzzCall

SLOW_S = 1.0
PATIENCE_S = 20.0

DOCUMENTED = frozenset(
    {
        *("OK", "INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND"),
        *("FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"),
    }
)
"""What `classification_service.proto` lists, but INTERNAL, which is a fault of ours: a finding."""
_GRPCS_OWN = DOCUMENTED | {"INTERNAL", "UNKNOWN"}
_TOO_LARGE = "larger than max"
_BROKE_DOWN = "the decoder "
_LOST_STATUS = "Internal error from Core"
"""What grpc.aio says on the caller's side when a stream ended while it was being written to and the
status did not reach it: nothing that the server said."""
_TRIES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An input with which something went wrong.

    Attributes:
        name: Of the call.
        what: What went wrong.
        data: The bytes sent.
    """

    name: str
    what: str
    data: bytes


@dataclass(slots=True, kw_only=True)
class Tally:
    """What came of all inputs of a stage.

    Attributes:
        inputs: Mutated inputs sent.
        statuses: How often each status came, of calls and of images in streams.
        findings: What went wrong.
        slowest_s: Longest time of a call.
        decoder_faults: Images on which a decoder broke down.
    """

    inputs: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    slowest_s: float = 0.0
    decoder_faults: int = 0

    def find(self, call: FuzzCall, what: str) -> None:
        """Notes a finding."""
        data = b"\n----\n".join(call.messages)
        self.findings.append(Finding(name=call.name, what=what, data=data))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """How a call ended."""

    messages: list[bytes]
    code: str
    details: str
    trailing: Sequence[tuple[str, Any]]


async def send(channel: grpc.aio.Channel, call: FuzzCall, tally: Tally) -> float:
    """Sends a call and judges its answer; the seconds that it took."""
    for _ in range(_TRIES):
        start = time.perf_counter()
        answer = await _answer(channel, call)
        took_s = time.perf_counter() - start
        if answer.details != _LOST_STATUS:
            break
    tally.inputs += call.inputs
    tally.statuses[answer.code] += 1
    tally.slowest_s = max(tally.slowest_s, took_s)
    _judge_status(call, answer, tally)
    if call.method == f"{OURS}ClassifyStream" and answer.code == "OK":
        _judge_stream(call, answer.messages, tally)
    return took_s


async def _answer(channel: grpc.aio.Channel, call: FuzzCall) -> _Answer:
    options: dict[str, Any] = {"timeout": PATIENCE_S, "metadata": call.metadata}
    messages = []
    if call.stream:
        ended: Any = channel.stream_stream(call.method)(**options)
        messages = await _converse(ended, call.messages)
    else:
        ended = channel.unary_unary(call.method)(call.messages[0], **options)
    return _Answer(
        messages=messages,
        code=(await ended.code()).name,
        details=await ended.details() or "",
        trailing=tuple(await ended.trailing_metadata() or ()),
    )


def _judge_status(call: FuzzCall, answer: _Answer, tally: Tally) -> None:
    own = call.method.startswith(GRPCS_OWN)
    code, what = answer.code, f"{call.method} ended with {answer.code}: {answer.details[:300]}"
    if code not in (_GRPCS_OWN if own else DOCUMENTED):
        tally.find(call, what)
        return
    if _BROKE_DOWN in answer.details:
        tally.decoder_faults += 1
    if code == "OK" or own or _TOO_LARGE in answer.details:
        return
    packed = [value for key, value in answer.trailing if key == "grpc-status-details-bin"]
    if len(packed) == 1:
        _judge_details(call, Status.FromString(packed[0]), code, tally)
    else:
        tally.find(call, f"no details: {what}")


def _judge_details(call: FuzzCall, status: Status, code: str, tally: Tally) -> None:
    info = ErrorInfo()
    if not any(detail.Unpack(info) for detail in status.details) or info.domain != "ibinn":
        tally.find(call, f"{call.method}: {code} has no ErrorInfo")


def _judge_stream(call: FuzzCall, answers: Sequence[bytes], tally: Tally) -> None:
    """Every image of a stream that ended well has one result."""
    sent = 0
    try:
        sent = sum(
            len(service.ClassifyStreamRequest.FromString(data).requests) for data in call.messages
        )
    except DecodeError:
        tally.find(call, "a stream of bytes that are no message ended OK")
    results = [
        result
        for answer in answers
        for result in service.ClassifyStreamResponse.FromString(answer).results
    ]
    if sorted(result.index for result in results) != list(range(sent)):
        tally.find(call, f"{len(results)} results for {sent} images")
    for result in results:
        which = result.WhichOneof("result")
        code = "OK"
        if which == "error":
            (code,) = (c.name for c in grpc.StatusCode if c.value[0] == result.error.code)
            _judge_details(call, result.error, code, tally)
            if _BROKE_DOWN in result.error.message:
                tally.decoder_faults += 1
        tally.statuses[f"image {code}"] += 1
        if which is None or code not in DOCUMENTED:
            tally.find(
                call, f"an image of a stream ended with {code}: {result.error.message[:300]}"
            )


async def _converse(call: Any, messages: Sequence[bytes]) -> list[bytes]:
    """Sends messages and hears every answer; what went wrong stands in the call's status."""
    answers = []
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        for message in messages:
            await call.write(message)
        await call.done_writing()
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while (answer := await call.read()) is not grpc.aio.EOF:
            answers.append(answer)
    return answers


def save(findings: Sequence[Finding], folder: Path) -> list[dict[str, str]]:
    """Writes the inputs of findings; what to tell of each."""
    told = []
    for finding in findings:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{finding.name}.bin"
        path.write_bytes(finding.data)
        told.append({"input": str(path), "what": finding.what})
    return told
