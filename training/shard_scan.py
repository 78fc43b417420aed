"""Making the index of shards that others wrote: every archive is read once, in parallel.

Each archive is a plain tar file with, per image, ``KEY.jpg`` (or another format that is
accepted) and ``KEY.cls`` with the class's number or ``KEY.json`` with it under ``label`` or
``cls``. Class names come from ``classes.txt`` in the same folder, one a line; without it the
numbers are the names. Archives called ``test-*`` or ``val-*`` are the data's own test set where
others are not.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import numpy as np

from ibinn.decoding import Limits
from ibinn.errors import DataError
from training.image_set import Skipped
from training.scan import Progress, Scan, cache_folder, pool
from training.shard_index import Shard, ShardIndex
from training.shard_places import Location
from training.shard_writer import CLASSES_FILE

SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif"})
_TEST_PREFIXES = ("test-", "val-", "validation-")
_MOST_LABEL_BYTES = 1 << 20
_CACHE_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedShard:
    """What one archive holds.

    Attributes:
        keys: Of the images.
        labels: Numbers of their classes.
        places: Where each image's bytes begin, and how many they are.
        scan: What the images are.
        size: Bytes of the archive.
        sha256: Of the archive (hex).
    """

    keys: tuple[str, ...]
    labels: tuple[int, ...]
    places: tuple[tuple[int, int], ...]
    scan: Scan
    size: int
    sha256: str


def index_of_shards(
    location: Location, *, skip_unreadable: bool, progress: Progress | None
) -> tuple[ShardIndex, tuple[Skipped, ...]]:
    """Read every archive once, or take what was found the last time.

    Args:
        location: With the names of the archives.
        skip_unreadable: Go on without the images that cannot be read.
        progress: Told how many archives of how many have been read.

    Raises:
        DataError: An archive is absent, compressed, or not laid out as expected; images that
            cannot be read.
    """
    remembered = _remembered(location)
    if remembered is not None and remembered.is_file():
        return ShardIndex.load(remembered, where=str(remembered)), ()
    found: list[ScannedShard] = []
    with pool(len(location.names)) as processes:
        tasks = [(location, name) for name in location.names]
        for number, scanned in enumerate(processes.map(_scan_shard, tasks)):
            found.append(scanned)
            if progress is not None:
                progress(number + 1, len(tasks))
    skipped = tuple(
        Skipped(name=f"{name}:{scanned.keys[position]}", reason=reason)
        for name, scanned in zip(location.names, found, strict=True)
        for position, reason in sorted(scanned.scan.reasons.items())
    )
    if skipped and not skip_unreadable:
        first = skipped[0]
        raise DataError(
            f"{len(skipped)} of {sum(len(s.keys) for s in found)} images in the shards cannot be "
            f"read, the first is {first.name} ({first.reason}); repair the shards, or go on "
            "without these images with --skip-unreadable"
        )
    index = _index(location, found)
    if remembered is not None and not skipped:
        remembered.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        index.save(remembered)
    return index, skipped


def _index(location: Location, found: Sequence[ScannedShard]) -> ShardIndex:
    kept = [[i for i in range(len(s.keys)) if i not in s.scan.reasons] for s in found]
    if not any(kept):
        raise DataError(f"{location.base}: the shards hold no image; expected KEY.jpg and KEY.cls")
    labels = [s.labels[i] for s, rows in zip(found, kept, strict=True) for i in rows]
    test = [name.startswith(_TEST_PREFIXES) for name in location.names]
    if all(test):
        test = [False] * len(test)
    places = np.array(
        [s.places[i] for s, rows in zip(found, kept, strict=True) for i in rows], np.int64
    )
    return ShardIndex(
        class_names=_class_names(location, max(labels) + 1),
        groups=("",),
        shards=tuple(
            Shard(name=name, size=s.size, sha256=s.sha256, test=is_test)
            for name, s, is_test in zip(location.names, found, test, strict=True)
        ),
        names=tuple(
            f"{name}:{s.keys[i]}"
            for name, s, rows in zip(location.names, found, kept, strict=True)
            for i in rows
        ),
        shard=np.repeat(np.arange(len(found), dtype=np.int32), [len(rows) for rows in kept]),
        offset=places[:, 0],
        length=places[:, 1],
        label=np.array(labels, np.int32),
        group=np.zeros(len(labels), np.int32),
        ids=np.concatenate([s.scan.ids[rows] for s, rows in zip(found, kept, strict=True)]),
        sizes=np.concatenate([s.scan.sizes[rows] for s, rows in zip(found, kept, strict=True)]),
        thumbnails=np.concatenate(
            [s.scan.thumbnails[rows] for s, rows in zip(found, kept, strict=True)]
        ),
    )


def _class_names(location: Location, count: int) -> tuple[str, ...]:
    try:
        with location.open(CLASSES_FILE) as file:
            text = file.read(16 << 20).decode("utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return tuple(map(str, range(count)))
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if len(names) < count or len(set(names)) != len(names):
        raise DataError(
            f"{location.of(CLASSES_FILE)} has {len(set(names))} different names and the shards "
            f"have labels up to {count - 1}; expected one name a line for each class"
        )
    return names


def _scan_shard(task: tuple[Location, str]) -> ScannedShard:
    location, name = task
    limits = Limits()
    images: dict[str, tuple[int, int, Scan]] = {}
    labels: dict[str, int] = {}
    try:
        with location.open(name) as file:
            hashed = _Hashed(file)
            # "r|" reads forwards only, as a connection does.
            with tarfile.open(fileobj=cast(IO[bytes], hashed), mode="r|") as tar:
                for member in tar:
                    if not member.isfile():
                        continue
                    path = PurePosixPath(member.name)
                    stem, _, suffix = path.name.partition(".")
                    key, suffix = str(path.with_name(stem or path.name)), suffix.lower()
                    if suffix in SUFFIXES:
                        # One byte more than is accepted: the decoder then says what is wrong.
                        scan = Scan.empty(1)
                        scan.put(0, _content(tar, member, limits.max_bytes + 1), limits)
                        images[key] = member.offset_data, member.size, scan
                    elif suffix in ("cls", "json"):
                        label = _label(_content(tar, member, _MOST_LABEL_BYTES), suffix)
                        if label is not None:
                            labels[key] = label
            hashed.drain()
    except FileNotFoundError as error:
        raise _absent(location, name) from error
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{location.of(name)} is not a plain tar file ({error}); shards must not be "
            "compressed, because images are read from their middle"
        ) from error
    keys = list(images)
    unlabelled = [key for key in keys if key not in labels]
    if unlabelled:
        raise DataError(
            f"{location.of(name)}: {len(unlabelled)} of {len(keys)} images have no class, the "
            f"first is {unlabelled[0]}; expected its number in {unlabelled[0]}.cls, or under "
            f"'label' or 'cls' in {unlabelled[0]}.json"
        )
    whole = Scan.empty(len(keys))
    for position, key in enumerate(keys):
        whole.copy_from(images[key][2], position)
    return ScannedShard(
        keys=tuple(keys),
        labels=tuple(labels[key] for key in keys),
        places=tuple(images[key][:2] for key in keys),
        scan=whole,
        size=hashed.size,
        sha256=hashed.sha256(),
    )


def _absent(location: Location, name: str) -> DataError:
    return DataError(f"{location.of(name)} does not exist; give shards that are there")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    file = tar.extractfile(member)
    return b"" if file is None else file.read(most)


def _label(data: bytes, suffix: str) -> int | None:
    """The class's number in a member, or None where it does not state one."""
    try:
        if suffix == "cls":
            value: Any = int(data)
        else:
            entries = json.loads(data)
            value = entries.get("label", entries.get("cls"))
    except (ValueError, AttributeError):
        return None
    return value if type(value) is int and 0 <= value < 1_000_000 else None


class _Hashed:
    """A file that is hashed while it is read."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        data: bytes = self._file.read(size)
        self._hash.update(data)
        self.size += len(data)
        return data

    def drain(self) -> None:
        """Read what follows the archive's end."""
        while self.read(1 << 20):
            pass

    def sha256(self) -> str:
        """Of everything read so far (hex)."""
        return self._hash.hexdigest()


def _remembered(location: Location) -> Path | None:
    """Where the index of these archives is kept; another one if any of them changes."""
    folder = cache_folder()
    if folder is None:
        return None
    digest = hashlib.sha256(f"{_CACHE_VERSION}\n{location.base}\n".encode())
    for name in location.names:
        try:
            stamp = "" if location.remote else Path(location.of(name)).stat().st_mtime_ns
            digest.update(f"{name} {location.size(name)} {stamp}\n".encode())
        except FileNotFoundError as error:
            raise _absent(location, name) from error
    return folder / f"{digest.hexdigest()[:32]}.shards.npz"
