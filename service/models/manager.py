"""What operators can do about the models of a running server."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import random
from collections.abc import AsyncIterator
from pathlib import Path

from ibinn.errors import CandidateRefusedError, ConfigError, DataError, NotPossibleError
from ibinn.serving import Candidate, Mode, ModelRole, ServerState, Shadow
from ibinn.types import Prediction
from service.models import folder, starting
from service.models.acceptance import Acceptance
from service.models.arrangement import Arrangement
from service.models.candidates import Judged, Reason
from service.models.checking import Checks, Load, RefusedError, Verify
from service.models.mode import ModeState
from service.models.registry import Models, described
from service.models.repeating import repeat
from service.models.served import Background, Served
from service.models.state import Entry, State
from service.models.store import FileStore, MemoryStore, Store
from service.models.watch import Watch
from service.monitoring import Monitor
from service.settings import Settings

_log = logging.getLogger(__name__)

_POLL_S = 0.2
"""How often a worker looks for what another one was told."""
_AGREEMENT_S = 60.0
"""Longest time for all workers to follow; each may have to load a model."""
_AGREEMENT_POLL_S = 0.02
_REST_S = 30.0
"""Time to the next look at a new bundle that could not be judged; loading it again is dear."""


class ModelManager:
    """Changes which models there are, on an operator's word or for a new bundle in the folder.

    Whatever fails, the present models go on. Changes of models come one after the other, over all
    workers; the stop button waits for none of them.

    Args:
        settings: What can be set.
        models: What this process serves.
        load: Loads a bundle.
        verify: Checks a bundle's files, and its signature if one is required.
        background: Answers for acceptance sets and shadows.
        monitor: Counts and exports.
        generator: Draws which calls a shadow answers; None: one of its own.

    Raises:
        ConfigError: The state folder cannot be written, or the state in it cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        models: Models,
        load: Load,
        verify: Verify,
        background: Background,
        monitor: Monitor,
        generator: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._models = models
        self._store: Store = (
            MemoryStore() if settings.state_dir is None else FileStore(settings.state_dir)
        )
        self._checks = Checks(
            settings,
            verify=verify,
            load=load,
            acceptance=Acceptance(settings, background),
            monitor=monitor,
        )
        self._arrangement = Arrangement(
            settings,
            models=models,
            store=self._store,
            checks=self._checks,
            background=background,
            monitor=monitor,
            generator=random.Random() if generator is None else generator,
        )
        self._watch = None if settings.models is None else Watch(settings.models)
        self._initial: Entry | None = None
        self._tasks: list[asyncio.Task[None]] = []
        # Before there is a model: no answer may leave past a stop button that is pressed.
        try:
            self._arrangement.follow_mode(self._store.read())
        except ConfigError:
            self._store.close()
            raise

    def initial_folder(self) -> Path:
        """The bundle to start with: what operators made the default, else the settings'.

        Raises:
            ConfigError: The state cannot be read, or what they made the default is gone or changed.
            BundleNotFoundError: There is no embedded model.
        """
        self._initial = self._store.read().default
        return starting.folder_of(self._settings, self._initial)

    async def start(self, initial: Served) -> None:
        """Serves the initial model, begins to follow what operators tell and to watch the folder.

        The other models that were loaded before a restart are loaded in the background.

        Args:
            initial: The model of `initial_folder`, loaded.

        Raises:
            ConfigError: It is not the model that operators made the default, or the acceptance set
                cannot be used.
        """
        settings, told = self._settings, self._initial
        await asyncio.to_thread(starting.check_acceptance, settings, initial)
        served = await asyncio.to_thread(starting.named, settings, initial, told)
        self._models.arrange(default=served)
        state = await asyncio.to_thread(self._store.read)
        judged = await asyncio.to_thread(starting.judged, settings, served, state)
        await self._arrangement.commit(
            lambda state: starting.forgetting(state.with_judged(*judged), told, served)
        )
        self._tasks.append(asyncio.create_task(repeat(_POLL_S, self._arrangement.catch_up)))
        if self._watch is not None:
            interval_s = settings.watch_interval_s
            self._tasks.append(asyncio.create_task(repeat(interval_s, self._look, rest_s=_REST_S)))

    async def stop(self) -> None:
        """Watches no more; takes no part in what other workers do."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._arrangement.end()
        await asyncio.to_thread(self._store.close)

    def observe(self, image: bytes, served: Served, prediction: Prediction) -> None:
        """Hears of every answer to Classify, for the shadow; returns at once."""
        self._arrangement.observe(image, served, prediction)

    async def state(self) -> ServerState:
        """What the server holds and does."""
        state = self._arrangement.state
        workers, agreeing = await asyncio.to_thread(self._store.workers, state.generation)
        mode = self._models.mode
        return ServerState(
            served=self._models.listed(),
            mode=Mode.ABSTAIN_ALL if mode.abstain_all else Mode.NORMAL,
            mode_reason=mode.reason,
            shadow=self._shadow(),
            candidates=tuple(judged.candidate for judged in state.candidates),
            generation=state.generation,
            workers=workers,
            workers_agreeing=agreeing,
        )

    async def reload(self, bundle: str, *, keep_default: bool = False) -> Candidate:
        """Checks a bundle of the models folder and makes it the default model.

        Args:
            bundle: Name of its folder.
            keep_default: Load and check it only; calls can name it by its digest.

        Raises:
            NotPossibleError: There is no models folder, or the bundle could not be judged.
            UnknownModelError: There is no such bundle.
            CandidateRefusedError: It failed a check; the models stay as they were.
        """
        path = folder.find(self._settings.models, bundle)
        async with self._changing_models():
            return await self._promote(path, keep_default=keep_default)

    async def rollback(self) -> None:
        """Makes the previous default model the default again; a second rollback takes it back.

        Raises:
            NotPossibleError: There is no previous model.
        """
        async with self._changing_models():
            previous = self._models.previous
            if previous is None:
                gone = self._arrangement.state.previous
                raise NotPossibleError(
                    "there is no previous model to return to"
                    + (f": bundle {gone.bundle!r} cannot be loaded, see the log" if gone else "")
                    + "; nothing was changed"
                )
            old = Entry.of(self._models.default)
            await self._arrangement.commit(functools.partial(_promoted, old, Entry.of(previous)))
            _log.warning("rolled back to bundle %r (%s)", previous.bundle, previous.digest[:12])

    async def set_shadow(self, bundle: str, *, share: float = 0.0) -> None:
        """Starts, replaces or ends the shadow.

        Args:
            bundle: Name of its folder; empty: end the shadow.
            share: Of the calls that the default model answers; 0: the setting.

        Raises:
            NotPossibleError: There is no models folder, or the bundle is the default model.
            UnknownModelError: There is no such bundle.
            CandidateRefusedError: It cannot be loaded.
        """
        if not bundle:
            async with self._changing_models():
                await self._arrangement.commit(
                    lambda state: dataclasses.replace(state, shadow=None, shadow_share=0.0)
                )
            return
        path = folder.find(self._settings.models, bundle)
        async with self._changing_models():
            judged, served = await self._checked(path, present=None)
            if served is self._models.default:
                raise NotPossibleError(
                    f"bundle {bundle!r} is the default model; a shadow is another one"
                )
            await self._arrangement.commit(
                lambda state: dataclasses.replace(
                    state.with_candidate(judged),
                    shadow=Entry.of(served),
                    shadow_share=share or self._settings.shadow_share,
                ),
                served,
            )

    async def set_mode(self, *, abstain_all: bool, reason: str = "") -> None:
        """Presses or releases the stop button.

        Args:
            abstain_all: Leave every decision to people.
            reason: Why; stands in every decision and in the log.

        Raises:
            NotPossibleError: The state folder cannot be written.
        """
        mode = ModeState(abstain_all=abstain_all, reason=reason)
        await self._arrangement.commit(lambda state: dataclasses.replace(state, mode=mode))
        await self._agreement()

    @contextlib.asynccontextmanager
    async def _changing_models(self) -> AsyncIterator[None]:
        """One change of models at a time over all workers, begun at what the last one left."""
        async with self._store.exclusive():
            async with self._arrangement.changing:
                await self._arrangement.catch_up_held()
                yield
            await self._agreement()

    def _shadow(self) -> Shadow | None:
        shadow = self._arrangement.shadow
        if shadow is None:
            return None
        figures = shadow.figures
        return Shadow(
            model=described(shadow.served, ModelRole.SHADOW),
            share=shadow.share,
            compared=figures.compared,
            class_differs=figures.class_differs,
            verdict_differs=figures.verdict_differs,
            mean_confidence_difference=figures.mean_confidence_difference,
            skipped=figures.skipped,
        )

    async def _promote(self, bundle: Path, *, keep_default: bool = False) -> Candidate:
        present = self._models.default
        judged, served = await self._checked(bundle, present=present)
        change = _pinned if keep_default else functools.partial(_promoted, Entry.of(present))
        await self._arrangement.commit(
            lambda state: change(Entry.of(served), state).with_candidate(judged), served
        )
        return judged.candidate

    async def _checked(self, bundle: Path, *, present: Served | None) -> tuple[Judged, Served]:
        try:
            judged, served = await self._checks.check(
                bundle,
                loaded=self._arrangement.loaded,
                make_room=self._make_room,
                present=present,
            )
        except DataError as error:
            raise NotPossibleError(
                f"bundle {bundle.name!r} cannot be judged, {error}; the present models go on"
            ) from error
        if served is None:
            await self._arrangement.commit(lambda state: state.with_candidate(judged))
            raise CandidateRefusedError(
                f"bundle {bundle.name!r} is refused, the present models go on: "
                f"{'; '.join(judged.candidate.reasons)}",
                reasons=judged.candidate.reasons,
            )
        return judged, served

    async def _make_room(self) -> None:
        """Lets the least recently asked models go that nothing but a digest names.

        Raises:
            RefusedError: The others fill the memory.
        """
        limit = self._settings.max_models
        while len(self._models.served()) >= limit:
            if not self._models.pinned:
                roles = ", ".join(role.value for _, role in self._models.served())
                raise RefusedError(
                    Reason.MEMORY,
                    f"{limit} models are in memory ({roles}), the limit of this server, and none "
                    "of them can go; raise --max-models (IBINN_MAX_MODELS), or end the shadow",
                )
            gone = Entry.of(self._models.pinned[0])
            await self._arrangement.commit(functools.partial(_without, gone))
            _log.info("bundle %r made room for a new one", gone.bundle)

    async def _agreement(self) -> None:
        """Waits until all live workers are where this one is; `state` tells whether they are."""
        generation = self._arrangement.state.generation
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AGREEMENT_S):
                while True:
                    live, agreeing = await asyncio.to_thread(self._store.workers, generation)
                    if agreeing >= live:
                        return
                    await asyncio.sleep(_AGREEMENT_POLL_S)
        _log.error("%d of %d workers follow generation %d", agreeing, live, generation)

    async def _look(self) -> None:
        """Makes the newest of the new bundles the default: the last by name that passes."""
        assert self._watch is not None
        if not await asyncio.to_thread(self._store.leads):
            return
        state = await asyncio.to_thread(self._store.read)
        found = await asyncio.to_thread(self._watch.look, state.judged)
        for position, one in reversed(list(enumerate(found))):
            async with self._changing_models():
                if one.fingerprint in self._arrangement.state.judged:
                    continue  # an operator was faster
                with contextlib.suppress(CandidateRefusedError):  # logged, counted, remembered
                    await self._promote(one.bundle)
                    older = tuple(other.fingerprint for other in found[:position])
                    await self._arrangement.commit(functools.partial(_passed_over, older))
                    return


def _promoted(old: Entry, new: Entry, state: State) -> State:
    """The state with a new default model; the old one becomes the previous one."""
    return dataclasses.replace(
        _without(new, state),
        default=new,
        previous=state.previous if old == new else old,
        shadow=None if state.shadow == new else state.shadow,
    )


def _pinned(new: Entry, state: State) -> State:
    """The state with a model that is asked by its digest alone."""
    state = _without(new, state)
    return dataclasses.replace(state, pinned=(*state.pinned, new))


def _without(gone: Entry, state: State) -> State:
    return dataclasses.replace(
        state, pinned=tuple(entry for entry in state.pinned if entry != gone)
    )


def _passed_over(fingerprints: tuple[str, ...], state: State) -> State:
    return state.with_judged(*fingerprints)
