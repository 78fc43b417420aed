"""A file of JSON lines that is only ever added to; each line holds the sha256 of the one before.

A line that was changed, removed from the middle or moved is found; a file cut off at its end, or
deleted, is not, so keep it where jobs may add and only its operator may delete.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ibinn.errors import DataError

Entry = Mapping[str, Any]
Addition = Callable[[Sequence[Entry]], Entry | None]
"""Given the entries there are: the one to add, or None."""

_START = "0" * 64


def read(path: Path) -> tuple[Entry, ...]:
    """The entries of a file; none where there is no file.

    Raises:
        DataError: A line does not read, or is not the one that was written there.
    """
    if not path.exists():
        return ()
    return _parsed(path.read_bytes(), path)


def add(path: Path, addition: Addition) -> tuple[Entry, ...]:
    """Add what `addition` makes of the entries there are; durable on return.

    Nobody else adds between its look and its entry.

    Returns:
        The entries afterwards.

    Raises:
        DataError: As in `read`, or the file cannot be written.
    """
    try:
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            entries = _parsed(file.read(), path)
            entry = addition(entries)
            if entry is None:
                return entries
            linked = {**entry, "previous": entries[-1]["sha256"] if entries else _START}
            linked["sha256"] = _digest(linked)
            file.write(json.dumps(linked, sort_keys=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            return (*entries, linked)
    except OSError as error:
        raise DataError(
            f"log {path} cannot be written ({error.strerror}); name a file in a folder that this "
            "job may write"
        ) from error


def _parsed(data: bytes, path: Path) -> tuple[Entry, ...]:
    entries: list[Entry] = []
    previous = _START
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            entry = json.loads(line)
            whole = (entry["previous"], entry["sha256"]) == (previous, _digest(entry))
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise DataError(
                f"log {path}, line {number}: not the line that was written there; the file was "
                "changed: restore it from a copy"
            )
        entries.append(entry)
        previous = entry["sha256"]
    return tuple(entries)


def _digest(entry: Entry) -> str:
    content = {name: value for name, value in entry.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
