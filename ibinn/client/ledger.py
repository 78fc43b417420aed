"""Which images of a stream are unanswered, which are to be sent, and which results go out next.

No input or output here: `ibinn.client.streams` moves the messages. At most a window of images is
between the caller's iterator and the caller's results.

When the stream breaks, the unanswered images are sent again as `ibinn.client.retries` allows. An
image that is turned away is sent again too, and the sender slows down: nothing is sent until the
wait is over, and the number of images under way is halved at each round with a refusal and grows
by one in two rounds of answers, so that it finds the rate that the server bears. That, not the
budget, keeps a stream from multiplying an overload. Refusals end as results only when as many
rounds as there are attempts brought no answer at all.
"""

from __future__ import annotations

import heapq
import random
import time
from dataclasses import dataclass

from ibinn.client import answers
from ibinn.client.failures import image_error
from ibinn.client.retries import Budget, Clock, Draw, Retry, may_be_repeated
from ibinn.errors import ConfigError, ImageError, InternalServerError, InvalidImageError
from ibinn.errors import RemoteError as Failed
from ibinn.types import Prediction
from ibinn.v1 import classification_service_pb2 as service

MESSAGE_BYTES = 2**20
"""Images share a message only up to this size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What became of one image of many.

    Attributes:
        index: Its position among the images given, from 0.
        result: Its answer, or the error that it alone met.
    """

    index: int
    result: Prediction | Failed | ImageError


@dataclass(slots=True, kw_only=True)
class _Entry:
    """An image without an answer: its position, its request, and the round it was sent in last."""

    index: int
    request: service.ClassifyRequest
    round: int = 0


class Ledger:
    """The state of one stream of images.

    Args:
        window: Most images taken from the caller whose results the caller has not got.
        per_message: Most images of one message.
        in_order: Whether results go out in the order of the images.
        retry: How often and how soon a refused image, or a broken stream, is tried again.
        budget: The client's.
        longest_wait_s: An image that the server sends away for longer is not tried again.
    """

    def __init__(
        self,
        *,
        window: int,
        per_message: int,
        in_order: bool,
        retry: Retry,
        budget: Budget,
        longest_wait_s: float | None,
        clock: Clock = time.monotonic,
        draw: Draw = random.uniform,
    ) -> None:
        if window < 1:
            raise ConfigError(f"window is {window}, expected at least 1 image")
        if not 1 <= per_message <= 64:
            raise ConfigError(f"per_message is {per_message}, expected 1 to 64 images")
        self._window = window
        self._per_message = per_message
        self._in_order = in_order
        self._retry = retry
        self._budget = budget
        self._longest_wait_s = longest_wait_s
        self._clock = clock
        self._draw = draw

        self._taken = 0  # images from the caller
        self._settled = 0  # results there are
        self._returned = 0  # results to the caller
        self._outbox: list[tuple[int, _Entry]] = []  # a heap: the oldest is sent first
        self._under_way: dict[str, _Entry] = {}
        self._ready: list[tuple[int, Answered]] = []  # a heap
        self._most_under_way = float(window)
        self._not_before = 0.0
        self._round = 0  # refusals of images sent in one round count once
        self._fruitless = 0  # rounds that were refused since the last answer
        self._breaks = 0  # of the stream, since the last answer

    @property
    def has_room(self) -> bool:
        """Whether another image may be taken from the caller."""
        return self._taken - self._returned < self._window

    @property
    def is_settled(self) -> bool:
        """Whether every image taken has its result."""
        return not self._outbox and not self._under_way

    @property
    def under_way(self) -> int:
        """Images sent and not answered."""
        return len(self._under_way)

    @property
    def pause_s(self) -> float:
        """Seconds for which nothing may be sent."""
        return max(0.0, self._not_before - self._clock()) if self._outbox else 0.0

    def add(self, request: service.ClassifyRequest) -> None:
        """Takes the next image."""
        heapq.heappush(self._outbox, (self._taken, _Entry(index=self._taken, request=request)))
        self._taken += 1

    def add_failure(self, error: ImageError) -> None:
        """Takes the next image, which cannot even be sent."""
        self._settle(self._taken, error)
        self._taken += 1

    def take(self) -> Answered | None:
        """The next result that the caller gets; None: there is none yet."""
        if not self._ready or (self._in_order and self._ready[0][0] != self._returned):
            return None
        self._returned += 1
        return heapq.heappop(self._ready)[1]

    def outgoing(self, *, incomplete: bool) -> list[service.ClassifyStreamRequest]:
        """What is to be sent now.

        Args:
            incomplete: Whether also messages are sent that have room for more images.
        """
        messages = []
        while self._clock() >= self._not_before and (group := self._group(incomplete=incomplete)):
            for entry in group:
                entry.round = self._round
                self._under_way[entry.request.request_id] = entry
            requests = [entry.request for entry in group]
            messages.append(service.ClassifyStreamRequest(requests=requests))
        return messages

    def answered(self, response: service.ClassifyStreamResponse) -> None:
        """Takes the server's results.

        Raises:
            InternalServerError: The server names a request that was not made.
        """
        for result in response.results:
            entry = self._under_way.pop(result.request_id, None)
            if entry is None:
                raise InternalServerError(
                    f"the server answered a request {result.request_id!r} that was not made",
                    code="UNKNOWN",
                )
            self._breaks = 0
            found = _result(result)
            if isinstance(found, Failed) and may_be_repeated(found):
                self._turned_away(entry, found)
            else:
                self._budget.succeeded()
                self._fruitless = 0
                more = self._most_under_way + 0.5 / self._most_under_way
                self._most_under_way = min(float(self._window), more)
                self._settle(entry.index, found)

    def broken(self, error: Failed) -> None:
        """Takes the end of the stream before its images were answered.

        Raises:
            RemoteError: The error, where the stream may not be opened again.
        """
        if isinstance(error, InvalidImageError) and error.code == "RESOURCE_EXHAUSTED":
            self._too_large(error)
        elif may_be_repeated(error):
            self._breaks += 1
            affordable = self._budget.failed()
            if self._breaks >= self._retry.attempts or not affordable:
                raise error
            self._pause(self._retry.wait_s(self._breaks, error, draw=self._draw))
        else:
            raise error
        for entry in self._under_way.values():
            heapq.heappush(self._outbox, (entry.index, entry))
        self._under_way.clear()

    def _group(self, *, incomplete: bool) -> list[_Entry]:
        """The images of the next message, out of the outbox; none: it has to wait."""
        free = max(1, int(self._most_under_way)) - len(self._under_way)
        group: list[_Entry] = []
        size = 0
        full = False
        while self._outbox and not full and len(group) < free:
            following = _size_bytes(self._outbox[0][1])
            if group and size + following > MESSAGE_BYTES:
                full = True
            else:
                group.append(heapq.heappop(self._outbox)[1])
                size += following
                full = len(group) == self._per_message
        if not full and not incomplete:
            for entry in group:
                heapq.heappush(self._outbox, (entry.index, entry))
            return []
        return group

    def _turned_away(self, entry: _Entry, error: Failed) -> None:
        asked_s = error.retry_after_s or 0.0
        if entry.round == self._round:
            self._round += 1
            self._fruitless += 1
            self._most_under_way = max(1.0, self._most_under_way / 2)
            self._pause(self._retry.wait_s(self._fruitless, error, draw=self._draw))
        else:
            self._pause(asked_s)
        too_long = self._longest_wait_s is not None and asked_s > self._longest_wait_s
        if self._fruitless >= self._retry.attempts or too_long:
            self._settle(entry.index, error)
        else:
            heapq.heappush(self._outbox, (entry.index, entry))

    def _too_large(self, error: InvalidImageError) -> None:
        """gRPC refuses a whole message and ends the stream; it does not say which one."""
        if self._per_message > 1:
            self._per_message = 1
        elif self._under_way:
            # One image a message: if any is too large, the largest is.
            largest = max(self._under_way.values(), key=_size_bytes)
            del self._under_way[largest.request.request_id]
            self._settle(largest.index, error)
        else:
            raise error

    def _pause(self, wait_s: float) -> None:
        self._not_before = max(self._not_before, self._clock() + wait_s)

    def _settle(self, index: int, result: Prediction | Failed | ImageError) -> None:
        position = index if self._in_order else self._settled
        self._settled += 1
        heapq.heappush(self._ready, (position, Answered(index=index, result=result)))


def _size_bytes(entry: _Entry) -> int:
    return len(entry.request.image)


def _result(message: service.ClassifyResult) -> Prediction | Failed:
    try:
        match message.WhichOneof("result"):
            case "classification":
                return answers.prediction(message.classification)
            case "error":
                return image_error(message.error, request_id=message.request_id)
            case _:
                raise InternalServerError(
                    "the server's result holds neither an answer nor an error",
                    code="UNKNOWN",
                    request_id=message.request_id,
                )
    except InternalServerError as error:
        return error
