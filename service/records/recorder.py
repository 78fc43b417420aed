"""Records for the event loop: nothing here waits for a database unless it was asked to.

Answers go to the writer's thread. With ``audit = best_effort`` nobody waits for it; with
``required`` an answer leaves once it is durable. Statements and everything that is read run in a
few threads of their own, and whoever waits for them does so for a limited time.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.engine import URL

from ibinn.errors import (
    ConfigError,
    IbinnError,
    RecordsUnavailableError,
    RequestError,
    UnknownRecordError,
)
from ibinn.records import (
    Acknowledgement,
    AnswerDigest,
    EntryKind,
    Feedback,
    FeedbackEntry,
    FeedbackOutcome,
    ImageState,
)
from ibinn.serving import RecordsState
from service.converters import records as bodies
from service.monitoring import Monitor
from service.records.checks import FILE, records_url
from service.records.contents import Answered, Erased, Page, Said, StoredRecord
from service.records.keeping import Keeping
from service.records.ledger import Ledger
from service.records.statement_writer import StatementWriter
from service.records.threads import Threads
from service.records.writer import GATHER_S, Item, Waiter, Writer
from service.settings import Settings

if TYPE_CHECKING:
    from service.records.images import ImageStore
    from service.records.receipts import Receipts

_log = logging.getLogger(__name__)

_THREADS = 4
_START_S = 10.0
_SWEEP_S = 600.0
_LOOK_S = 30.0

_T = TypeVar("_T")


class Recorder:
    """Keeps answers and what is said about them. Made with `open`.

    Attributes:
        ledger: Where they are kept; each call fails while the database is away, and the next one
            tries it anew.
        listeners: Called on the event loop with every statement that was appended.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        settings: Settings,
        server: str,
        receipts: Receipts,
        images: ImageStore | None,
        monitor: Monitor,
    ) -> None:
        self.ledger = ledger
        self.listeners: list[Callable[[FeedbackEntry], None]] = []
        self._audit = settings.audit
        self._timeout_s = settings.records_timeout_s
        self._keeping = Keeping.of(settings)
        self._receipts = receipts
        self._images = images
        self._monitor = monitor
        self._threads = Threads("ibinn-ledger", _THREADS)
        self._statements = StatementWriter(
            ledger,
            self._threads,
            timeout_s=settings.records_timeout_s,
            is_down=lambda: self._writer.is_down,
            # From the thread, not where it is waited for: it counts also when that took too long.
            told=lambda entry, took_s: self._call_soon(
                functools.partial(self._told, entry, took_s)
            ),
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._swept: list[str] = []
        self._writer = Writer(
            ledger,
            server=server,
            images=images,
            monitor=monitor,
            size=settings.records_queue,
            timeout_s=settings.records_timeout_s,
        )

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        server: str,
        receipts: Receipts,
        images: ImageStore | None,
        monitor: Monitor,
    ) -> Recorder | None:
        """A recorder with the settings' database; nothing is connected before `start`.

        Args:
            settings: Name the database; without one, it is SQLite in the state folder.
            server: Which server process this is.
            receipts: Read the receipts that come with statements.
            images: Keeps images; None: none are kept.
            monitor: Counts.

        Returns:
            None where the settings name neither database nor state folder, or say that no records
            are to be kept.

        Raises:
            ConfigError: The database's URL cannot be used, or the file cannot be made.
        """
        url: str | URL | None = records_url(settings)
        if url is None:
            return None
        if settings.records is None and settings.state_dir is not None:
            url = _file(settings.state_dir)
        return cls(
            Ledger(url, timeout_s=settings.records_timeout_s),
            settings=settings,
            server=server,
            receipts=receipts,
            images=images,
            monitor=monitor,
        )

    async def start(self) -> None:
        """Brings the schema up to date and begins to write.

        A database that cannot be reached yet is no error: it is tried until it can be.

        Raises:
            LedgerError: The database has a newer schema, or is damaged.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await self._run(self.ledger.prepare, limit_s=max(_START_S, self._timeout_s))
        except RecordsUnavailableError as error:
            _log.warning("%s", error)
        self._writer.start()
        self._monitor.watch_records(
            waiting=lambda: self._writer.waiting,
            reachable=lambda: self._writer.reachable,
            image_bytes=lambda: (self._images and self._images.size_bytes) or 0,
        )
        if self._images is not None:
            self._sweeping = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Writes what waits, for at most the time limit of records, and closes the database."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        until = time.monotonic() + self._timeout_s
        await asyncio.to_thread(self._writer.stop, self._timeout_s)
        await asyncio.to_thread(self._threads.stop, until - time.monotonic())
        self.ledger.close()

    def state(self) -> RecordsState:
        """How records are kept now."""
        return RecordsState(
            audit=self._audit,
            database=self.ledger.name,
            reachable=self._writer.reachable,
            waiting=self._writer.waiting,
            dropped=self._writer.dropped,
        )

    # ---------------------------------------------------------------------------------- answers

    async def answered(self, answered: Answered) -> None:
        """Takes an answer that is about to leave.

        With ``best_effort`` it returns at once; an answer for which there is no room is counted as
        dropped. With ``required`` it returns once the record is durable.

        Raises:
            RecordsUnavailableError: It is required and could not be made durable in time; the
                answer must not leave. Whether there is a record then is not known.
        """
        kept = None if self._images is None else self._keeping.wanted(answered.prediction)
        if kept is None and answered.image is not None:
            answered = dataclasses.replace(answered, image=None)
        item = Item(answered, kept)
        if self._audit == "required":
            await self._durable(item)
        else:
            self._writer.offer(item)

    async def _durable(self, item: Item) -> None:
        if self._writer.is_down:
            raise RecordsUnavailableError(
                "no answer leaves without its record, and the database of the records has been "
                "away for some time; try again"
            )
        waiter, future = self._waiter()
        if not self._writer.offer(item, waiter):
            raise RecordsUnavailableError(
                f"no answer leaves without its record, and {self._writer.waiting} wait to be "
                "written already (records_queue); try again"
            )
        try:
            async with asyncio.timeout(self._timeout_s):
                error = await future
        except TimeoutError as late:
            item.given_up = True
            raise RecordsUnavailableError(
                "no answer leaves without its record, which was not durable within "
                f"{self._timeout_s:g} s (records_timeout_s); try again"
            ) from late
        except asyncio.CancelledError:
            item.given_up = True
            raise
        if error is not None:
            raise error

    # -------------------------------------------------------------------------------- statements

    async def submit(self, statement: Feedback, *, caller: str) -> Acknowledgement:
        """Appends a statement about an answer; it is durable when this returns.

        Args:
            statement: As it was sent.
            caller: Who sent it.

        Raises:
            UnknownRecordError: There is no record of the answer and no receipt was sent.
            RequestError: Its id names another statement, or there is no record of the answer and
                its receipt is not valid.
            RecordsUnavailableError: It could not be made durable in time; whether it is is not
                known. To send it again cannot make it count twice.
        """
        await self._settled(statement.record_id)
        digest: AnswerDigest | None = None
        invalid: RequestError | None = None
        if statement.receipt:
            try:
                digest = self._receipts.read(statement.receipt, record_id=statement.record_id)
            except RequestError as error:
                # A record needs no receipt: one signed by a key that was replaced does no harm.
                invalid = error
        said = Said(statement=statement, caller=caller, digest=digest)
        try:
            entry = await self._within(self._statements.say(said), self._timeout_s)
        except UnknownRecordError:
            if invalid is not None:
                raise invalid from None
            raise
        return Acknowledgement(
            feedback_id=entry.feedback_id,
            outcome=entry.outcome,
            revision=entry.revision,
            record_known=entry.record_known,
        )

    def _told(self, entry: FeedbackEntry, took_s: float) -> None:
        if entry.outcome is FeedbackOutcome.REPEATED:
            # The others are counted by a listener, which knows the models' classes.
            self._monitor.feedback(entry)
            return
        self._monitor.recorded(EntryKind.FEEDBACK.value, 1, took_s)
        for listener in self.listeners:
            try:
                listener(entry)
            except Exception:  # noqa: BLE001 - the statement is durable whatever they do
                _log.exception("a listener failed for the statement %s", entry.feedback_id)

    # ----------------------------------------------------------------------------------- reading

    async def record(self, record_id: str, *, include_image: bool) -> StoredRecord:
        """What is kept about an answer.

        Args:
            record_id: The answer's.
            include_image: Read its image as well, where it is kept.

        Raises:
            UnknownRecordError: There is no such record.
            RecordsUnavailableError: The database or the images cannot be reached in time.
            LedgerError: The kept image was changed.
        """
        await self._settled(record_id)
        read = functools.partial(self._read, record_id, include_image=include_image)
        try:
            return await self._run(read)
        except UnknownRecordError:
            # Another process may have answered a moment ago, and be gathering.
            await asyncio.sleep(5 * GATHER_S)
            return await self._run(read)

    def _read(self, record_id: str, *, include_image: bool) -> StoredRecord:
        found = self.ledger.record(record_id)
        if not include_image or self._images is None or found.image_state is not ImageState.KEPT:
            return found
        image = self._images.get(bodies.read_answer_digest(found.entry.body).sha256_bytes)
        return dataclasses.replace(found, image=image)

    async def entries(
        self, after: int, limit: int, kinds: frozenset[EntryKind] = frozenset()
    ) -> Page:
        """Entries in order; see `service.records.ledger.Ledger.entries`.

        Raises:
            RecordsUnavailableError: The database cannot be reached in time.
        """
        return await self._run(functools.partial(self.ledger.entries, after, limit, kinds))

    # ----------------------------------------------------------------------------------- erasing

    async def erase(self, record_id: str, *, reason: str, caller: str) -> Erased:
        """Erases the image of a record; the record itself stays, and so do its hashes.

        Args:
            record_id: Of one of the records with the image.
            reason: Why.
            caller: Who asks for it.

        Raises:
            UnknownRecordError: There is no such record.
            RecordsUnavailableError: The database or the images cannot be reached in time; ask
                again.
        """
        # The same image may come once more with an answer that waits.
        await self._settled(None)
        return await self._run(
            functools.partial(self._erase, record_id, reason=reason, caller=caller)
        )

    def _erase(self, record_id: str, *, reason: str, caller: str) -> Erased:
        started = time.monotonic()
        sha256 = self.ledger.sha256_bytes(record_id)
        found = bool(sha256) and self._images is not None and self._images.delete(sha256)
        count = self.ledger.append_erasure(record_id, reason=reason, caller=caller, found=found)
        self._monitor.recorded(EntryKind.ERASURE.value, 1, time.monotonic() - started)
        return Erased(found=found, records=count)

    async def _sweep(self) -> None:
        """Takes away images whose time is over, and says so of their records."""
        while True:
            try:
                await asyncio.wrap_future(self._threads.submit(self._sweep_once))
            except IbinnError as error:
                self._monitor.image_failure()
                _log.warning("%s", error)
            await asyncio.sleep(_LOOK_S)

    def _sweep_once(self) -> None:
        if self._images is None:
            return
        if self._images.due(_SWEEP_S):
            self._swept.extend(self._images.sweep().removed)
        if self._swept:
            self.ledger.images_gone(self._swept)
            self._swept = []

    # ------------------------------------------------------------------------------------ inside

    async def _settled(self, record_id: str | None) -> None:
        """Waits until an answer that this process gave is durable, if it waits and it can be."""
        if not self._writer.reachable:
            return
        waiter, future = self._waiter()
        if not self._writer.call_when_settled(record_id, waiter):
            return
        try:
            async with asyncio.timeout(self._timeout_s / 2):
                await future
        except TimeoutError:
            return

    def _waiter(self) -> tuple[Waiter, asyncio.Future[Exception | None]]:
        future: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

        def settle(error: Exception | None) -> None:
            if not future.done():
                future.set_result(error)

        return lambda error: self._call_soon(functools.partial(settle, error)), future

    def _call_soon(self, action: Callable[[], None]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(action)

    async def _run(self, action: Callable[[], _T], *, limit_s: float | None = None) -> _T:
        """Calls it in a thread and waits for a limited time."""
        limit_s = self._timeout_s if limit_s is None else limit_s
        return await self._within(self._threads.submit(action), limit_s)

    async def _within(self, future: Future[_T], limit_s: float) -> _T:
        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            raise RecordsUnavailableError(
                f"the records in {self.ledger.name} did not answer within {limit_s:g} s "
                "(records_timeout_s); try again"
            ) from error


def _file(state_dir: Path) -> URL:
    """SQLite's file in the state folder; only the server's own user can read it."""
    path = state_dir / FILE
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise ConfigError(
            f"the records' file {path} cannot be written ({error.strerror or error}); let the "
            "server's user write there, or name a database in the setting records"
        ) from error
    return URL.create("sqlite", database=str(path))
