"""Keeps the models of this process as the state that all workers share tells."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Collection

from ibinn.errors import IbinnError
from ibinn.types import Prediction
from service.models import starting
from service.models.candidates import Reason
from service.models.checking import Checks, RefusedError
from service.models.registry import Models
from service.models.served import Background, Served
from service.models.shadow import Shadow
from service.models.state import Entry, State
from service.models.store import Change, Store
from service.monitoring import Monitor
from service.settings import Settings

_log = logging.getLogger(__name__)

_RETRY_S = 10.0
"""After which an approved model that could not be loaded is tried again."""


class Arrangement:
    """Turns the shared state into models, mode and shadow of this process.

    Args:
        settings: Where bundles are.
        models: What is arranged.
        store: Keeps the state.
        checks: Loads models.
        background: Answers for the shadow.
        monitor: Hears of the default model and the mode.
        generator: Draws which calls a shadow answers.

    Attributes:
        state: The one that was last read or written.
        changing: Held by who loads models or changes which there are in this process.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        models: Models,
        store: Store,
        checks: Checks,
        background: Background,
        monitor: Monitor,
        generator: random.Random,
    ) -> None:
        self.state = State()
        self.changing = asyncio.Lock()
        self._settings = settings
        self._models = models
        self._store = store
        self._checks = checks
        self._background = background
        self._monitor = monitor
        self._generator = generator
        self._shadow: Shadow | None = None
        self._fresh: list[Served] = []
        """Loaded and approved, about to be arranged."""
        self._acknowledged = -1
        self._acknowledging = asyncio.Lock()
        self._failed: dict[Entry, float] = {}

    @property
    def shadow(self) -> Shadow | None:
        """The shadow at work."""
        return self._shadow

    def observe(self, image: bytes, served: Served, prediction: Prediction) -> None:
        """Hears of every answer to Classify; returns at once."""
        if self._shadow is not None and served is self._models.default:
            self._shadow.observe(image, prediction)

    def loaded(self, bundle: str, fingerprint: str) -> Served | None:
        """The model in memory that is this content of a bundle."""
        for served, _ in self._models.served():
            if (served.bundle, served.fingerprint) == (bundle, fingerprint):
                return served
        return None

    async def commit(self, change: Change, served: Served | None = None) -> None:
        """Changes the state for all workers and follows it here; either wholly or not at all.

        Args:
            change: Of the state.
            served: A loaded model that the new state may name.

        Raises:
            ConfigError, NotPossibleError: The state cannot be read or written.
        """
        task = asyncio.create_task(self._commit(change, [] if served is None else [served]))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await task  # milliseconds; half a change would be worse
            raise

    async def catch_up(self) -> None:
        """Reads the state and follows it; takes its time only where a model must be loaded.

        Raises:
            ConfigError: The state cannot be read.
        """
        state = await asyncio.to_thread(self._store.read)
        if state is not self.state:
            self.follow_mode(state)
            self._follow(state)
        if not self._due(state):
            await self._acknowledge(state)
        elif not self.changing.locked():  # else who holds it catches up
            async with self.changing:
                await self.catch_up_held()

    async def catch_up_held(self) -> None:
        """As `catch_up`, by who holds `changing`.

        Raises:
            ConfigError: The state cannot be read.
        """
        fresh: list[Served] = []
        while True:
            state = await asyncio.to_thread(self._store.read)
            self._follow(state, fresh)
            due = [entry for entry in self._due(state) if entry not in map(Entry.of, fresh)]
            if not due:
                break
            try:
                fresh.append(await self._load(due[0]))
            except RefusedError as error:
                self._failed[due[0]] = time.monotonic()
                _log.error(
                    "%s, approved for all workers, cannot be loaded by this one: %s",
                    f"bundle {due[0].bundle!r}" if due[0].bundle else "the settings' bundle",
                    "; ".join(error.sentences),
                )
        await self._acknowledge(state)

    def end(self) -> None:
        """Gives up what the shadow is doing."""
        if self._shadow is not None:
            self._shadow.end()

    async def _commit(self, change: Change, fresh: list[Served]) -> None:
        self._fresh += fresh  # before the state names it: another change may follow that first
        try:
            state = await asyncio.to_thread(self._store.change, change)
            self.follow_mode(state)
            self._follow(state)
            await self._acknowledge(state)
        finally:
            self._fresh = [served for served in self._fresh if served not in fresh]

    async def _acknowledge(self, state: State) -> None:
        """Says that this worker follows, if it has the default model and tried all others."""
        async with self._acknowledging:  # else an older number could be written last
            followed = state.default is None or state.default in self._known()
            if followed and not self._due(state) and self._acknowledged < state.generation:
                await asyncio.to_thread(self._store.acknowledge, state.generation)
                self._acknowledged = state.generation

    def follow_mode(self, state: State) -> None:
        """Presses or releases the stop button; it waits for no model."""
        if state.generation < self.state.generation or state.mode == self._models.mode:
            return
        self._models.mode = state.mode
        self._monitor.mode(abstaining=state.mode.abstain_all)
        what = "is pressed, people decide" if state.mode.abstain_all else "is released"
        _log.warning("the stop button %s (%s)", what, state.mode.reason or "no reason given")

    def _follow(self, state: State, fresh: Collection[Served] = ()) -> None:
        """Arranges the models that are loaded; the present default stays until its successor is."""
        if state.generation < self.state.generation:
            return
        self.state = state
        if not self._models.served():  # the process is still loading its first model
            return
        known = self._known(fresh)
        before = self._models.default
        default = before if state.default is None else known.get(state.default)
        if default is None:
            return
        self._models.arrange(
            default=default,
            previous=known.get(state.previous),
            shadow=known.get(state.shadow),
            pinned=[known[entry] for entry in state.pinned if entry in known],
        )
        if default is not before:
            self._monitor.model(default.info)
            _log.info("the default model is %s (bundle %r)", default.digest[:12], default.bundle)
        self._follow_shadow(state)

    def _follow_shadow(self, state: State) -> None:
        served, shadow = self._models.shadow, self._shadow
        if served is None or served is self._models.default:
            self.end()
            self._shadow = None
        elif shadow is None or (shadow.served, shadow.share) != (served, state.shadow_share):
            self.end()
            self._shadow = Shadow(
                served,
                share=state.shadow_share,
                background=self._background,
                monitor=self._monitor,
                generator=self._generator,
            )

    def _known(self, fresh: Collection[Served] = ()) -> dict[Entry | None, Served]:
        """The loaded models by their entries."""
        loaded = [served for served, _ in self._models.served()]
        return {Entry.of(served): served for served in (*fresh, *self._fresh, *loaded)}

    def _due(self, state: State) -> list[Entry]:
        """Models to load now: those not tried yet, and the default one every now and then."""
        known, now = self._known(), time.monotonic()
        return [
            entry
            for entry in state.entries()
            if entry not in known
            and (
                entry not in self._failed
                or (entry == state.default and self._failed[entry] + _RETRY_S <= now)
            )
        ]

    async def _load(self, entry: Entry) -> Served:
        """A model that another worker, or this one in a former life, has approved.

        Raises:
            RefusedError: It is gone or another one, or cannot be loaded.
        """
        try:
            bundle = await asyncio.to_thread(starting.approved_folder, self._settings, entry)
        except IbinnError as error:
            raise RefusedError(Reason.INTEGRITY, str(error)) from error
        served = await self._checks.loaded(bundle, entry.fingerprint)
        if Entry.of(served) != entry:
            raise RefusedError(
                Reason.INTEGRITY,
                f"it has weights {served.digest[:12]}, those of {entry.weights[:12]} were "
                "approved, or another calibration",
            )
        return served
