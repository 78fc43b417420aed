"""Callers that ask for answers and say what the truth is, again and again until they are heard."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from ibinn.client import wire
from ibinn.v1 import classification_service_pb2 as service
from ibinn.v1 import record_pb2
from tests.faults.calls import ANSWERED, outcome_of
from tests.service.stub import CLASSES, png

SUBMIT_FEEDBACK = wire.CLASSIFY.replace("/Classify", "/SubmitFeedback")

_TIMEOUT_S = 30.0
_STUCK_S = 120.0
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5
_IMAGES = 256
_CONNECTIONS = 8
"""So that each of two workers, between which the kernel deals them out, has some of them."""
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a source says of an answer.

    Attributes:
        record_id: The answer's.
        receipt: Likewise.
        source: Who says it; no two statements have the same record and source.
        truth: A class.
        feedback_id: Names it; empty: the server does.
    """

    record_id: str
    receipt: str
    source: str
    truth: str
    feedback_id: str

    def request(self) -> bytes:
        """As it is sent."""
        message = service.SubmitFeedbackRequest(
            record_id=self.record_id,
            receipt=self.receipt,
            feedback_id=self.feedback_id,
            truth=record_pb2.Truth(class_name=self.truth),
            provenance=record_pb2.Provenance(source=self.source),
        )
        return bytes(message.SerializeToString())


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """A statement that the server said it keeps.

    Attributes:
        statement: What was said.
        feedback_id: Its name on record.
        outcome: Number of its `FeedbackOutcome`.
        record_known: Whether the answer was on record.
        tries: Calls that it took.
    """

    statement: Statement
    feedback_id: str
    outcome: int
    record_known: bool
    tries: int


@dataclass(slots=True)
class Heard:
    """What callers have heard.

    Attributes:
        answers: Record ids of the answers that were received.
        acknowledged: Statements.
        attempted: How many statements were sent at least once.
        classify: How calls of Classify ended; likewise `feedback`.
        slowest_s: Longest call of SubmitFeedback that was acknowledged.
    """

    answers: list[str] = field(default_factory=list)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    attempted: int = 0
    classify: Counter[str] = field(default_factory=Counter)
    feedback: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0


class Callers:
    """Callers of a server that may be another one from call to call.

    Args:
        count: Statements to be acknowledged; then everybody stops.
        seed: Of what is said.
        classifiers: Callers of Classify, each with one call at a time.
        tellers: Callers of SubmitFeedback, likewise.
    """

    def __init__(self, *, count: int, seed: int, classifiers: int = 16, tellers: int = 32) -> None:
        self.heard = Heard()
        self._count = count
        self._random = random.Random(seed)
        self._classifiers = classifiers
        self._tellers = tellers
        self._statements: asyncio.Queue[Statement] = asyncio.Queue(maxsize=4 * tellers)
        self._channels: list[grpc.aio.Channel] = []
        self._turn = itertools.count()
        self._images = [wire.classify_bytes(png(value)) for value in range(_IMAGES)]
        self._over = asyncio.Event()

    async def connect(self, target: str) -> None:
        """Goes on with the server at this address."""
        for _ in range(_CONNECTIONS):
            self._channels.append(grpc.aio.insecure_channel(target, options=_OPTIONS))

    async def until(self, acknowledged: int) -> None:
        """Waits until so many statements were acknowledged."""
        while len(self.heard.acknowledged) < acknowledged and not self._over.is_set():
            await asyncio.sleep(0.005)

    async def call(self) -> None:
        """Calls until as many statements as wanted are acknowledged.

        Raises:
            RuntimeError: For a long time none was.
        """
        tasks: list[asyncio.Task[Any]]
        tasks = [asyncio.create_task(self._classify()) for _ in range(self._classifiers)]
        tasks.append(asyncio.create_task(self._watch()))
        tasks += [asyncio.create_task(self._tell()) for _ in range(self._tellers)]
        over: asyncio.Task[Any] = asyncio.create_task(self._over.wait())
        done, _ = await asyncio.wait([over, *tasks], return_when=asyncio.FIRST_COMPLETED)
        self._over.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for channel in self._channels:
            await channel.close()
        for task in done - {over}:
            task.result()

    async def _watch(self) -> None:
        before = -1
        while (now := len(self.heard.acknowledged)) > before:
            before = now
            await asyncio.sleep(_STUCK_S)
        raise RuntimeError(
            f"no statement was acknowledged for {_STUCK_S:g} s: {self.heard.feedback}"
        )

    async def _classify(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._over.is_set():
            image = self._random.choice(self._images)
            answer = await self._called(wire.CLASSIFY, image, self.heard.classify)
            if answer is None:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            pause_s = _FIRST_PAUSE_S
            found = service.ClassifyResponse.FromString(answer).classification
            self.heard.answers.append(found.record_id)
            for statement in self._about(found):
                if not self._statements.full():
                    self._statements.put_nowait(statement)

    def _about(self, answer: Any) -> list[Statement]:
        """One to three sources' statements, about half of them named by who says them."""
        sources = self._random.randint(1, 3)
        return [
            Statement(
                record_id=answer.record_id,
                receipt=answer.receipt,
                source=f"source-{number}",
                truth=self._random.choice(CLASSES),
                feedback_id=self._random.choice(("", f"{answer.record_id}-{number}")),
            )
            for number in range(sources)
        ]

    async def _tell(self) -> None:
        while not self._over.is_set():
            statement = await self._statements.get()
            self.heard.attempted += 1
            request, tries, pause_s = statement.request(), 0, _FIRST_PAUSE_S
            while not self._over.is_set():
                tries += 1
                begun = time.monotonic()
                answer = await self._called(SUBMIT_FEEDBACK, request, self.heard.feedback)
                if answer is not None:
                    self.heard.slowest_s = max(self.heard.slowest_s, time.monotonic() - begun)
                    self._acknowledged(statement, answer, tries)
                    break
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _acknowledged(self, statement: Statement, answer: bytes, tries: int) -> None:
        found = service.SubmitFeedbackResponse.FromString(answer)
        self.heard.acknowledged.append(
            Acknowledged(
                statement=statement,
                feedback_id=found.feedback_id,
                outcome=found.outcome,
                record_known=found.record_known,
                tries=tries,
            )
        )
        if len(self.heard.acknowledged) >= self._count:
            self._over.set()

    async def _called(self, path: str, request: bytes, ended: Counter[str]) -> bytes | None:
        """One call; None where it was not answered."""
        try:
            channel = self._channels[-1 - next(self._turn) % _CONNECTIONS]
            answer: bytes = await channel.unary_unary(path)(request, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            ended[outcome_of(error)] += 1
            return None
        ended[ANSWERED] += 1
        return answer


def repeated_at_once(heard: Heard) -> int:
    """Statements that were called a repetition though they had been sent once."""
    repeated = record_pb2.FEEDBACK_OUTCOME_REPEATED
    return sum(one.outcome == repeated and one.tries == 1 for one in heard.acknowledged)
