"""Writing a data set as sharded archives with their index.

The files' own bytes go into the archives, in a seeded random order, so that whoever reads an
archive from its beginning (webdataset, or our windowed order over a URL) gets mixed classes.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ibinn.decoding import Limits, decode_pixels
from ibinn.errors import ConfigError, ImageError
from training.image_set import DataSource, ImageSet, image_id
from training.scan import Progress
from training.shard_index import INDEX_FILE, Shard, ShardIndex

SHARD_BYTES = 128 * 2**20
"""A shard is closed when it has reached this size."""

CLASSES_FILE = "classes.txt"
"""Class names, one a line, for other readers of the shards."""

_SUFFIXES = {b"\xff\xd8": "jpg", b"\x89P": "png", b"RI": "webp", b"BM": "bmp", b"GI": "gif"}


def write_shards(
    source: DataSource,
    out: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    seed: int = 0,
    progress: Progress | None = None,
) -> ShardIndex:
    """Write ``train-000000.tar`` …, ``test-000000.tar`` … and ``index.npz`` into a folder.

    Args:
        source: Opened data; unreadable files are not in it.
        out: New or empty folder.
        shard_bytes: Size at which a shard is closed.
        seed: Of the images' order.
        progress: Told how many images have been written.

    Raises:
        ConfigError: The folder is not empty or cannot be made.
        DataError: The data has changed since it was opened.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        occupied = any(out.iterdir())
    except OSError as error:
        raise ConfigError(
            f"out is {out}, which cannot be made ({error.strerror}); give a new folder"
        ) from error
    if occupied:
        raise ConfigError(f"out is {out}, which is not empty; shards go into a new folder")
    sets = [(source.train, False)] + ([(source.test, True)] if source.test is not None else [])
    total = sum(len(images) for images, _ in sets)
    written = _Written()
    for images, test in sets:
        order = np.random.default_rng([seed, int(test)]).permutation(len(images))
        first = len(written.shards)
        writer: _ShardWriter | None = None
        for number, index in enumerate(order.tolist()):
            if writer is None:
                name = f"{'test' if test else 'train'}-{len(written.shards) - first:06d}.tar"
                writer = _ShardWriter(out / name, test=test)
            written.add(images, index, writer.add(images, index, key=f"{number:09d}"))
            if writer.size >= shard_bytes or number + 1 == len(images):
                written.shards.append(writer.close())
                writer = None
            if progress is not None:
                progress(len(written.rows), total)
    index_of = written.index(source)
    (out / CLASSES_FILE).write_text("".join(f"{name}\n" for name in index_of.class_names))
    index_of.save(out / INDEX_FILE)  # last: a folder with an index is complete
    return index_of


class _ShardWriter:
    """One archive that is being written, and hashed."""

    def __init__(self, path: Path, *, test: bool) -> None:
        self._path, self._test = path, test
        self._file = path.open("wb")
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._file.tell()

    def add(self, images: ImageSet, index: int, *, key: str) -> tuple[int, int]:
        """Add an image and its label; gives the place of the image's bytes."""
        data = images.encoded(index)
        _check_same(data, images, index)
        self._member(f"{key}.{_SUFFIXES[data[:2]]}", data)
        # A member is padded to blocks of 512 bytes.
        offset = self._file.tell() - (len(data) + 511) // 512 * 512
        self._member(f"{key}.cls", str(images.items[index].label).encode())
        return offset, len(data)

    def _member(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        self._tar.addfile(info, io.BytesIO(data))

    def close(self) -> Shard:
        """End the archive."""
        self._tar.close()
        size = self._file.tell()
        self._file.close()
        with self._path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Shard(name=self._path.name, size=size, sha256=digest, test=self._test)


def _check_same(data: bytes, images: ImageSet, index: int) -> None:
    try:
        same = image_id(decode_pixels(data, Limits())) == images.items[index].id
    except ImageError:
        same = False
    if not same:
        raise ConfigError(
            f"{images.items[index].name} is not the image any more that it was when the data was "
            "opened; do not change the data while shards are written"
        )


@dataclass(slots=True)
class _Written:
    shards: list[Shard] = field(default_factory=list)
    rows: list[tuple[ImageSet, int, int, int, int]] = field(default_factory=list)

    def add(self, images: ImageSet, index: int, place: tuple[int, int]) -> None:
        self.rows.append((images, index, len(self.shards), *place))

    def index(self, source: DataSource) -> ShardIndex:
        items = [images.items[index] for images, index, *_ in self.rows]
        groups = tuple(sorted({"", *(item.group for item in items)}))
        number = {group: position for position, group in enumerate(groups)}
        return ShardIndex(
            class_names=source.train.class_names,
            groups=groups,
            shards=tuple(self.shards),
            names=tuple(item.name for item in items),
            shard=np.array([shard for _, _, shard, _, _ in self.rows], np.int32),
            offset=np.array([offset for *_, offset, _ in self.rows], np.int64),
            length=np.array([length for *_, length in self.rows], np.int64),
            label=np.array([item.label for item in items], np.int32),
            group=np.array([number[item.group] for item in items], np.int32),
            ids=np.stack([np.frombuffer(bytes.fromhex(item.id), np.uint8) for item in items]),
            sizes=np.stack([images.sizes[index] for images, index, *_ in self.rows]),
            thumbnails=np.stack([images.thumbnails[index] for images, index, *_ in self.rows]),
        )
