"""Writes statements, many in one transaction: while one waits for the disk, the next ones gather.

A statement that comes alone is written at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime

from ibinn.errors import RecordsUnavailableError
from ibinn.records import FeedbackEntry
from service.records.contents import Said
from service.records.ledger import Ledger
from service.records.threads import Threads

MAX_BATCH = 64
"""Most statements in one transaction."""

_RETRY_S = 0.1

Told = Callable[[FeedbackEntry, float], None]
"""Called in the writing thread with an entry that is durable and the seconds that it took."""

_Item = tuple[Said, "Future[FeedbackEntry]"]


class StatementWriter:
    """Writes statements in one of some threads.

    Args:
        ledger: Where to.
        threads: One of them is taken while there is something to write.
        timeout_s: How long whoever says something waits.
        is_down: Whether the database is known to be away, so that a second try makes no sense.
        told: Hears of every statement that is durable, also where nobody waited for it any more.
    """

    def __init__(
        self,
        ledger: Ledger,
        threads: Threads,
        *,
        timeout_s: float,
        is_down: Callable[[], bool],
        told: Told,
    ) -> None:
        self._ledger = ledger
        self._threads = threads
        self._timeout_s = timeout_s
        self._is_down = is_down
        self._told = told
        self._changed = threading.Lock()
        self._waiting: deque[_Item] = deque()
        self._writing = False

    def say(self, said: Said) -> Future[FeedbackEntry]:
        """Has a statement written; one that is cancelled before its turn is left out."""
        future: Future[FeedbackEntry] = Future()
        with self._changed:
            self._waiting.append((said, future))
            begins, self._writing = not self._writing, True
        if begins:
            self._threads.submit(self._run)
        return future

    def _run(self) -> None:
        while batch := self._take():
            self._write([item for item in batch if item[1].set_running_or_notify_cancel()])

    def _take(self) -> list[_Item]:
        """What is to be written next; nothing: the thread is given back."""
        with self._changed:
            count = min(len(self._waiting), MAX_BATCH)
            self._writing = count > 0
            return [self._waiting.popleft() for _ in range(count)]

    def _write(self, batch: Sequence[_Item]) -> None:
        if not batch:
            return
        started = time.monotonic()
        try:
            found = self._appended([said for said, _ in batch], started)
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits
            if len(batch) > 1 and not isinstance(error, RecordsUnavailableError):
                # One that the database refuses must not take the others with it.
                for item in batch:
                    self._write([item])
                return
            for _, future in batch:
                future.set_exception(error)
            return
        took_s = time.monotonic() - started
        for (_, future), result in zip(batch, found, strict=True):
            if isinstance(result, FeedbackEntry):
                self._told(result, took_s)
                future.set_result(result)
            else:
                future.set_exception(result)

    def _appended(
        self, said: Sequence[Said], started: float
    ) -> Sequence[FeedbackEntry | Exception]:
        """Appends them, and once more where it is not known whether that succeeded."""
        moment = datetime.now(UTC)
        try:
            return self._ledger.append_statements(said, time=moment)
        except RecordsUnavailableError:
            if self._is_down() or time.monotonic() - started > self._timeout_s / 2:
                raise
            time.sleep(_RETRY_S)
            return self._ledger.append_statements(said, time=moment)
