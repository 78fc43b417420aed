"""The thread of the detectors: what is asked of it is done in the order of asking."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from ibinn.errors import DataError, RecordsUnavailableError
from ibinn.serving import Detector
from ibinn.types import Prediction
from service.drift.guarantees import Ledger, Standing
from service.drift.saved import Saved
from service.models.served import Served
from service.settings import Settings

if TYPE_CHECKING:
    from service.drift.watching import Found, Watching

_log = logging.getLogger(__name__)

_REMEMBERED = 8
"""Number of calibrations whose detectors are remembered in memory."""

R = TypeVar("R")


class Watched:
    """The default model while it is watched.

    Attributes:
        served: The model.
        calibration: Digest of its calibration.
        heard: Answers that the detectors have not seen.
        missed: Answers that they will not see.
        detectors: Where they were last.
        acknowledged: Which acknowledgement they began after.
        era: How often they began anew.
        watching: Made in the thread, and used there alone.
        saved_count: Answers behind the state that was saved last; used in the thread.
    """

    def __init__(self, served: Served) -> None:
        self.served = served
        self.calibration = served.info.versions.calibration
        self.heard: list[Prediction] = []
        self.missed = 0
        self.detectors: tuple[Detector, ...] = ()
        self.watching: Watching | None = None
        self.saved_count = 0
        self.era = 0
        self.acknowledged = ""


class DetectorThread:
    """Runs the detectors of the default model; called from the event loop.

    Args:
        settings: Rate of false alarms, and window.
        server: Whose states are loaded.
        ledger: Where they are kept; None: nowhere.
    """

    def __init__(self, settings: Settings, *, server: str, ledger: Ledger | None) -> None:
        self._settings = settings
        self._server = server
        self._ledger = ledger
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "ibinn-drift")
        self._remembered: dict[str, Saved] = {}

    def begin(self, watched: Watched, standing: Standing) -> asyncio.Future[Watching]:
        """Makes the detectors, as they were left where they were.

        Raises:
            NotCalibratedError, DataError: See `service.drift.watching.reference_of`.
        """
        return self._run(lambda: self._begin(watched, standing))

    async def observe(self, watched: Watched, answers: Sequence[Prediction]) -> Found | None:
        """What comes of answers; None where there are no detectors."""

        def work() -> Found | None:
            return None if watched.watching is None else watched.watching.observe(answers)

        return await self._run(work)

    async def begin_anew(self, watched: Watched, acknowledged: str) -> tuple[Detector, ...]:
        """Forgets what the detectors have seen; where they are then."""

        def work() -> tuple[Detector, ...]:
            if watched.watching is None:
                return ()
            watched.watching.begin_anew(seed=secrets.randbits(32), acknowledged=acknowledged)
            watched.saved_count = -1
            return watched.watching.detectors

        return await self._run(work)

    async def to_save(self, watched: Watched) -> bytes | None:
        """The detectors' state; None where it is what was saved last."""

        def work() -> bytes | None:
            watching = watched.watching
            if watching is None or watching.count == watched.saved_count:
                return None
            watched.saved_count = watching.count
            return watching.to_saved().to_bytes()

        return await self._run(work)

    def remember(self, watched: Watched) -> None:
        """Keeps the detectors of a model that is the default one no more, lest it comes back."""

        def work() -> None:
            if watched.watching is not None:
                self._remembered[watched.calibration] = watched.watching.to_saved()
                for calibration in list(self._remembered)[:-_REMEMBERED]:
                    del self._remembered[calibration]

        self._run(work)

    def close(self) -> None:
        """Waits for what is being done."""
        self._thread.shutdown()

    def _run(self, work: Callable[[], R]) -> asyncio.Future[R]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _begin(self, watched: Watched, standing: Standing) -> Watching:
        from service.drift.watching import Watching, reference_of  # takes seconds the first time

        saved = self._saved(watched.calibration)
        acknowledged = standing.acknowledged
        if saved is not None:
            if standing.suspended:
                acknowledged = saved.acknowledged  # the ledger tells no more than the alarm
            elif saved.acknowledged != acknowledged:
                saved = None  # acknowledged while this process was away
        watched.watching = Watching(
            reference_of(watched.served),
            false_alarm_rate=self._settings.drift_false_alarm_rate,
            window=self._settings.drift_window,
            seed=secrets.randbits(32),
            acknowledged=acknowledged,
            saved=saved,
        )
        return watched.watching

    def _saved(self, calibration: str) -> Saved | None:
        if calibration in self._remembered:
            return self._remembered.pop(calibration)
        if self._ledger is None:
            return None
        try:
            body = self._ledger.load_state(self._server, calibration)
            return None if body is None else Saved.of_bytes(body)
        except (RecordsUnavailableError, DataError) as error:
            _log.warning("the drift detectors begin anew: %s", error)
            return None
