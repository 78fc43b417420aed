"""Many images over one stream, for threads: the messages between a plan's ledger and a server."""

from __future__ import annotations

import itertools
import math
import queue
import threading
import time
from collections.abc import Iterable, Iterator

import grpc

from ibinn.client.calls import new_request_id
from ibinn.client.ledger import Answered
from ibinn.client.payload import Payload
from ibinn.client.plans import GOODBYE_S, Event, Message, Opener, Plan
from ibinn.errors import RemoteError
from ibinn.v1 import classification_service_pb2 as service


class _Stream:
    """One call, read by a thread of its own."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._id = new_request_id()
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._sign = time.monotonic()  # of life, of either side
        self._call = opener.begin(iter(self._messages.get, None), self._id)
        self._reader = threading.Thread(target=self._read, name="ibinn-stream-read", daemon=True)
        self._reader.start()

    def send(self, message: service.ClassifyStreamRequest) -> None:
        self._messages.put(message)
        self._sign = time.monotonic()

    def event(self, *, wait_s: float | None) -> Event | None:
        """What the server sent next; None: nothing within this time (None: until it is silent)."""
        silent_at = self._sign + self._opener.silence_s
        until = min(silent_at, math.inf if wait_s is None else time.monotonic() + wait_s)
        timeout_s = None if math.isinf(until) else max(0.0, until - time.monotonic())
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return self._opener.silent(self._id) if until == silent_at else None
        self._sign = time.monotonic()
        return event

    def close(self, *, finished: bool) -> None:
        """Ends the call: in peace if everything was answered, else by cancelling it."""
        self._messages.put(None)
        if finished:
            self._reader.join(GOODBYE_S)
        self._call.cancel()  # without effect on a call that has ended

    def _read(self) -> None:
        try:
            for response in self._call:
                self._events.put(response)
        except grpc.RpcError as error:
            self._events.put(self._opener.failure(error, self._id))
        else:
            self._events.put(self._opener.ended(self._id))


def answered(plan: Plan, images: Iterable[Payload]) -> Iterator[Answered]:
    """Results as the ledger lets them out; images are taken and sent by the thread that iterates.

    Raises:
        RemoteError: No stream to the server can be had any more.
    """
    ledger = plan.ledger
    source = map(plan.source, itertools.count(), images)
    stream: _Stream | None = None
    more = True
    finished = False
    try:
        while True:
            while (found := ledger.take()) is not None:
                yield found
            taking = more and ledger.has_room
            if taking:
                more = plan.add(next(source, None))
            elif ledger.is_settled:
                finished = True
                return
            for message in ledger.outgoing(incomplete=not taking):
                stream = stream or _Stream(plan.opener)
                stream.send(message)
            if stream is None or not ledger.under_way:
                if not taking:
                    time.sleep(ledger.pause_s)
                continue
            event = stream.event(wait_s=0.0 if taking else ledger.pause_s or None)
            if isinstance(event, RemoteError):
                stream.close(finished=False)
                stream = None
                ledger.broken(event)
            elif event is not None:
                ledger.answered(event)
    finally:
        if stream is not None:
            stream.close(finished=finished)
