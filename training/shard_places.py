"""Where shards are: local files, brace patterns, globs, folders, and URLs.

URLs are read through fsspec. ``pipe:``, which webdataset takes for a shell command, is refused
as is every protocol that is not listed here.
"""

from __future__ import annotations

import glob
import itertools
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from ibinn.errors import DataError
from training.shard_index import INDEX_FILE

PROTOCOLS = ("http", "https", "s3", "gs", "file")
"""What URLs of shards may begin with."""

_MOST_SHARDS = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where a set of shards is.

    Attributes:
        base: Folder or URL that the shards' names are relative to.
        names: File names of the shards; empty: all that the index there lists.
        remote: Whether `base` is a URL.
    """

    base: str
    names: tuple[str, ...]
    remote: bool

    def of(self, name: str) -> str:
        """Path or URL of a file there."""
        return f"{self.base}/{name}"

    def open(self, name: str) -> IO[bytes]:
        """Open a file there for reading.

        Raises:
            FileNotFoundError: There is no such file.
            DataError: It cannot be reached.
        """
        if not self.remote:
            return Path(self.of(name)).open("rb")
        filesystem, path = reached(self.of(name))
        with _network_errors(self.of(name)):
            return cast(IO[bytes], filesystem.open(path, "rb"))

    def size(self, name: str) -> int:
        """Size in bytes of a file there.

        Raises:
            FileNotFoundError: There is no such file.
            DataError: It cannot be reached, or does not say its size.
        """
        if not self.remote:
            return Path(self.of(name)).stat().st_size
        filesystem, path = reached(self.of(name))
        with _network_errors(self.of(name)):
            size = filesystem.info(path).get("size")
        if size is None:
            raise DataError(
                f"{self.of(name)}: the server does not say how large it is; shards are read in "
                "parts: use a server that knows ranges, or copy them to a folder"
            )
        return int(size)

    def read(self, name: str, start: int, length: int) -> bytes:
        """A part of a file there.

        Raises:
            FileNotFoundError: There is no such file.
            DataError: It cannot be reached.
        """
        if not self.remote:
            with Path(self.of(name)).open("rb") as file:
                file.seek(start)
                return file.read(length)
        filesystem, path = reached(self.of(name))
        with _network_errors(self.of(name)):
            data = cast(bytes, filesystem.cat_file(path, start=start, end=start + length))
        # A server that does not know ranges answers with the whole file.
        return data if len(data) <= length else data[start : start + length]

    def fetch(self, name: str, target: Path) -> None:
        """Copy a file from there in one go.

        Raises:
            FileNotFoundError: There is no such file.
            DataError: It cannot be reached.
        """
        if not self.remote:
            shutil.copyfile(self.of(name), target)
            return
        filesystem, path = reached(self.of(name))
        with _network_errors(self.of(name)):
            filesystem.get_file(path, str(target))


def is_shards(data: str) -> bool:
    """Whether data names shards rather than a folder of class folders or a packaged set."""
    if "://" in data or data.startswith("pipe:") or data.endswith((".tar", INDEX_FILE)):
        return True
    folder = Path(data)
    if not folder.is_dir():
        return False
    if (folder / INDEX_FILE).is_file():
        return True
    # An archive beside class folders is what they were unpacked from.
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return any(entry.suffix == ".tar" for entry in entries) and not any(
        entry.is_dir() for entry in entries
    )


def locate(data: str) -> Location:
    """Find the shards that a path, pattern or URL names.

    Args:
        data: A folder with shards; ``shards/train-{000000..000146}.tar`` or ``shards/*.tar``; or
            the same as a URL: ``https://host/imagenet/`` (which must hold an index) or
            ``https://host/imagenet/train-{000000..000146}.tar``.

    Raises:
        DataError: Nothing is there, or the protocol is not allowed.
    """
    if data.startswith("pipe:"):
        raise DataError(
            f"data {data!r} would run a shell command, which is refused; give a folder, a pattern "
            f"or a URL ({', '.join(PROTOCOLS)})"
        )
    if "://" in data:
        return _remote(data)
    folder = Path(data)
    if folder.is_dir():
        names = tuple(sorted(path.name for path in folder.glob("*.tar")))
        has_index = (folder / INDEX_FILE).is_file()
        return Location(base=str(folder), names=() if has_index else names, remote=False)
    if folder.name == INDEX_FILE:
        return Location(base=str(folder.parent), names=(), remote=False)
    paths = [Path(path) for pattern in expanded(data) for path in sorted(_matches(pattern))]
    folders = {path.parent for path in paths}
    if len(folders) != 1:
        raise DataError(
            f"data {data!r} names shards in {len(folders)} folders; expected one folder of shards"
        )
    return Location(
        base=str(folders.pop()), names=_once([path.name for path in paths]), remote=False
    )


def _remote(data: str) -> Location:
    protocol = data.partition("://")[0]
    if protocol not in PROTOCOLS:
        raise DataError(
            f"data {data!r} begins with {protocol}://; expected one of {', '.join(PROTOCOLS)}"
        )
    if not data.endswith(".tar"):
        base = data.removesuffix(INDEX_FILE).rstrip("/")
        return Location(base=base, names=(), remote=True)
    urls = list(expanded(data))
    bases = {url.rpartition("/")[0] for url in urls}
    if len(bases) != 1 or any("*" in url for url in urls):
        raise DataError(
            f"data {data!r}: shards behind a URL lie in one folder and are named by braces, such "
            "as https://host/folder/train-{000000..000146}.tar"
        )
    return Location(
        base=bases.pop(), names=_once([url.rpartition("/")[2] for url in urls]), remote=True
    )


def expanded(pattern: str) -> Iterator[str]:
    """Every text that a pattern with braces stands for: ``{00..11}``, ``{a,b}``.

    Raises:
        DataError: More than 100,000.

    Example:
        >>> list(expanded("train-{08..10}.tar"))
        ['train-08.tar', 'train-09.tar', 'train-10.tar']
    """
    parts = _BRACES.split(pattern)
    choices = [[part] if number % 2 == 0 else _choices(part) for number, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > _MOST_SHARDS:
        raise DataError(f"data {pattern!r} stands for {count} shards; at most {_MOST_SHARDS}")
    for combination in itertools.product(*choices):
        yield "".join(combination)


def _choices(inner: str) -> list[str]:
    match = _RANGE.fullmatch(inner)
    if match is None:
        return inner.split(",")
    first, last = int(match[1]), int(match[2])
    if last - first >= _MOST_SHARDS:
        raise DataError(f"data {{{inner}}} stands for {last - first + 1} shards; at most 100000")
    return [str(number).zfill(len(match[1])) for number in range(first, last + 1)]


def _matches(pattern: str) -> list[str]:
    found = glob.glob(pattern) if glob.has_magic(pattern) else [pattern]
    if not found or not all(Path(path).is_file() for path in found):
        raise DataError(f"data: no file {pattern}; give shards that are there")
    return found


def _once(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def reached(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL and the path in it.

    Raises:
        DataError: What it needs is not installed.
    """
    try:
        from fsspec.core import url_to_fs

        found: tuple[Any, str] = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise DataError(f"{url} cannot be opened: {error}; install what is named there") from error
    return found


@contextmanager
def _network_errors(url: str) -> Iterator[None]:
    """Turn what a network raises into a `DataError`; a file that is absent stays that."""
    try:
        yield
    except Exception as error:
        why: BaseException = error
        if isinstance(error, FileNotFoundError):
            # fsspec says so of anything that goes wrong with its first question, too.
            why = error.__cause__ or error
            if isinstance(why, FileNotFoundError):
                raise
        if not isinstance(why, OSError | ValueError) and not _is_client_error(why):
            raise
        raise DataError(
            f"{url} cannot be read ({type(why).__name__}: {why}); is the server there, and does "
            "it answer ranges?"
        ) from error


def _is_client_error(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in ("aiohttp", "botocore", "gcsfs")
