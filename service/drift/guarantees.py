"""Whether the guarantee of a calibration holds: in the ledger where there is one, else in memory.

All processes that share a ledger agree within a moment, because each asks it again and again. What
cannot be written now holds in this process at once and is written later.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from ibinn.errors import IbinnError
from ibinn.records import EntryKind, GuaranteeEntry
from ibinn.types import Guarantee
from service.monitoring import Monitor

_NOT_KNOWN = (
    "whether it was suspended before this server's start cannot be looked up, because the records "
    "cannot be reached"
)

R = TypeVar("R")


class Ledger(Protocol):
    """Where guarantees and the states of detectors are kept; `service.records.ledger` has it."""

    def append_guarantee(self, entry: GuaranteeEntry) -> None:
        """Appends a change; RecordsUnavailableError where it cannot."""

    def guarantee(self, calibration: str) -> tuple[GuaranteeEntry, datetime] | None:
        """The last change; RecordsUnavailableError where it cannot be read."""

    def save_state(self, owner: str, calibration: str, body: bytes) -> None:
        """Keeps a state; RecordsUnavailableError where it cannot."""

    def load_state(self, owner: str, calibration: str) -> bytes | None:
        """The state kept; RecordsUnavailableError where it cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Whether a guarantee holds.

    Attributes:
        guarantee: HELD or SUSPENDED.
        reason: Why it is suspended; empty where it is not.
        since: Since when (UTC).
        acknowledged: When an alarm was last acknowledged (ISO 8601); empty where none was.
    """

    guarantee: Guarantee
    reason: str
    since: datetime
    acknowledged: str = ""

    @property
    def suspended(self) -> bool:
        """Whether it does not hold."""
        return self.guarantee is Guarantee.SUSPENDED


class Guarantees:
    """The standing of every calibration that was the default one; used from the event loop.

    Args:
        ledger: Where they are kept; None: in memory alone.
        monitor: Counts what is written.
    """

    def __init__(self, ledger: Ledger | None, *, monitor: Monitor) -> None:
        self._ledger = ledger
        self._monitor = monitor
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "ibinn-guarantee")
        self._standing: dict[str, Standing] = {}
        self._unknown: set[str] = set()
        self._waiting: deque[GuaranteeEntry] = deque()

    def of(self, calibration: str) -> Standing:
        """The standing of a calibration that has begun."""
        return self._standing[calibration]

    @property
    def unwritten(self) -> bool:
        """Whether something is not in the ledger yet."""
        return bool(self._waiting)

    def begin(self, calibration: str, *, patience_s: float) -> Standing:
        """The standing of a calibration that answers from now on, as the ledger has it.

        Waits for the ledger, but not for long; what it cannot tell in time is taken for suspended
        until it can.

        Args:
            calibration: Its digest.
            patience_s: Longest time to wait.
        """
        present = self._standing.get(calibration)
        if present is not None and self._is_waiting(calibration):
            return present  # the ledger does not know yet what this process does
        if self._ledger is None:
            present = present or Standing(
                guarantee=Guarantee.HELD, reason="", since=datetime.now(UTC)
            )
        else:
            asked = self._thread.submit(self._ledger.guarantee, calibration)
            try:
                present = _standing(asked.result(patience_s), present)
                self._unknown.discard(calibration)
            except (TimeoutError, IbinnError):
                self._unknown.add(calibration)
                present = present or Standing(
                    guarantee=Guarantee.SUSPENDED, reason=_NOT_KNOWN, since=datetime.now(UTC)
                )
        self._standing[calibration] = present
        return present

    def suspend(self, calibration: str, *, reason: str, detector: str) -> None:
        """The guarantee is suspended in this process from now on; `follow` writes it down."""
        before = self._standing[calibration]
        if before.suspended and calibration not in self._unknown:
            return
        self._standing[calibration] = Standing(
            guarantee=Guarantee.SUSPENDED,
            reason=reason,
            since=datetime.now(UTC),
            acknowledged=before.acknowledged,
        )
        if self._ledger is not None:
            self._waiting.append(
                GuaranteeEntry(
                    calibration=calibration,
                    guarantee=Guarantee.SUSPENDED,
                    reason=reason,
                    detector=detector,
                    caller="",
                )
            )

    async def hold(self, calibration: str, *, reason: str, caller: str) -> Standing:
        """A person says that the guarantee holds again.

        Raises:
            RecordsUnavailableError: It cannot be written down; nothing was changed.
        """
        if self._ledger is None:
            now = datetime.now(UTC)
            standing = Standing(
                guarantee=Guarantee.HELD, reason="", since=now, acknowledged=now.isoformat()
            )
        else:
            ledger = self._ledger
            entry = GuaranteeEntry(
                calibration=calibration,
                guarantee=Guarantee.HELD,
                reason=reason,
                detector="",
                caller=caller,
            )

            def write() -> Standing:
                self._write_waiting(ledger)
                self._append(ledger, entry)
                return _standing(ledger.guarantee(calibration), self._standing[calibration])

            standing = await self.run(write)
        self._unknown.discard(calibration)
        self._standing[calibration] = standing
        return standing

    async def follow(self, calibration: str) -> Standing:
        """Writes down what waits, then the standing as the ledger has it now.

        Raises:
            RecordsUnavailableError: The ledger cannot be reached; the standing is as it was.
        """
        if self._ledger is None:
            return self._standing[calibration]
        ledger = self._ledger

        def ask() -> tuple[GuaranteeEntry, datetime] | None:
            self._write_waiting(ledger)
            return ledger.guarantee(calibration)

        found = await self.run(ask)
        present = self._standing[calibration]
        if self._is_waiting(calibration):
            return present  # an alarm came meanwhile, of which the ledger does not know yet
        known = None if calibration in self._unknown else present
        self._unknown.discard(calibration)
        self._standing[calibration] = _standing(found, known)
        return self._standing[calibration]

    def _is_waiting(self, calibration: str) -> bool:
        """Whether a change of a calibration's guarantee is not in the ledger yet."""
        return any(entry.calibration == calibration for entry in self._waiting)

    async def write(self) -> None:
        """Writes down what waits.

        Raises:
            RecordsUnavailableError: The ledger cannot be reached; it waits on.
        """
        if self._ledger is not None and self._waiting:
            ledger = self._ledger
            await self.run(lambda: self._write_waiting(ledger))

    async def run(self, work: Callable[[], R]) -> R:
        """Does what may wait for the ledger, after everything that was asked of it before."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Waits for what is being written."""
        self._thread.shutdown()

    def _write_waiting(self, ledger: Ledger) -> None:
        while self._waiting:
            self._append(ledger, self._waiting[0])
            self._waiting.popleft()

    def _append(self, ledger: Ledger, entry: GuaranteeEntry) -> None:
        start = time.monotonic()
        ledger.append_guarantee(entry)
        self._monitor.recorded(EntryKind.GUARANTEE.value, 1, time.monotonic() - start)


def _standing(found: tuple[GuaranteeEntry, datetime] | None, present: Standing | None) -> Standing:
    """What follows from the ledger's last entry.

    Args:
        found: The entry; None: there is none.
        present: What is known here; None: nothing.
    """
    acknowledged = "" if present is None else present.acknowledged
    if found is None:
        if present is not None and not present.suspended:
            return present
        return Standing(guarantee=Guarantee.HELD, reason="", since=datetime.now(UTC))
    entry, at = found
    held = entry.guarantee is Guarantee.HELD
    return Standing(
        guarantee=entry.guarantee,
        reason="" if held else entry.reason,
        since=at,
        acknowledged=at.isoformat() if held else acknowledged,
    )
