"""Watching the default model for drift, and saying in every answer whether its guarantee holds."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import secrets
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ibinn.errors import DataError, IbinnError, NotPossibleError, RecordsUnavailableError
from ibinn.records import FeedbackEntry
from ibinn.serving import NO_DRIFT, Detector, Drift
from ibinn.types import Guarantee, Prediction
from service.drift.calibrated import calibration_of
from service.drift.guarantees import Guarantees, Standing
from service.drift.saved import Saved
from service.drift.sentinels import Sentinels
from service.models.registry import Models
from service.models.repeating import repeat
from service.models.served import Background, Served
from service.monitoring import Monitor
from service.settings import Settings

if TYPE_CHECKING:
    from service.drift.watching import Alarm, Found, Watching
    from service.records.recorder import Recorder

_log = logging.getLogger(__name__)

_DIGEST_S = 0.2
"""Time in which answers gather before the detectors see them."""
_FOLLOW_S = 0.5
"""Time between two looks at the ledger."""
_SAVE_S = 5.0
"""Time between two savings of the detectors' states."""
_CHANGE_PATIENCE_S = 0.25
"""Longest time that answers wait for the ledger when the default model changes."""
_MOST_WAITING = 20_000
"""Answers that wait for the detectors; more are not looked at."""
_REMEMBERED = 8
"""Number of calibrations whose detectors are remembered in memory."""

_NOT_WATCHED: tuple[Guarantee | None, str] = (None, "")
_TO_DO = (
    "find out what changed in the images; then acknowledge it (ibinn admin acknowledge --reason "
    "...) if it may be so, or recalibrate or retrain; until then every answer says that the "
    "guarantee is suspended"
)


class _Watched:
    """The default model while it is watched."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.calibration = served.info.versions.calibration
        self.heard: list[Prediction] = []
        self.missed = 0
        self.detectors: tuple[Detector, ...] = ()
        self.watching: Watching | None = None
        """Made in the detectors' thread, and used there alone."""
        self.saved_count = 0
        self.era = 0
        """Counts how often the detectors began anew."""
        self.acknowledged = ""


class DriftWatch:
    """Hears of every answer, raises alarms and keeps the guarantee of the default model.

    Everything but the detectors themselves runs on the event loop; the detectors run in a thread,
    and what asks the ledger in another.

    Args:
        settings: What can be set.
        server: Names this process over restarts; its detectors' states are kept under it.
        monitor: Counts and exports.
        models: What this process serves.
        recorder: Its ledger keeps guarantee and states; None: memory alone, and a restart forgets.
        background: Answers sentinel images.

    Raises:
        ConfigError: The folder of sentinels cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        server: str,
        monitor: Monitor,
        models: Models,
        recorder: Recorder | None,
        background: Background,
    ) -> None:
        self._settings = settings
        self._server = server
        self._monitor = monitor
        self._models = models
        self._ledger = None if recorder is None else recorder.ledger
        self._guarantees = Guarantees(self._ledger)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "ibinn-drift")
        self._watched: _Watched | None = None
        self._told: dict[str, tuple[Guarantee | None, str]] = {}
        """What answers say, by calibration."""
        self._remembered: dict[str, Saved] = {}
        self._digesting = asyncio.Lock()
        self._due_to_save = 0.0
        self._sentinels = (
            None
            if settings.sentinels is None
            else Sentinels(settings, models=models, background=background, monitor=monitor)
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begins to look at what is observed, and to follow the ledger."""
        if self._settings.drift:
            self._tasks.append(asyncio.create_task(repeat(_DIGEST_S, self._digest)))
            self._tasks.append(asyncio.create_task(repeat(_FOLLOW_S, self._follow)))
        if self._sentinels is not None:
            interval_s = self._settings.sentinel_interval_s
            self._tasks.append(asyncio.create_task(repeat(interval_s, self._sentinels.send)))

    async def stop(self) -> None:
        """Looks at what was observed last, and keeps the detectors' states."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        try:
            await self._digest()
            await self._follow(save=True)
        finally:
            if self._sentinels is not None:
                self._sentinels.close()
            await asyncio.to_thread(self._thread.shutdown)
            await asyncio.to_thread(self._guarantees.close)

    def serves(self, served: Served) -> None:
        """A model is the default one from now on; call it before it answers.

        Waits a moment for the ledger, so that a suspended guarantee is so from the first answer.
        """
        before = self._watched
        if before is not None and before.served is served:
            return
        first = before is None
        if before is not None:
            self._watched = None
            self._told.clear()
            self._monitor.drift_ends(before.served.info.versions, before.detectors)
            self._thread.submit(self._remember, before)
        if not self._settings.drift or calibration_of(served) is None:
            return
        watched = _Watched(served)
        patience_s = self._settings.records_timeout_s if first else _CHANGE_PATIENCE_S
        standing = self._guarantees.begin(watched.calibration, patience_s=patience_s)
        watched.acknowledged = standing.acknowledged
        self._watched = watched
        self._tell(watched, standing)
        loop = asyncio.get_running_loop()
        beginning = loop.run_in_executor(self._thread, self._begin, watched, standing)
        beginning.add_done_callback(functools.partial(self._begun, watched))

    def observe(self, image: bytes, served: Served, prediction: Prediction) -> None:
        """Hears of an answer to Classify; returns at once."""
        watched = self._watched
        if watched is None or served is not watched.served:
            return
        if len(watched.heard) < _MOST_WAITING:
            watched.heard.append(prediction)
        else:
            watched.missed += 1

    def labelled(self, entry: FeedbackEntry) -> None:
        """Hears of a statement about an answer that is durable."""
        self._monitor.feedback(entry, classes=self._classes_of(entry))

    def guarantee(self, served: Served) -> tuple[Guarantee | None, str]:
        """What an answer of a model says of the guarantee, and why it is suspended."""
        return self._told.get(served.info.versions.calibration, _NOT_WATCHED)

    async def acknowledge(self, *, reason: str, caller: str) -> None:
        """Ends the suspension: the guarantee holds again, and the detectors begin anew.

        Args:
            reason: Why.
            caller: Who says so.

        Raises:
            NotPossibleError: Nothing is suspended.
            RecordsUnavailableError: It cannot be written down; nothing was changed.
        """
        watched = self._watched
        if watched is None:
            raise NotPossibleError(
                "the default model is not watched for drift (not calibrated, calibrated by an "
                "older version, or --no-drift); there is nothing to acknowledge"
            )
        await self._follow()
        if not self._guarantees.of(watched.calibration).suspended:
            raise NotPossibleError(
                "no drift alarm is raised, the guarantee holds; there is nothing to acknowledge"
            )
        standing = await self._guarantees.hold(watched.calibration, reason=reason, caller=caller)
        _log.warning(
            "the drift alarm is acknowledged, the guarantee holds again (%s)",
            reason,
            extra={"caller": caller},
        )
        await self._stands(watched, standing)

    def state(self) -> Drift:
        """What is known of the default model."""
        watched = self._watched
        if watched is None:
            return NO_DRIFT
        standing = self._guarantees.of(watched.calibration)
        return Drift(
            guarantee=standing.guarantee,
            reason=standing.reason,
            since=standing.since,
            detectors=watched.detectors,
        )

    # ------------------------------------------------------------------------ on the event loop

    async def _digest(self) -> None:
        """Shows the detectors what was heard, and does what follows."""
        async with self._digesting:
            watched = self._watched
            if watched is None or not watched.heard:
                return
            answers, watched.heard = watched.heard, []
            if watched.missed:
                _log.warning(
                    "the drift detectors did not see %d answers: they came too fast",
                    watched.missed,
                )
                watched.missed = 0
            era = watched.era
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._thread, _observed, watched, answers)
            if found is not None and watched is self._watched:
                self._learn(watched, found, current=era == watched.era)

    def _learn(self, watched: _Watched, found: Found, *, current: bool) -> None:
        """Exports what was found, and raises the alarms.

        Args:
            watched: The model.
            found: What came of its answers.
            current: Whether the detectors have not begun anew meanwhile.
        """
        versions = watched.served.info.versions
        for window in found.windows:
            self._monitor.expected(
                versions,
                accepted=window.accepted,
                correct=window.correct,
                confidence=window.confidence,
            )
        if found.recent is not None:
            self._monitor.recent(
                versions,
                uniformity_p=found.recent.uniformity_p,
                typicality_p=found.recent.typicality_p,
                prior_shift=found.recent.prior_shift,
                covariate_shift=found.recent.covariate_shift,
            )
        if not current:
            return
        self._shows(watched, found.detectors)
        for alarm in found.alarms:
            self._raise(watched, alarm)

    def _shows(self, watched: _Watched, detectors: tuple[Detector, ...]) -> None:
        versions = watched.served.info.versions
        if not watched.detectors:
            self._monitor.drift_begins(versions, detectors)
        self._monitor.drift(versions, detectors)
        watched.detectors = detectors

    def _raise(self, watched: _Watched, alarm: Alarm) -> None:
        self._monitor.drift_alarm(watched.served.info.versions, alarm.detector)
        _log.warning(
            "drift alarm: %s; %s",
            alarm.reason,
            _TO_DO,
            extra={"detector": alarm.detector, "calibration": watched.calibration[:12]},
        )
        self._guarantees.suspend(watched.calibration, reason=alarm.reason, detector=alarm.detector)
        self._tell(watched, self._guarantees.of(watched.calibration))

    async def _follow(self, *, save: bool = False) -> None:
        """Does what another process, or an operator there, has said; saves what a restart needs."""
        watched = self._watched
        if watched is None:
            return
        try:
            standing = await self._guarantees.follow(watched.calibration)
            if watched is not self._watched:
                return
            await self._stands(watched, standing)
            now = time.monotonic()
            if save or now >= self._due_to_save:
                self._due_to_save = now + _SAVE_S
                await self._save(watched)
        except RecordsUnavailableError:
            pass  # the recorder says so; tried again in a moment

    async def _stands(self, watched: _Watched, standing: Standing) -> None:
        """Tells a standing; after an acknowledgement that is new here, detectors begin anew."""
        said = self._told.get(watched.calibration)
        if said != _said(standing):
            self._tell(watched, standing)
            _log.warning(
                "the guarantee of calibration %s %s",
                watched.calibration[:12],
                f"is suspended: {standing.reason}" if standing.suspended else "holds again",
            )
        if not standing.suspended and standing.acknowledged != watched.acknowledged:
            watched.acknowledged = standing.acknowledged
            watched.era += 1
            watched.heard.clear()
            loop = asyncio.get_running_loop()
            detectors = await loop.run_in_executor(
                self._thread, _begun_anew, watched, standing.acknowledged
            )
            if detectors and watched is self._watched:
                self._shows(watched, detectors)

    def _tell(self, watched: _Watched, standing: Standing) -> None:
        self._told = {watched.calibration: _said(standing)}
        self._monitor.guarantee(watched.served.info.versions, suspended=standing.suspended)

    async def _save(self, watched: _Watched) -> None:
        ledger = self._ledger
        if ledger is None or self._guarantees.unwritten:
            return  # the alarm first: else a restart would take it for told
        loop = asyncio.get_running_loop()
        body = await loop.run_in_executor(self._thread, _to_save, watched)
        if body is not None:
            owner, calibration = self._server, watched.calibration
            await self._guarantees.run(lambda: ledger.save_state(owner, calibration, body))

    def _begun(self, watched: _Watched, beginning: asyncio.Future[Watching]) -> None:
        """The detectors are made, or cannot be."""
        if beginning.cancelled() or watched is not self._watched:
            return
        error = beginning.exception()
        if error is None:
            if watched.era == 0:
                watched.acknowledged = beginning.result().acknowledged
            self._shows(watched, beginning.result().detectors)
            return
        self._watched = None
        self._told = {}
        self._monitor.drift_ends(watched.served.info.versions, ())
        _log.error(
            "model %s is not watched for drift, its answers say nothing of a guarantee: %s",
            watched.served.digest[:12],
            error,
            exc_info=None if isinstance(error, IbinnError) else error,
        )

    def _classes_of(self, entry: FeedbackEntry) -> Collection[str] | None:
        versions = entry.answer.versions
        for served, _ in self._models.served():
            known = served.info.versions
            same_classes = versions.taxonomy and known.taxonomy == versions.taxonomy
            if known.weights == versions.weights or same_classes:
                return served.info.classes
        return None

    # ---------------------------------------------------------------- in the detectors' thread

    def _begin(self, watched: _Watched, standing: Standing) -> Watching:
        """Makes the detectors, as they were left where they were.

        Raises:
            NotCalibratedError, DataError: See `reference_of`.
        """
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

    def _remember(self, watched: _Watched) -> None:
        """Keeps the detectors of a model that is the default one no more, lest it comes back."""
        if watched.watching is not None:
            self._remembered[watched.calibration] = watched.watching.to_saved()
            for calibration in list(self._remembered)[:-_REMEMBERED]:
                del self._remembered[calibration]


def _observed(watched: _Watched, answers: Sequence[Prediction]) -> Found | None:
    return None if watched.watching is None else watched.watching.observe(answers)


def _begun_anew(watched: _Watched, acknowledged: str) -> tuple[Detector, ...]:
    if watched.watching is None:
        return ()
    watched.watching.begin_anew(seed=secrets.randbits(32), acknowledged=acknowledged)
    watched.saved_count = -1
    return watched.watching.detectors


def _to_save(watched: _Watched) -> bytes | None:
    """The state, if it is not what was saved last."""
    watching = watched.watching
    if watching is None or watching.count == watched.saved_count:
        return None
    watched.saved_count = watching.count
    return watching.to_saved().to_bytes()


def _said(standing: Standing) -> tuple[Guarantee | None, str]:
    return standing.guarantee, standing.reason
