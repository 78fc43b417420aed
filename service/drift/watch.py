"""Watching the default model for drift, and saying in every answer whether its guarantee holds."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from ibinn.errors import IbinnError, NotPossibleError, RecordsUnavailableError
from ibinn.records import FeedbackEntry
from ibinn.serving import NO_DRIFT, Detector, Drift
from ibinn.types import Guarantee, Prediction
from service.drift.calibrated import calibration_of
from service.drift.guarantees import Guarantees, Standing
from service.drift.sentinels import Sentinels
from service.drift.thread import DetectorThread, Watched
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

_NOT_WATCHED: tuple[Guarantee | None, str] = (None, "")
_TO_DO = (
    "find out what changed in the images; then acknowledge it (ibinn admin acknowledge REASON) if "
    "it may be so, or recalibrate or retrain; until then every answer says that the guarantee is "
    "suspended"
)


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
        self._guarantees = Guarantees(self._ledger, monitor=monitor)
        self._thread = DetectorThread(settings, server=server, ledger=self._ledger)
        self._watched: Watched | None = None
        self._told: dict[str, tuple[Guarantee | None, str]] = {}
        """What answers say, by calibration."""
        self._patience_s = settings.records_timeout_s
        self._digesting = asyncio.Lock()
        self._following = asyncio.Lock()
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
        async with self._digesting, self._following:  # else what is being found would be lost
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
            await asyncio.to_thread(self._thread.close)
            await asyncio.to_thread(self._guarantees.close)

    def serves(self, served: Served) -> None:
        """A model is the default one from now on; call it before it answers.

        Waits a moment for the ledger, so that a suspended guarantee is so from the first answer.
        """
        before = self._watched
        if before is not None and before.served is served:
            return
        if before is not None:
            self._watched = None
            self._told.clear()
            self._monitor.drift_ends(before.served.info.versions, before.detectors)
            self._thread.remember(before)
        if not self._settings.drift or calibration_of(served) is None:
            return
        watched = Watched(served)
        standing = self._guarantees.begin(watched.calibration, patience_s=self._patience_s)
        self._patience_s = _CHANGE_PATIENCE_S
        watched.acknowledged = standing.acknowledged
        self._watched = watched
        self._tell(watched, standing)
        beginning = self._thread.begin(watched, standing)
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
        async with self._following:
            await self._acknowledge(watched, reason=reason, caller=caller)

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
            found = await self._thread.observe(watched, answers)
            if found is None:
                return
            if watched is self._watched:
                self._export(watched, found)
            if era == watched.era:  # else the detectors have begun anew since
                for alarm in found.alarms:
                    self._raise(watched, alarm)

    def _export(self, watched: Watched, found: Found) -> None:
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
        self._shows(watched, found.detectors)

    def _shows(self, watched: Watched, detectors: tuple[Detector, ...]) -> None:
        versions = watched.served.info.versions
        if not watched.detectors:
            self._monitor.drift_begins(versions, detectors)
        self._monitor.drift(versions, detectors)
        watched.detectors = detectors

    def _raise(self, watched: Watched, alarm: Alarm) -> None:
        self._monitor.drift_alarm(watched.served.info.versions, alarm.detector)
        _log.warning(
            "drift alarm: %s; %s",
            alarm.reason,
            _TO_DO,
            extra={"detector": alarm.detector, "calibration": watched.calibration[:12]},
        )
        self._guarantees.suspend(watched.calibration, reason=alarm.reason, detector=alarm.detector)
        if watched is self._watched:
            self._tell(watched, self._guarantees.of(watched.calibration))

    async def _acknowledge(self, watched: Watched, *, reason: str, caller: str) -> None:
        if not self._guarantees.of(watched.calibration).suspended:
            raise NotPossibleError(
                "no drift alarm is raised, the guarantee holds; there is nothing to acknowledge"
            )
        await self._stands(
            watched,
            await self._guarantees.hold(watched.calibration, reason=reason, caller=caller),
        )

    async def _follow(self, *, save: bool = False) -> None:
        """Does what another process, or an operator there, has said; saves what a restart needs."""
        async with self._following:
            watched = self._watched
            try:
                if watched is None:
                    await self._guarantees.write()
                    return
                await self._stands(watched, await self._guarantees.follow(watched.calibration))
                now = time.monotonic()
                if save or now >= self._due_to_save:
                    self._due_to_save = now + _SAVE_S
                    await self._save(watched)
            except RecordsUnavailableError:
                pass  # the recorder says so; tried again in a moment

    async def _stands(self, watched: Watched, standing: Standing) -> None:
        """Tells a standing; after an acknowledgement that is new here, detectors begin anew."""
        if watched is not self._watched:
            return
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
            detectors = await self._thread.begin_anew(watched, standing.acknowledged)
            if detectors and watched is self._watched:
                self._shows(watched, detectors)

    def _tell(self, watched: Watched, standing: Standing) -> None:
        self._told = {watched.calibration: _said(standing)}
        self._monitor.guarantee(watched.served.info.versions, suspended=standing.suspended)

    async def _save(self, watched: Watched) -> None:
        ledger = self._ledger
        if ledger is None:
            return
        async with self._digesting:  # else a restart could take an alarm for raised that is not
            if self._guarantees.unwritten:
                return
            body = await self._thread.to_save(watched)
        if body is not None:
            owner, calibration = self._server, watched.calibration
            await self._guarantees.run(lambda: ledger.save_state(owner, calibration, body))

    def _begun(self, watched: Watched, beginning: asyncio.Future[Watching]) -> None:
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


def _said(standing: Standing) -> tuple[Guarantee | None, str]:
    return standing.guarantee, standing.reason
