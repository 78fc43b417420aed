"""The images that are kept: files named by the sha256 of their bytes.

An image lies at ``ab/abcd...`` under a folder or any URL that fsspec knows, such as
``s3://bucket/folder``. In a folder of this machine it appears whole and durable or not at all, and
only the server's own user can read it; elsewhere that is up to the storage. The same image twice is
one file.

Nothing here knows the ledger: `ImageStore.sweep` says what it took away, for
`service.records.ledger.Ledger.images_gone`.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from ibinn.errors import ConfigError, LedgerError, RecordsUnavailableError
from service.settings import Settings

FOLDER = "images"
"""Where images lie in the state folder, where no place is given."""
SWEPT_SHARE = 0.9
"""Of the quota: once that is over, the oldest images go until no more than this is left, so that
not every new image starts another sweep."""

_T = TypeVar("_T")
_NAME = re.compile(r"[0-9a-f]{64}")
_PART_SUFFIX = ".part"
_PART_AGE_S = 3600.0
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a sweep did.

    Attributes:
        expired: sha256 of the images whose time was over.
        displaced: sha256 of those that made room.
        removed_bytes: Size of both together.
        kept: Number of images that are left.
        kept_bytes: Their size together.
    """

    expired: tuple[str, ...]
    displaced: tuple[str, ...]
    removed_bytes: int
    kept: int
    kept_bytes: int

    @property
    def removed(self) -> tuple[str, ...]:
        """sha256 of all images that went."""
        return self.expired + self.displaced


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    path: str
    size_bytes: int
    modified_s: float


class ImageStore:
    """Keeps images; safe to use from several threads and processes.

    Args:
        place: A folder, or a URL that fsspec knows.
        quota_bytes: Most bytes of images.
        ttl_s: How long an image is kept after it was last put.

    Raises:
        ConfigError: fsspec does not know the URL, or a package for it is missing.
    """

    def __init__(self, place: str | Path, *, quota_bytes: int, ttl_s: float) -> None:
        self.quota_bytes = quota_bytes
        self.ttl_s = ttl_s
        self._files, self._root = _filesystem(str(place))
        self._local = isinstance(self._files, LocalFileSystem)
        self._place = self._root if self._local else str(place)
        self._lock = threading.Lock()
        self._bytes: int | None = None
        self._swept_at: float | None = None

    @classmethod
    def open(cls, settings: Settings) -> ImageStore | None:
        """That of the settings; None where there is no place for images and none are kept.

        Images kept earlier can be read and erased whatever is kept from now on.

        Raises:
            ConfigError: Images are to be kept and there is no place for them, or it cannot be used.
        """
        place: str | Path | None = settings.images
        if place is None and settings.state_dir is not None:
            place = settings.state_dir / FOLDER
        if place is None:
            if settings.keep_images == "none":
                return None
            raise ConfigError(
                f"there is no place for the images that --keep-images {settings.keep_images} "
                "keeps; give --images a folder or URL, or --state-dir a folder"
            )
        return cls(
            place,
            quota_bytes=settings.images_quota_bytes,
            ttl_s=settings.images_ttl_days * _DAY_S,
        )

    @property
    def size_bytes(self) -> int | None:
        """As of the last sweep, and what this process put and deleted since; None before it."""
        return self._bytes

    def due(self, interval_s: float) -> bool:
        """Whether to sweep: none was yet, the quota is over, or the last was this long ago."""
        if self._swept_at is None or self._bytes is None:
            return True
        return self._bytes > self.quota_bytes or time.monotonic() - self._swept_at >= interval_s

    def put(self, sha256: str, image: bytes) -> None:
        """Keeps an image under the sha256 of its bytes, durably; its time begins anew.

        Raises:
            RecordsUnavailableError: The storage cannot be written.
        """
        path = self._path(sha256)

        def write() -> int:
            if self._local:
                return _write(Path(path), image)
            self._files.pipe_file(path, image)
            return len(image)

        added = self._tried("written", write)
        with self._lock:
            if self._bytes is not None:
                self._bytes += added

    def get(self, sha256: str) -> bytes | None:
        """The image with this hash; None where it is not kept (any more).

        Raises:
            LedgerError: The file's content has another hash; the message names the file.
            RecordsUnavailableError: The storage cannot be read.
        """
        path = self._path(sha256)

        def read() -> bytes | None:
            try:
                return bytes(self._files.cat_file(path))
            except FileNotFoundError:
                return None

        image = self._tried("read", read)
        if image is None:
            return None
        found = hashlib.sha256(image).hexdigest()
        if found != sha256:
            raise LedgerError(
                f"the kept image {path} was changed or damaged: it holds {len(image)} bytes with "
                f"the sha256 {found}, not that of its name; bring it back from a backup, or erase "
                "it"
            )
        return image

    def delete(self, sha256: str) -> bool:
        """Takes an image away for good; whether there was one.

        Raises:
            RecordsUnavailableError: The storage cannot be written.
        """
        path = self._path(sha256)
        size = self._tried("erased", functools.partial(self._remove, path))
        with self._lock:
            if size is not None and self._bytes is not None:
                self._bytes -= size
        return size is not None

    def sweep(
        self,
        *,
        quota_bytes: int | None = None,
        ttl_s: float | None = None,
        now_s: float | None = None,
    ) -> Swept:
        """Takes away the images whose time is over, and the oldest where the quota is.

        Several processes may sweep at a time: of every image that went, at least one of them says
        so. One that is put again meanwhile stays.

        Args:
            quota_bytes: Most bytes of images; None: the store's.
            ttl_s: How long images are kept; None: the store's.
            now_s: Seconds since 1970; None: now.

        Raises:
            RecordsUnavailableError: The storage cannot be read or written.
        """
        return self._tried(
            "swept",
            lambda: self._sweep(
                quota_bytes=self.quota_bytes if quota_bytes is None else quota_bytes,
                ttl_s=self.ttl_s if ttl_s is None else ttl_s,
                now_s=time.time() if now_s is None else now_s,
            ),
        )

    def names(self) -> Iterator[tuple[str, int]]:
        """sha256 and size in bytes of every kept image, in no order.

        Raises:
            RecordsUnavailableError: The storage cannot be read.
        """
        for file in self._tried("listed", self._listed):
            if _NAME.fullmatch(name := _name(file.path)):
                yield name, file.size_bytes

    def _sweep(self, *, quota_bytes: int, ttl_s: float, now_s: float) -> Swept:
        images: list[_File] = []
        for file in self._listed():
            if _NAME.fullmatch(_name(file.path)):
                images.append(file)
            elif file.path.endswith(_PART_SUFFIX) and file.modified_s < now_s - _PART_AGE_S:
                self._remove(file.path)  # of a process that ended while it wrote
        images.sort(key=lambda file: file.modified_s)
        total = sum(file.size_bytes for file in images)
        room = quota_bytes if total <= quota_bytes else int(SWEPT_SHARE * quota_bytes)
        expired: list[str] = []
        displaced: list[str] = []
        removed_bytes = kept = 0
        for file in images:
            is_over = file.modified_s < now_s - ttl_s
            if not is_over and total - removed_bytes <= room:
                kept += 1
            elif self._remove_unless_newer(file):
                (expired if is_over else displaced).append(_name(file.path))
                removed_bytes += file.size_bytes
            else:
                kept += 1
        with self._lock:
            self._bytes = total - removed_bytes
            self._swept_at = time.monotonic()
        return Swept(
            expired=tuple(expired),
            displaced=tuple(displaced),
            removed_bytes=removed_bytes,
            kept=kept,
            kept_bytes=total - removed_bytes,
        )

    def _remove_unless_newer(self, file: _File) -> bool:
        """Takes a listed file away, unless it was put again since; whether it is gone."""
        self._files.invalidate_cache()
        try:
            if self._modified_s(self._files.info(file.path)) > file.modified_s:
                return False
        except FileNotFoundError:
            return True
        self._remove(file.path)
        return True

    def _remove(self, path: str) -> int | None:
        """The size of the file that was taken away; None where there was none."""
        try:
            size = int(self._files.info(path)["size"] or 0)
            self._files.rm_file(path)
        except FileNotFoundError:
            return None
        return size

    def _listed(self) -> list[_File]:
        self._files.invalidate_cache()
        try:
            found: dict[str, dict[str, Any]] = self._files.find(self._root, detail=True)
        except FileNotFoundError:
            return []
        return [
            _File(
                path=path,
                size_bytes=int(info["size"] or 0),
                modified_s=self._modified_s(info),
            )
            for path, info in found.items()
            if info.get("type") == "file"
        ]

    def _modified_s(self, info: dict[str, Any]) -> float:
        """Storages call it by different names; where none is listed, the storage is asked."""
        for name in ("mtime", "LastModified", "last_modified", "modified", "updated", "created"):
            if isinstance(value := info.get(name), datetime):
                return value.timestamp()
            if isinstance(value, int | float):
                return float(value)
        modified: datetime = self._files.modified(info["name"])
        return modified.timestamp()

    def _path(self, sha256: str) -> str:
        if _NAME.fullmatch(sha256) is None:
            raise ValueError(f"{sha256!r} is no sha256; expected 64 hexadecimal digits")
        return f"{self._root}/{sha256[:2]}/{sha256}"

    def _tried(self, done: str, action: Callable[[], _T]) -> _T:
        try:
            return action()
        except Exception as error:  # storages raise what they like
            raise RecordsUnavailableError(
                f"the images in {self._place} cannot be {done} ({type(error).__name__}: {error}); "
                "see that the storage is there, has room, and lets this server in"
            ) from error


def _filesystem(place: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        files, root = url_to_fs(place)
    except ImportError as error:
        raise ConfigError(
            f"images in {place} need another package: {error}; for s3:// install ibinn[s3]"
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"images cannot be kept in {place}: {error}; give a folder or a URL such as "
            "s3://bucket/folder"
        ) from error
    return files, str(root).rstrip("/")


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _write(path: Path, image: bytes) -> int:
    """Writes a file that any reader, and a machine that lost power, has whole or not at all.

    Returns:
        By how many bytes the store grew.
    """
    before = 0
    with suppress(FileNotFoundError):
        before = path.stat().st_size
        if before == len(image):
            os.utime(path)
            return 0
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file_id, part = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=_PART_SUFFIX)
    try:
        with open(file_id, "wb") as file:
            file.write(image)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return len(image) - before
