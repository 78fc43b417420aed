"""Data in sharded archives: opened by their index, images read from where they lie.

Local shards are read in any order. Behind a URL, a training run fetches whole shards, a few at
a time, into a folder of bounded size, and images that are asked for singly (validation,
calibration, tests) come by ranges; every fetched shard is held to the index's sha256.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ibinn.decoding import Limits, decode_pixels
from ibinn.errors import DataError, ImageError
from training.image_set import DataSource, ImageSet, Skipped
from training.pixel_stores import KeptStore, Pixels, PixelStore
from training.scan import Progress, cache_folder
from training.shard_index import INDEX_FILE, Shard, ShardIndex
from training.shard_places import Location, is_shards, locate
from training.shard_scan import index_of_shards

__all__ = ["is_shards", "read_shards"]

MEMORY_BYTES = 2 * 2**30
"""Images of one size are kept decoded up to this size."""

FETCHED_VARIABLE = "IBINN_SHARD_CACHE_GB"
"""Most gigabytes of fetched shards that are kept on this machine, per location."""

FETCHED_GB = 50.0


def read_shards(
    data: str, *, skip_unreadable: bool, progress: Progress | None = None
) -> DataSource:
    """Open sharded archives; with an index at once, else after reading them whole.

    Args:
        data: See `training.shard_places.locate`.
        skip_unreadable: Go on without the images that cannot be read; an index made by
            `training.shard_writer` has none of those.
        progress: Told how many images have been read where there is no index.

    Raises:
        DataError: The shards cannot be used as they are.
    """
    location = locate(data)
    index, skipped = _index_of(location, skip_unreadable=skip_unreadable, progress=progress)
    for shard in index.shards if not location.remote else ():
        _check_there(location, shard)
    store: PixelStore = ShardStore(location, index, cache=_cache_of(location))
    sizes = index.sizes
    one_size = not (sizes != sizes[0]).any()
    if one_size and 3 * int(sizes[0].prod()) * len(sizes) <= MEMORY_BYTES:
        store = KeptStore(store, len(sizes), (int(sizes[0, 0]), int(sizes[0, 1])))
    whole = ImageSet(
        class_names=index.class_names,
        items=index.items(),
        store=store,
        thumbnails=index.thumbnails,
        sizes=sizes,
        places=index.shard if location.remote else None,
    )
    test = index.is_test
    train = whole.subset(np.flatnonzero(~test)) if test.any() else whole
    _check_classes(data, train)
    return DataSource(
        name=location.base.rstrip("/").rpartition("/")[2] or location.base,
        train=train,
        test=whole.subset(np.flatnonzero(test)) if test.any() else None,
        skipped=skipped,
    )


class ShardStore:
    """Images inside archives, decoded each time they are asked for.

    Args:
        location: Where the archives are.
        index: What is in them.
        cache: Where fetched archives are kept; None where the location is local.
    """

    def __init__(self, location: Location, index: ShardIndex, *, cache: ShardCache | None) -> None:
        self._location = location
        self._index = index
        self._cache = cache
        self._limits = Limits()

    def load(self, position: int, *, reduce: int = 1) -> Pixels:
        """Pixels of one image, uint8 (H, W, 3).

        Raises:
            DataError: Its archive is not there any more or has changed.
        """
        data = self.encoded(position)
        try:
            return decode_pixels(data, self._limits, reduce=reduce)
        except ImageError as error:
            raise self._changed(position, str(error)) from error

    def encoded(self, position: int) -> bytes:
        """The bytes of one image.

        Raises:
            DataError: Its archive is not there any more or has changed.
        """
        index = self._index
        shard = index.shards[index.shard[position]]
        start, length = int(index.offset[position]), int(index.length[position])
        fetched = None if self._cache is None else self._cache.path(shard)
        try:
            if fetched is not None:
                with fetched.open("rb") as file:
                    file.seek(start)
                    data = file.read(length)
            else:
                data = self._location.read(shard.name, start, length)
        except FileNotFoundError as error:
            raise self._changed(position, "the shard is gone") from error
        if len(data) != length:
            raise self._changed(position, f"{len(data)} of its {length} bytes are there")
        return data

    def prepare(self, positions: Sequence[int]) -> None:
        """Fetch the archives of these images, where the location is remote."""
        if self._cache is None:
            return
        for number in np.unique(self._index.shard[np.asarray(positions, np.int64)]).tolist():
            self._cache.fetch(self._location, self._index.shards[number])

    def _changed(self, position: int, why: str) -> DataError:
        name = self._index.shards[self._index.shard[position]].name
        return DataError(
            f"{self._location.of(name)}: image {self._index.names[position]} cannot be read "
            f"({why}); the shards are not those of their index: copy them again, or make the "
            "index again"
        )


class ShardCache:
    """A folder of fetched archives, of bounded size; processes share it.

    Args:
        folder: Where they are kept.
        limit_bytes: Most bytes; the archives that were not used for longest go first.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes

    def path(self, shard: Shard) -> Path | None:
        """Where an archive lies, or None if it has not been fetched."""
        path = self._folder / shard.name
        return path if path.is_file() else None

    def fetch(self, location: Location, shard: Shard) -> None:
        """Make sure that an archive lies here; its size and sha256 are checked.

        Raises:
            DataError: It cannot be fetched, or is not the one that the index speaks of.
        """
        path = self._folder / shard.name
        with contextlib.suppress(OSError):
            os.utime(path)  # used just now
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._folder / f".{shard.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.is_file():
                return
            self._make_room(shard.size)
            partial = self._folder / f".{shard.name}.partial"
            try:
                location.fetch(shard.name, partial)
            except FileNotFoundError as error:
                raise DataError(
                    f"{location.of(shard.name)} is listed in {INDEX_FILE} and is not there; copy "
                    "it there again, or name the shards that are"
                ) from error
            with partial.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if partial.stat().st_size != shard.size or shard.sha256 not in ("", digest):
                partial.unlink()
                raise DataError(
                    f"{location.of(shard.name)}: fetched bytes have sha256 {digest[:12]}, the "
                    f"index states {shard.sha256[:12]} and {shard.size} bytes; the shard or the "
                    "connection is damaged"
                )
            partial.replace(path)

    def _make_room(self, size: int) -> None:
        held: list[tuple[float, int, Path]] = []
        for path in self._folder.glob("*.tar"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                held.append((status.st_mtime, status.st_size, path))
        total = size + sum(bytes_ for _, bytes_, _ in held)
        for _, bytes_, path in sorted(held):
            if total <= self._limit_bytes:
                return
            # Who has it open reads on; who comes later reads by ranges.
            path.unlink(missing_ok=True)
            total -= bytes_


def _index_of(
    location: Location, *, skip_unreadable: bool, progress: Progress | None
) -> tuple[ShardIndex, tuple[Skipped, ...]]:
    where = location.of(INDEX_FILE)
    try:
        with location.open(INDEX_FILE) as file:
            index = ShardIndex.load(io.BytesIO(file.read()), where=where)
    except FileNotFoundError as error:
        if not location.names:
            raise DataError(
                f"{where} does not exist; name the shards, such as "
                f"{location.base}/train-{{000000..000009}}.tar, to have them read"
            ) from error
        return index_of_shards(location, skip_unreadable=skip_unreadable, progress=progress)
    return (index.of_shards(location.names) if location.names else index), ()


def _check_there(location: Location, shard: Shard) -> None:
    try:
        size = location.size(shard.name)
    except FileNotFoundError as error:
        raise DataError(
            f"{location.of(shard.name)} is listed in {INDEX_FILE} and is not there; copy it, or "
            "name the shards that are"
        ) from error
    if size != shard.size:
        raise DataError(
            f"{location.of(shard.name)} has {size} bytes, {INDEX_FILE} states {shard.size}; copy "
            "it again, or make the index again"
        )


def _check_classes(data: str, train: ImageSet) -> None:
    counts = np.bincount(train.labels, minlength=len(train.class_names))
    empty = [train.class_names[label] for label in np.flatnonzero(counts == 0)[:5]]
    if len(train.class_names) < 2 or empty:
        what = f"no image of {', '.join(empty)}" if empty else "one class only"
        raise DataError(
            f"data {data!r} has {what} among its training images; a classifier needs at least two "
            "classes, each with images: name more shards"
        )


def _cache_of(location: Location) -> ShardCache | None:
    if not location.remote:
        return None
    folder = cache_folder()
    if folder is None:
        raise DataError(
            f"data behind {location.base} is fetched into a folder and IBINN_SCAN_CACHE is empty; "
            "set it to a folder with room"
        )
    text = os.environ.get(FETCHED_VARIABLE, str(FETCHED_GB))
    try:
        limit = float(text)
    except ValueError as error:
        raise DataError(f"{FETCHED_VARIABLE} is {text!r}; expected a number of GB") from error
    key = hashlib.sha256(location.base.encode()).hexdigest()[:32]
    return ShardCache(folder.parent / "shards" / key, int(limit * 1e9))
