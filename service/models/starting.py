"""What a server process begins with: which bundle, and whether it is the one that was approved."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from pathlib import Path

from ibinn import manifest
from ibinn.errors import ConfigError, DataError, UnknownModelError
from service.models import acceptance, folder
from service.models.served import Served
from service.models.state import Entry, State
from service.settings import Settings

_log = logging.getLogger(__name__)


def folder_of(settings: Settings, told: Entry | None) -> Path:
    """The bundle to start with.

    Args:
        settings: Name one themselves.
        told: The model that operators made the default before.

    Raises:
        ConfigError: That model is gone or changed.
        BundleNotFoundError: There is no embedded model.
    """
    if told is None:
        return settings_folder(settings)
    try:
        return approved_folder(settings, told)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; or remove state.json from {settings.state_dir} to start from the settings "
            "alone"
        ) from error


def named(settings: Settings, initial: Served, told: Entry | None) -> Served:
    """The initial model with the name and fingerprint of its folder, if it is of the models folder.

    Raises:
        ConfigError: It is not the model that operators made the default.
    """
    if told is not None and told.bundle:
        served = dataclasses.replace(initial, bundle=told.bundle, fingerprint=told.fingerprint)
        if Entry.of(served) != told:
            raise ConfigError(
                f"bundle {told.bundle!r} is in use and was changed since it was checked: weights "
                f"are {served.digest[:12]}, those of {told.weights[:12]} were approved, or the "
                "calibration is another; put back what was there"
            )
        return served
    bundle = settings.bundle
    if bundle is None:
        return initial
    if settings.models is None or bundle.resolve().parent != settings.models.resolve():
        return dataclasses.replace(initial, bundle=bundle.name)
    fingerprint = folder.fingerprint(settings.models / bundle.name)
    return dataclasses.replace(initial, bundle=bundle.name, fingerprint=fingerprint)


def judged(settings: Settings, served: Served, state: State) -> tuple[str, ...]:
    """Fingerprints of bundles that are no candidates: the initial one's.

    At the very first start also those of bundles that come before it by name: whoever starts with
    one of several wants none of the older ones.
    """
    if not served.fingerprint or settings.models is None:
        return ()
    if state.judged:
        return (served.fingerprint,)
    older = []
    for path in folder.complete(settings.models):
        if path.name < served.bundle:
            with contextlib.suppress(OSError):  # it is being replaced: new enough to be looked at
                older.append(folder.fingerprint(path))
    return (*older, served.fingerprint)


def forgetting(state: State, told: Entry | None, served: Served) -> State:
    """The state without a default of the settings, if the settings now have another bundle."""
    if told is None or told.bundle or state.default != told or Entry.of(served) == told:
        return state
    return dataclasses.replace(state, default=None)


def check_acceptance(settings: Settings, served: Served) -> None:
    """Refuses an acceptance set that could judge nothing; warns of one too small for its margins.

    Raises:
        ConfigError: It cannot be read, is empty, or has a class that the model does not know.
    """
    if settings.acceptance is None:
        return
    try:
        chosen = acceptance.read(settings.acceptance)
        acceptance.check_classes(chosen, [served])
    except DataError as error:
        raise ConfigError(str(error)) from error
    count = len(chosen.images)
    margin = min(settings.accuracy_margin, settings.false_positive_margin)
    if 1 / count > margin:
        _log.warning(
            "the acceptance set has %d images, so one image moves its figures by %.4f, more than "
            "the margin of %.4f; give it more images or models wider margins",
            count,
            1 / count,
            margin,
        )


def approved_folder(settings: Settings, entry: Entry) -> Path:
    """The folder of a model that was approved, if it still is what was approved.

    Raises:
        ConfigError: It is gone, or its content is another.
    """
    if not entry.bundle:
        return settings_folder(settings)
    if settings.models is None:
        raise ConfigError(
            f"bundle {entry.bundle!r} of a models folder is in use, and there is none; give "
            "--models (IBINN_MODELS) the folder as before"
        )
    try:
        bundle = folder.find(settings.models, entry.bundle)
        found = folder.fingerprint(bundle)
    except (UnknownModelError, OSError) as error:
        raise ConfigError(
            f"bundle {entry.bundle!r} is in use and is gone from {settings.models} ({error}); put "
            "it back"
        ) from error
    if found != entry.fingerprint:
        raise ConfigError(
            f"bundle {bundle} is in use and was changed since it was checked; put back what was "
            "there, and give the new content a name of its own"
        )
    return bundle


def settings_folder(settings: Settings) -> Path:
    """The bundle that the server starts with where operators told nothing."""
    if settings.bundle is not None:
        return settings.bundle
    return manifest.embedded_path()
