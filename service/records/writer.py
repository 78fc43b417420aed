"""The thread that writes answers to the ledger, many in one transaction.

Answers wait in a bounded queue. The thread takes what is there (group commit: while one batch waits
for the disk, the next one gathers), keeps the images that are to be kept, makes the bodies, and
appends all in one transaction. While the database is away a batch is tried again and again, the
queue fills up, and then new answers are dropped and counted.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ibinn.errors import IbinnError, LedgerError, RecordsUnavailableError
from ibinn.records import AnswerDigest, AnswerEntry, EntryKind, ImageKept
from service.converters import records as bodies
from service.monitoring import Monitor
from service.records.contents import Answered, NewAnswer
from service.records.ledger import Ledger

if TYPE_CHECKING:
    from service.records.images import ImageStore

_log = logging.getLogger(__name__)

MAX_BATCH = 128
"""Most answers in one transaction."""
GATHER_S = 0.05
"""How long an answer that nobody waits for waits for more: whatever its size, a transaction costs
milliseconds of the processor and one wait for the disk."""
MAX_IMAGE_BYTES = 256 * 2**20
"""Most bytes of images that wait; what comes on top is recorded without its image."""

_BODIES_AT_A_TIME = 8
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_PING_S = 10.0
_LOG_EVERY_S = 10.0

Waiter = Callable[[Exception | None], None]
"""Called in the writer's thread with None once an answer is durable, else with why it is not."""


class Item:
    """An answer that waits.

    Args:
        answered: The answer; its image only where it is to be kept.
        kept: Why the image is to be kept; None: it is not.

    Attributes:
        record_id: The answer's.
        required: The answer leaves only once it is durable.
        given_up: Whoever waited does not any more, and the answer did not leave.
    """

    __slots__ = (
        "answered",
        "given_up",
        "image_bytes",
        "kept",
        "new",
        "record_id",
        "required",
        "waiters",
    )

    def __init__(self, answered: Answered, kept: ImageKept | None) -> None:
        receipt = answered.prediction.receipt
        assert receipt is not None
        self.record_id = receipt.record_id
        self.answered = answered
        self.kept = kept
        self.image_bytes = len(answered.image or b"")
        self.new: NewAnswer | None = None
        self.waiters: list[Waiter] = []
        self.required = False
        self.given_up = False

    def settle(self, error: Exception | None) -> None:
        """Tells whoever waits."""
        for waiter in self.waiters:
            waiter(error)
        self.waiters.clear()


class Writer:
    """Writes answers in a thread of its own.

    Args:
        ledger: Where to.
        server: Which server process this is.
        images: Keeps images; None: none are kept.
        monitor: Counts.
        size: Most answers that wait.
        timeout_s: A database that takes longer counts as away.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        server: str,
        images: ImageStore | None,
        monitor: Monitor,
        size: int,
        timeout_s: float,
    ) -> None:
        self._ledger = ledger
        self._server = server
        self._images = images
        self._monitor = monitor
        self._size = size
        self._timeout_s = timeout_s
        self._changed = threading.Condition()
        self._queue: deque[Item] = deque()
        self._waiting: dict[str, Item] = {}
        self._image_bytes = 0
        self._hurry = False
        self._stop_at: float | None = None
        self._down_since: float | None = None
        self._began: float | None = None
        self._dropped = 0
        self._told_dropped = 0
        self._told_at = -_LOG_EVERY_S
        self._thread = threading.Thread(target=self._run, name="ibinn-records", daemon=True)

    # ---------------------------------------------------------------------- on the event loop

    def start(self) -> None:
        """Begins to write."""
        self._thread.start()

    def offer(self, item: Item, waiter: Waiter | None = None) -> bool:
        """Hands over an answer; False where there is no room. Returns at once.

        Args:
            item: The answer.
            waiter: The answer leaves only once it is durable: told what became of it.
        """
        if waiter is not None:
            item.required = True
            item.waiters.append(waiter)
        with self._changed:
            room = len(self._waiting) < self._size and self._stop_at is None
            if room:
                self._add(item)
                self._hurry = self._hurry or waiter is not None
                if len(self._queue) == 1 or self._hurry or len(self._queue) == MAX_BATCH:
                    self._changed.notify()
        if not room and waiter is None:
            self._drop(1, "the queue is full" if self._stop_at is None else "the server stops")
        return room

    def call_when_settled(self, record_id: str | None, waiter: Waiter) -> bool:
        """Has the waiter told when an answer that waits is durable or dropped.

        Args:
            record_id: The answer's; None: the newest of all.
            waiter: Whom to tell.

        Returns:
            False where no such answer waits: the waiter is not told.
        """
        with self._changed:
            if record_id is None:
                item = next(reversed(self._waiting.values()), None)
            else:
                item = self._waiting.get(record_id)
            if item is None:
                return False
            item.waiters.append(waiter)
            self._hurry = True
            self._changed.notify()
        return True

    @property
    def waiting(self) -> int:
        """Answers that are not durable yet."""
        return len(self._waiting)

    @property
    def dropped(self) -> int:
        """Answers without a record."""
        return self._dropped

    @property
    def reachable(self) -> bool:
        """Whether the last try succeeded, and the one that runs is not late."""
        return self._down_since is None and not self._late()

    @property
    def is_down(self) -> bool:
        """Whether the database has been away for as long as a call would wait for it."""
        since = self._down_since
        return self._late() or (since is not None and time.monotonic() - since > self._timeout_s)

    def stop(self, timeout_s: float) -> None:
        """Writes what waits for at most so long, and ends; what is left is dropped and counted."""
        with self._changed:
            self._stop_at = time.monotonic() + timeout_s
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        with self._changed:
            left = list(self._waiting.values())
            self._waiting.clear()
            self._queue.clear()
        if left:
            self._lose(left, RecordsUnavailableError("the server stops; ask again"))

    # -------------------------------------------------------------------------- in the thread

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            if batch:
                self._write(batch)
            else:
                self._ping()

    def _take(self) -> list[Item] | None:
        """What is to be written next; empty: nothing was for a while; None: the end."""
        with self._changed:
            if not self._queue and self._stop_at is None:
                self._changed.wait(_PING_S if self._down_since is None else _LONGEST_PAUSE_S)
            if self._queue:
                until = time.monotonic() + GATHER_S
                while not self._hurry and len(self._queue) < MAX_BATCH and self._stop_at is None:
                    if not self._changed.wait(until - time.monotonic()):
                        break
            elif self._stop_at is not None:
                return None
            count = min(len(self._queue), MAX_BATCH)
            batch = [self._queue.popleft() for _ in range(count)]
            if not self._queue:
                self._hurry = False
            return batch

    def _write(self, batch: list[Item]) -> None:
        for number, item in enumerate(batch, 1):
            self._prepare(item)
            if number % _BODIES_AT_A_TIME == 0 and not item.required:
                # Lets the event loop in now rather than after 5 ms. Whoever waits for a record is
                # served better if the thread goes on: to come back it may have to wait as long.
                time.sleep(0)
        pause_s = _FIRST_PAUSE_S
        while True:
            given_up = [item for item in batch if item.given_up]
            self._leave(given_up)
            batch = [item for item in batch if item.new is not None and not item.given_up]
            if not batch:
                return
            try:
                self._append(batch)
                return
            except RecordsUnavailableError as error:
                self._away(error)
            except Exception as error:  # noqa: BLE001 - the thread must go on
                if len(batch) > 1:
                    for item in batch:
                        self._write([item])
                else:
                    self._refused(batch[0], error)
                return
            with self._changed:
                if self._stop_at is not None and time.monotonic() >= self._stop_at:
                    return
                self._changed.wait_for(lambda: self._stop_at is not None, pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _prepare(self, item: Item) -> None:
        """Keeps the image and makes the body, once."""
        if item.new is not None or item.given_up:
            return
        answered = item.answered
        try:
            digest = AnswerDigest.of(answered.prediction)
            kept = self._keep(item, digest.sha256_bytes)
            entry = AnswerEntry(
                prediction=answered.prediction,
                caller=answered.caller,
                method=answered.method,
                group_id=digest.group_id,
                bundle=answered.bundle,
                server=self._server,
                image_kept=kept,
            )
            body = bodies.answer_body(entry)
        except Exception as error:  # noqa: BLE001 - one bad answer must not stop the others
            self._refused(item, error)
            return
        item.new = NewAnswer(
            digest=digest,
            caller=answered.caller,
            method=answered.method,
            image_kept=kept,
            body=functools.partial(bytes, body),
        )

    def _keep(self, item: Item, sha256: str) -> ImageKept | None:
        image = item.answered.image
        if item.kept is None or image is None or self._images is None:
            return None
        try:
            self._images.put(sha256, image)
        except IbinnError as error:
            _log.warning("the image of answer %s is not kept: %s", item.record_id, error)
            self._monitor.image_failure()
            return None
        self._monitor.image_kept(item.kept.value)
        return item.kept

    def _append(self, batch: Sequence[Item]) -> None:
        self._began = begun = time.monotonic()
        try:
            self._ledger.append_answers([item.new for item in batch if item.new is not None])
        finally:
            self._began = None
        self._monitor.recorded(EntryKind.ANSWER.value, len(batch), time.monotonic() - begun)
        self._back()
        self._leave(batch)
        for item in batch:
            item.settle(None)

    def _refused(self, item: Item, error: Exception) -> None:
        if isinstance(error, LedgerError):
            self._away(error)
        _log.error("answer %s cannot be recorded", item.record_id, exc_info=error)
        self._leave([item])
        refusal = RecordsUnavailableError(
            f"the record of answer {item.record_id} could not be written; the server's log says why"
        )
        refusal.__cause__ = error
        self._lose([item], refusal)

    def _ping(self) -> None:
        self._began = time.monotonic()
        try:
            self._ledger.ping()
        except Exception as error:  # noqa: BLE001 - the thread must go on
            self._away(error)
        else:
            self._back()
        finally:
            self._began = None

    # ---------------------------------------------------------------------------- book-keeping

    def _add(self, item: Item) -> None:
        if item.kept is not None:
            if self._image_bytes + item.image_bytes > MAX_IMAGE_BYTES:
                item.kept = None
                self._monitor.image_failure()
            else:
                self._image_bytes += item.image_bytes
        self._waiting[item.record_id] = item
        self._queue.append(item)

    def _leave(self, batch: Sequence[Item]) -> None:
        with self._changed:
            for item in batch:
                if self._waiting.pop(item.record_id, None) is not None and item.kept is not None:
                    self._image_bytes -= item.image_bytes

    def _lose(self, items: Sequence[Item], error: Exception) -> None:
        """Tells those who wait. Answers that left meanwhile have no record."""
        self._drop(sum(1 for item in items if not item.required), str(error))
        for item in items:
            item.settle(error)

    def _drop(self, count: int, reason: str) -> None:
        if not count:
            return
        self._monitor.record_dropped(count)
        with self._changed:
            self._dropped += count
            now = time.monotonic()
            if now - self._told_at < _LOG_EVERY_S:
                return
            self._told_at = now
            new, self._told_dropped = self._dropped - self._told_dropped, self._dropped
        _log.warning(
            "%d answers left without a record since the last such line, %d since the start: %s",
            new,
            self._dropped,
            reason,
        )

    def _late(self) -> bool:
        began = self._began
        return began is not None and time.monotonic() - began > self._timeout_s

    def _away(self, error: Exception) -> None:
        if self._down_since is None:
            self._down_since = time.monotonic()
            _log.warning("%s", error)

    def _back(self) -> None:
        if self._down_since is not None:
            away_s = time.monotonic() - self._down_since
            self._down_since = None
            _log.info("the records are back after %.1f s; %d wait", away_s, len(self._waiting))
