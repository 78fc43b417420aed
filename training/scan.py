"""Reading every image of a data set once: content ids, sizes, thumbnails, what is unreadable.

Large sets are read by a pool of processes, and what was found is remembered under the files'
sizes and times of change, so that only new and changed files are read when a job starts again.

Shapes: N images.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import multiprocessing
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ibinn.decoding import Limits, decode
from ibinn.errors import ImageError
from training.image_set import THUMBNAIL_SIDE, thumbnail
from training.pixel_stores import Pixels

Progress = Callable[[int, int], None]
"""Called with (images read, images in all) while data is opened."""

CACHE_VARIABLE = "IBINN_SCAN_CACHE"
"""Folder of what is remembered; empty: nothing is. Default: ``~/.cache/ibinn/scans``."""

REMEMBERED_FROM = 2_000
"""Sets of at least so many images are read by several processes and remembered."""

_FORMAT_VERSION = 1
_CHUNK = 256
_ID_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What there is to know about N images without keeping their pixels.

    Attributes:
        ids: uint8 (N, 32), the sha256 of `ibinn.decoding.pixels_sha256`; zeros if unreadable.
        sizes: int32 (N, 2), height and width in pixels; zeros if unreadable.
        thumbnails: uint8 (N, 16, 16, 3), see `training.image_set.thumbnail`.
        reasons: Why the unreadable ones are, by position.
    """

    ids: npt.NDArray[np.uint8]
    sizes: npt.NDArray[np.int32]
    thumbnails: Pixels
    reasons: dict[int, str]

    @staticmethod
    def empty(count: int) -> Scan:
        """Of so many images that have not been read yet."""
        return Scan(
            ids=np.zeros((count, _ID_BYTES), np.uint8),
            sizes=np.zeros((count, 2), np.int32),
            thumbnails=np.zeros((count, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), np.uint8),
            reasons={},
        )

    def put(self, position: int, data: bytes, limits: Limits) -> None:
        """Read an encoded image into a place."""
        try:
            decoded = decode(data, limits)
        except ImageError as error:
            self.reasons[position] = str(error)
            return
        self.ids[position] = np.frombuffer(bytes.fromhex(decoded.sha256_pixels), np.uint8)
        self.sizes[position] = decoded.pixels.shape[:2]
        self.thumbnails[position] = thumbnail(decoded.pixels)

    def copy_from(self, other: Scan, start: int) -> None:
        """Take over the images of another scan from a position on."""
        end = start + len(other.ids)
        self.ids[start:end], self.sizes[start:end] = other.ids, other.sizes
        self.thumbnails[start:end] = other.thumbnails
        self.reasons.update({start + place: why for place, why in other.reasons.items()})


def scan_in_parallel(
    paths: Sequence[Path], *, limits: Limits, progress: Progress | None = None
) -> Scan:
    """Read files with one process per core; the order of the result is that of the paths."""
    found = Scan.empty(len(paths))
    chunks = [(paths[start : start + _CHUNK], limits) for start in range(0, len(paths), _CHUNK)]
    with pool(len(chunks)) as processes:
        for number, part in enumerate(processes.map(_read_files, chunks)):
            found.copy_from(part, number * _CHUNK)
            if progress is not None:
                progress(min((number + 1) * _CHUNK, len(paths)), len(paths))
    return found


def pool(tasks: int) -> ProcessPoolExecutor:
    """Processes for decoding: one per core that this process may use, not more than tasks."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # Forked like the loader's workers: they only decode and hash, and start in no time.
    return ProcessPoolExecutor(
        max(1, min(cores or 1, tasks)), mp_context=multiprocessing.get_context("fork")
    )


def remembered_scan(
    root: Path,
    paths: Sequence[Path],
    names: Sequence[str],
    *,
    limits: Limits,
    progress: Progress | None = None,
) -> Scan:
    """`scan_in_parallel`, but of new and changed files only.

    Args:
        root: Folder of the data, under which it is remembered.
        paths: N files.
        names: Their names relative to the root.
        limits: What is accepted.
        progress: Told how many images have been read, the remembered ones included.
    """
    stamps = _stamps(paths)
    file = _cache_file(root)
    if file is None:
        return scan_in_parallel(paths, limits=limits, progress=progress)
    # One process of several that start together reads; the others wait and find what it read.
    with _locked(file):
        found, known = _recalled(file, names, stamps)
        missing = np.flatnonzero(~known)
        done = len(paths) - len(missing)
        if progress is not None:
            progress(done, len(paths))
        if len(missing):
            fresh = scan_in_parallel(
                [paths[position] for position in missing.tolist()],
                limits=limits,
                progress=progress and (lambda read, _: progress(done + read, len(paths))),
            )
            found.ids[missing], found.sizes[missing] = fresh.ids, fresh.sizes
            found.thumbnails[missing] = fresh.thumbnails
            found.reasons.update({int(missing[at]): why for at, why in fresh.reasons.items()})
            _remember(file, found, names, stamps)
    return found


def _read_files(task: tuple[Sequence[Path], Limits]) -> Scan:
    paths, limits = task
    found = Scan.empty(len(paths))
    for position, path in enumerate(paths):
        try:
            found.put(position, path.read_bytes(), limits)
        except OSError as error:
            found.reasons[position] = str(error)
    return found


def _stamps(paths: Sequence[Path]) -> npt.NDArray[np.int64]:
    """Sizes and times of change, int64 (N, 2); -1 where a file cannot be asked."""
    stamps = np.full((len(paths), 2), -1, np.int64)
    for position, path in enumerate(paths):
        with contextlib.suppress(OSError):
            status = os.stat(path)
            stamps[position] = status.st_size, status.st_mtime_ns
    return stamps


def cache_folder() -> Path | None:
    """Where scans and fetched shards are kept, or None if nothing is to be kept."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen is not None:
        return Path(chosen).expanduser() if chosen else None
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ibinn" / "scans"


def _cache_file(root: Path) -> Path | None:
    folder = cache_folder()
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return None  # a home that cannot be written to costs time and nothing else
    key = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]
    return folder / f"{key}.npz"


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _recalled(
    file: Path, names: Sequence[str], stamps: npt.NDArray[np.int64]
) -> tuple[Scan, npt.NDArray[np.bool_]]:
    """What is remembered about files that have not changed, and about which (N,)."""
    found = Scan.empty(len(names))
    known = np.zeros(len(names), bool)
    stored = _stored(file)
    if stored is None:
        return found, known
    head = json.loads(stored["head"].tobytes())
    place = {name: position for position, name in enumerate(head["names"])}
    rows = np.array([place.get(name, -1) for name in names], np.int64)
    known = (rows >= 0) & (stamps[:, 0] >= 0) & (stored["stamps"][rows] == stamps).all(axis=1)
    of = rows[known]
    found.ids[known], found.sizes[known] = stored["ids"][of], stored["sizes"][of]
    found.thumbnails[known] = stored["thumbnails"][of]
    reasons = {int(position): why for position, why in head["reasons"].items()}
    for position in np.flatnonzero(known):
        if rows[position] in reasons:
            found.reasons[int(position)] = reasons[rows[position]]
    return found, known


def _stored(file: Path) -> dict[str, npt.NDArray[Any]] | None:
    """The arrays of a file of ours, or None where it is damaged or of another version."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            stored = {name: archive[name] for name in archive.files}
        head = json.loads(stored["head"].tobytes())
        count = len(head["names"])
        whole = head["format_version"] == _FORMAT_VERSION and all(
            len(stored[name]) == count for name in ("stamps", "ids", "sizes", "thumbnails")
        )
        return stored if whole and count else None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _remember(file: Path, found: Scan, names: Sequence[str], stamps: npt.NDArray[np.int64]) -> None:
    head = {"format_version": _FORMAT_VERSION, "names": list(names), "reasons": found.reasons}
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as target:
            np.savez(
                target,
                head=np.frombuffer(json.dumps(head).encode(), np.uint8),
                stamps=stamps,
                ids=found.ids,
                sizes=found.sizes,
                thumbnails=found.thumbnails,
            )
        partial.replace(file)
    except OSError:  # a full disk costs time at the next start and nothing else
        partial.unlink(missing_ok=True)
