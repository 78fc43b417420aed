"""What is in a set of sharded archives, known without opening one of them.

A shard is a plain tar file as webdataset lays it out: members of one image share the part of
their name before the first dot, ``000017.jpg`` beside ``000017.cls``. The index says where each
image's bytes begin, what the image is (content id, size, thumbnail, label, group, name), and
what the shards' own sha256 are; so data of any size opens without being read.

The file is an npz of plain arrays: nothing in it can run.

Shapes: N images, S shards.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from ibinn.errors import DataError
from training.image_set import THUMBNAIL_SIDE, Item
from training.pixel_stores import Pixels

INDEX_FILE = "index.npz"
"""Name of the index in the folder of the shards."""

FORMAT_VERSION = 1
_ARRAYS = ("shard", "offset", "length", "label", "group", "ids", "sizes", "thumbnails")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One archive.

    Attributes:
        name: File name in the folder of the shards.
        size: Bytes.
        sha256: Of the file (hex); empty where it was never read whole.
        test: Whether its images are the data's own test set.
    """

    name: str
    size: int
    sha256: str
    test: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """What is in S shards with N images, in the shards' order.

    Attributes:
        class_names: What the labels are positions in.
        groups: What `group` is positions in; the first is the empty one.
        shards: The archives.
        names: Names of the images, for people.
        shard: int32 (N,), the archive of each image.
        offset: int64 (N,), where its bytes begin there.
        length: int64 (N,), how many they are.
        label: int32 (N,).
        group: int32 (N,).
        ids: uint8 (N, 32), content ids.
        sizes: int32 (N, 2), height and width in pixels.
        thumbnails: uint8 (N, 16, 16, 3).

    Raises:
        DataError: The parts do not fit each other.
    """

    class_names: tuple[str, ...]
    groups: tuple[str, ...]
    shards: tuple[Shard, ...]
    names: tuple[str, ...]
    shard: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    label: npt.NDArray[np.int32]
    group: npt.NDArray[np.int32]
    ids: npt.NDArray[np.uint8]
    sizes: npt.NDArray[np.int32]
    thumbnails: Pixels

    def __post_init__(self) -> None:
        count = len(self.names)
        shapes = {
            **dict.fromkeys(("shard", "offset", "length", "label", "group"), (count,)),
            "ids": (count, 32),
            "sizes": (count, 2),
            "thumbnails": (count, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3),
        }
        for name, shape in shapes.items():
            found = getattr(self, name)
            if found.shape != shape or found.dtype.kind not in "iu":
                raise _damaged(f"{name} is {found.dtype} of shape {found.shape}, not {shape}")
        if not count:
            raise _damaged("it lists no image")
        for name, limit in (
            ("shard", len(self.shards)),
            ("label", len(self.class_names)),
            ("group", len(self.groups)),
        ):
            found = getattr(self, name)
            if found.min() < 0 or found.max() >= limit:
                raise _damaged(f"{name} is not in 0 … {limit - 1} everywhere")
        ends = np.array([shard.size for shard in self.shards], np.int64)[self.shard]
        outside = (self.offset < 0) | (self.length < 0) | (self.offset + self.length > ends)
        if outside.any():
            first = int(np.flatnonzero(outside)[0])
            raise _damaged(
                f"image {self.names[first]} lies outside of {self.shards[self.shard[first]].name}"
            )
        for shard in self.shards:
            if not shard.name or Path(shard.name).name != shard.name:
                raise _damaged(f"shard name {shard.name!r} is not a plain file name")

    @property
    def is_test(self) -> npt.NDArray[np.bool_]:
        """Which images are of the data's own test set, (N,)."""
        return np.array([shard.test for shard in self.shards], bool)[self.shard]

    def items(self) -> list[Item]:
        """One item per image."""
        labels, groups = self.label.tolist(), self.group.tolist()
        return [
            Item(
                id=self.ids[i].tobytes().hex(),
                label=labels[i],
                group=self.groups[groups[i]],
                name=name,
            )
            for i, name in enumerate(self.names)
        ]

    def of_shards(self, names: Sequence[str]) -> ShardIndex:
        """The index of some of the shards.

        Raises:
            DataError: It does not know one of them.
        """
        known = {shard.name: number for number, shard in enumerate(self.shards)}
        missing = [name for name in names if name not in known]
        if missing:
            raise DataError(
                f"{INDEX_FILE} does not list {len(missing)} of {len(names)} shards, the first is "
                f"{missing[0]}; make the index again (remove {INDEX_FILE}) or leave them out"
            )
        chosen = [known[name] for name in names]
        number = np.full(len(self.shards), -1, np.int32)
        number[chosen] = np.arange(len(chosen), dtype=np.int32)
        rows = np.flatnonzero(number[self.shard] >= 0)
        return ShardIndex(
            class_names=self.class_names,
            groups=self.groups,
            shards=tuple(self.shards[i] for i in chosen),
            names=tuple(self.names[i] for i in rows.tolist()),
            shard=number[self.shard[rows]],
            **{name: getattr(self, name)[rows] for name in _ARRAYS if name != "shard"},
        )

    def save(self, path: Path) -> None:
        """Write the index to a file, which appears whole or not at all."""
        head = {
            "format_version": FORMAT_VERSION,
            "class_names": self.class_names,
            "groups": self.groups,
            "shards": [[s.name, s.size, s.sha256, s.test] for s in self.shards],
            "names": self.names,
        }
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        with partial.open("wb") as file:
            np.savez(
                file,
                head=np.frombuffer(json.dumps(head).encode(), np.uint8),
                **{name: getattr(self, name) for name in _ARRAYS},
            )
        partial.replace(path)

    @classmethod
    def load(cls, file: IO[bytes] | Path, *, where: str) -> Self:
        """Read what `save` wrote.

        Args:
            file: The file, opened or its path.
            where: What to call it in an error.

        Raises:
            DataError: It is no such file, of another version, or damaged.
        """
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays: dict[str, Any] = {name: archive[name] for name in _ARRAYS}
                head = json.loads(archive["head"].tobytes())
            if head["format_version"] != FORMAT_VERSION:
                raise DataError(
                    f"{where} has format version {head['format_version']!r}, expected "
                    f"{FORMAT_VERSION}; make the index again with this version"
                )
            return cls(
                class_names=tuple(map(str, head["class_names"])),
                groups=tuple(map(str, head["groups"])),
                shards=tuple(
                    Shard(name=str(name), size=int(size), sha256=str(digest), test=bool(test))
                    for name, size, digest, test in head["shards"]
                ),
                names=tuple(map(str, head["names"])),
                **arrays,
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{where} is not an index of shards ({type(error).__name__}: {error}); make it "
                "again with `ibinn-train shard`, or remove it to have the shards read"
            ) from error


def _damaged(what: str) -> DataError:
    return DataError(f"index of shards is damaged: {what}; make it again")
