"""A file of tokens that is read again when it changes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from ibinn.errors import ConfigError
from service.access import grants
from service.access.grants import Grants

_log = logging.getLogger(__name__)
_LOOK_EVERY_S = 1.0

Stamp = tuple[int, int, int, int]
"""What changes when a file changes: inode, mode, size and time of modification."""


class GrantsFile:
    """The grants in force.

    A new version that is not valid changes nothing: the grants of the last valid one stay in
    force, and an error is logged once. Not thread-safe; meant for the event loop.

    Args:
        path: File of tokens.
        clock: Monotonic seconds.

    Raises:
        ConfigError: The file is not valid now.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._stamp = _stamp(path)
        self._grants = grants.read(path)
        self._next_look = clock() + _LOOK_EVERY_S

    def current(self) -> Grants:
        """The grants in force; the file is looked at once a second at most."""
        now = self._clock()
        if now >= self._next_look:
            self._next_look = now + _LOOK_EVERY_S
            self._look()
        return self._grants

    def _look(self) -> None:
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._grants = grants.read(self._path)
        except ConfigError as error:
            _log.error("%s; the tokens of before stay in force", error)
            return
        _log.info(
            "%s was read again: %d tokens, %d certificates",
            self._path,
            len(self._grants.tokens),
            len(self._grants.certificates),
        )


def _stamp(path: Path) -> Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns)
