"""Where what operators told is kept: in memory, or in a folder that worker processes share.

state.json             the state, replaced as a whole
state.lock             held while it is changed
change.lock            held while an operator changes which models there are
watch.lock             held by the worker that watches the models folder
worker-NAME.json       the generation that a worker is at
worker-NAME.lock       held by that worker as long as it lives

The locks are the kernel's (flock): they end with the process that holds them, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO, Protocol

from ibinn.errors import ConfigError, NotPossibleError
from service.models import state as state_module
from service.models.state import State

_RETRY_S = 0.05
_STATE = "state.json"

Change = Callable[[State], State]


class Store(Protocol):
    """Keeps the state of one server; all methods but `exclusive` may wait for a disk."""

    def read(self) -> State:
        """The present state."""

    def change(self, change: Change) -> State:
        """Replaces the state by what `change` makes of it; no other worker comes between."""

    def exclusive(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Waits until no other call of any worker changes which models there are."""

    def leads(self) -> bool:
        """Whether this worker is the one that watches the models folder."""

    def acknowledge(self, generation: int) -> None:
        """Says that this worker is at a generation."""

    def workers(self, generation: int) -> tuple[int, int]:
        """Number of live workers, and of those that are at a generation or beyond."""

    def close(self) -> None:
        """This worker takes part no more."""


class MemoryStore:
    """The state of a server of one process that forgets it when it ends."""

    def __init__(self) -> None:
        self._state = State()
        self._changing = asyncio.Lock()

    def read(self) -> State:
        """See `Store.read`."""
        return self._state

    def change(self, change: Change) -> State:
        """See `Store.change`."""
        self._state = change(self._state).follows(self._state)
        return self._state

    def exclusive(self) -> contextlib.AbstractAsyncContextManager[None]:
        """See `Store.exclusive`."""
        return self._changing

    def leads(self) -> bool:
        """See `Store.leads`."""
        return True

    def acknowledge(self, generation: int) -> None:
        """See `Store.acknowledge`."""

    def workers(self, generation: int) -> tuple[int, int]:
        """See `Store.workers`."""
        return 1, 1

    def close(self) -> None:
        """See `Store.close`."""


class FileStore:
    """The state in a folder.

    Args:
        folder: Created if need be.

    Raises:
        ConfigError: The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = f"worker-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._watch: IO[bytes] | None = None
        self._seen: tuple[tuple[int, int, int], State] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            hidden = self._path(f".{self._name}.lock")
            self._alive = _open(hidden)
            # Locked before it has its name: else another worker could take it for a dead one's.
            _try_lock(self._alive, fcntl.LOCK_EX)
            hidden.replace(self._path(f"{self._name}.lock"))
        except OSError as error:
            raise ConfigError(
                f"state folder {folder} cannot be written ({error.strerror}); give --state-dir "
                "(IBINN_STATE_DIR) a folder of the server's user"
            ) from error

    def read(self) -> State:
        """See `Store.read`; a file that is not replaced is read once.

        Raises:
            ConfigError: The file cannot be used; the message says what to do.
        """
        path = self._path(_STATE)
        try:
            mark = _mark(path)
            if self._seen is not None and self._seen[0] == mark:
                return self._seen[1]
            state = self._parsed(path)
            self._seen = (mark, state)
        except FileNotFoundError:  # nothing was told yet, or somebody took it from under us
            return State() if self._seen is None else self._seen[1]
        return state

    def _parsed(self, path: Path) -> State:
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"state file {path} cannot be read ({error}); make it readable, or remove it to "
                "start from the settings alone"
            ) from error
        try:
            return state_module.from_json(text)
        except ConfigError as error:
            raise ConfigError(
                f"state file {path} cannot be used: {error}; remove it to start from the settings "
                "alone: default bundle, previous model, shadow and stop button are forgotten then"
            ) from error

    def change(self, change: Change) -> State:
        """See `Store.change`.

        Raises:
            ConfigError: As in `read`.
            NotPossibleError: The folder cannot be written now.
        """
        try:
            with _locked(self._path("state.lock")):
                before = self.read()
                state = change(before).follows(before)
                if state != before:
                    self._write(_STATE, state_module.to_json(state))
                    self._seen = (_mark(self._path(_STATE)), state)
                return state
        except OSError as error:
            raise NotPossibleError(
                f"nothing was changed: state folder {self._folder} cannot be written "
                f"({error.strerror}); make room or set its rights, and try again"
            ) from error

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """See `Store.exclusive`."""
        with _open(self._path("change.lock")) as file:
            while not _try_lock(file, fcntl.LOCK_EX):
                await asyncio.sleep(_RETRY_S)
            yield

    def leads(self) -> bool:
        """See `Store.leads`."""
        if self._watch is None:
            file = _open(self._path("watch.lock"))
            if not _try_lock(file, fcntl.LOCK_EX):
                file.close()
                return False
            self._watch = file
        return True

    def acknowledge(self, generation: int) -> None:
        """See `Store.acknowledge`."""
        self._write(f"{self._name}.json", json.dumps({"generation": generation}))

    def workers(self, generation: int) -> tuple[int, int]:
        """See `Store.workers`."""
        live = agreeing = 0
        for path in self._folder.glob("worker-*.lock"):
            if path.stem != self._name and not _is_held(path):
                path.with_suffix(".json").unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                continue
            live += 1
            agreeing += _acknowledged(path.with_suffix(".json")) >= generation
        return live, agreeing

    def close(self) -> None:
        """See `Store.close`."""
        for suffix in (".json", ".lock"):
            self._path(self._name + suffix).unlink(missing_ok=True)
        self._alive.close()
        if self._watch is not None:
            self._watch.close()

    def _path(self, name: str) -> Path:
        return self._folder / name

    def _write(self, name: str, text: str) -> None:
        """Replaces a file so that any reader, and a machine that lost power, has one of both."""
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=self._folder, prefix=f".{name}.", delete=False
        ) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(self._path(name))
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _mark(path: Path) -> tuple[int, int, int]:
    """What is another one when a file was replaced."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _open(path: Path) -> IO[bytes]:
    return path.open("ab")


def _try_lock(file: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with _open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_held(path: Path) -> bool:
    """Whether a live process holds the lock; two that ask at once do not mislead each other."""
    try:
        with path.open("rb") as file:
            return not _try_lock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _acknowledged(path: Path) -> int:
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["generation"])
    except (OSError, ValueError, KeyError):
        return -1
