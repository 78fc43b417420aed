"""Sentinels: held-out images that go through the whole path again and again.

What they are is known, so every flag is a false one and every other class an error: their rates are
the false-positive rate and the accuracy of the path as it runs. A live flag rate is neither, since
it mixes false flags and finds. They are answered in the background lane, and are in no record, no
answer counter and no drift detector.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ibinn.errors import ConfigError, ImageError, NotServingError, TurnedAwayError
from ibinn.types import Verdict
from service.models.registry import Models
from service.models.served import Background
from service.monitoring import Monitor
from service.settings import Settings

_log = logging.getLogger(__name__)

_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentinel:
    """A held-out image.

    Attributes:
        path: Its file.
        class_name: Its class; None where it lies in no class folder.
    """

    path: Path
    class_name: str | None


def read(folder: Path) -> tuple[Sentinel, ...]:
    """The images of a folder: ``CLASS NAME/IMAGE``, or images alone, whose class is not known.

    Raises:
        ConfigError: The folder cannot be read or holds no images.
    """
    found: list[Sentinel] = []
    try:
        for path in _shown(folder):
            if path.is_dir():
                found += (
                    Sentinel(path=image, class_name=path.name)
                    for image in _shown(path)
                    if image.is_file()
                )
            else:
                found.append(Sentinel(path=path, class_name=None))
    except OSError as error:
        raise ConfigError(
            f"sentinel folder {folder} cannot be read ({error}); give --sentinels "
            "(IBINN_SENTINELS) a folder of images that the server may read"
        ) from error
    if not found:
        raise ConfigError(
            f"sentinel folder {folder} holds no images; expected {folder.name}/CLASS NAME/IMAGE or "
            f"{folder.name}/IMAGE, held-out images of the classes that the model knows"
        )
    return tuple(found)


class Sentinels:
    """Sends one sentinel after the other, in one worker of a server.

    Args:
        settings: The folder.
        models: The default one answers.
        background: Answers.
        monitor: Counts.

    Raises:
        ConfigError: As in `read`.
    """

    def __init__(
        self, settings: Settings, *, models: Models, background: Background, monitor: Monitor
    ) -> None:
        assert settings.sentinels is not None
        self._folder = settings.sentinels
        self._state_dir = settings.state_dir
        self._models = models
        self._background = background
        self._monitor = monitor
        self._lock: IO[bytes] | None = None
        self._left = _mixed(read(self._folder))
        self._said: set[tuple[Path, str]] = set()

    async def send(self) -> None:
        """Has the next one answered and counted, if this worker is the one that does it.

        Raises:
            ConfigError: As in `read`.
        """
        if not self._leads():
            return
        try:
            served = self._models.default
        except NotServingError:
            return
        sentinel = await self._next()
        if sentinel.class_name not in (None, *served.info.classes):
            self._say(sentinel.path.parent, "is no class of the model: its images are left out")
            return
        try:
            image = await asyncio.to_thread(sentinel.path.read_bytes)
            answer = await self._background(served, image, patience_s=_PATIENCE_S)
        except (ImageError, OSError, TurnedAwayError) as error:
            self._monitor.sentinel_failure()
            if not isinstance(error, TurnedAwayError):  # that a server is busy is counted elsewhere
                self._say(sentinel.path, f"cannot be classified: {error}; replace or remove it")
            return
        self._monitor.sentinel(
            served.info.versions,
            flagged=served.info.calibrated
            and answer.verdict in (Verdict.UNKNOWN, Verdict.NOT_ASSESSED),
            wrong=sentinel.class_name not in (None, answer.top.name),
        )

    def close(self) -> None:
        """Leaves it to another worker."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def _next(self) -> Sentinel:
        """The next image; after the last one, the first of what the folder holds then."""
        found = next(self._left, None)
        if found is None:
            self._left = _mixed(await asyncio.to_thread(read, self._folder))
            found = next(self._left)
        return found

    def _leads(self) -> bool:
        """Whether this worker does it; the kernel's lock ends with the process that holds it."""
        if self._state_dir is None or self._lock is not None:
            return True
        self._state_dir.mkdir(parents=True, exist_ok=True)
        file = (self._state_dir / "sentinels.lock").open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._lock = file
        return True

    def _say(self, path: Path, what: str) -> None:
        """Writes a log entry, the same one once."""
        if (path, what) not in self._said:
            self._said.add((path, what))
            _log.warning("sentinel %s %s", path, what)


def _mixed(sentinels: tuple[Sentinel, ...]) -> Iterator[Sentinel]:
    """In an order that puts all classes into every stretch of time."""
    return iter(random.sample(sentinels, len(sentinels)))


def _shown(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
