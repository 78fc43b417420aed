"""Many images into one table: which there are, and a table that an interruption leaves usable."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ibinn.errors import ConfigError, DataError
from ibinn.tables import Format, Outcome, Row, Table, open_table, read_table
from ibinn.types import Versions

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})


def images_in(paths: Sequence[Path]) -> list[Path]:
    """The images that are meant: files as they are, those of folders and of folders in them.

    Each once, those of a folder in the order of their names.

    Raises:
        DataError: A folder cannot be read, or holds no image.
    """
    found: dict[Path, None] = {}
    for path in paths:
        images = list(_images_below(path)) if path.is_dir() else [path]
        if not images:
            raise DataError(f"folder {path} holds no images ({', '.join(sorted(SUFFIXES))})")
        found |= dict.fromkeys(images)
    return list(found)


def _images_below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders.sort()
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES:
                yield Path(parent, name)


def _refuse(error: OSError) -> None:
    raise DataError(
        f"cannot read folder {error.filename}: {error.strerror}; what it holds would be missing"
    ) from error


class Results:
    """Rows on their way into a table: in NAME.part until all are there, then in NAME.

    Used as a context; after an interruption NAME.part holds what was answered.

    Args:
        out: NAME; its suffix says the format.
        versions: Of the model that answers.
        resume: Go on from NAME.part, or from NAME: answers of the same model, calibration and
            policy are kept, all others are to be given again.

    Raises:
        ConfigError: The format is not known, the file cannot be written, or there is a NAME.part
            and `resume` does not say what to do with it.
    """

    def __init__(self, out: Path, *, versions: Versions, resume: bool) -> None:
        self._out = out
        self._form = Format.of(out)
        self._versions = versions
        self.part = out.with_name(f"{out.name}.part")
        # Where the rows lie that a resumed run copies first.
        self._before = out.with_name(f"{out.name}.part.old")
        if not resume and (left := [p for p in (self.part, self._before) if p.exists()]):
            raise ConfigError(
                f"{left[0]} is there, from a run that was interrupted; go on from it with "
                "--resume, or remove it"
            )
        earlier = self._earlier() if resume else None
        self._table: Table = open_table(self.part, self._form)
        self._done: set[str] = set()
        if earlier is not None:
            for row in read_table(earlier, self._form):
                if self._is_kept(row) and row.file not in self._done:
                    self._table.append(row)
                    self._done.add(row.file)

    @property
    def done(self) -> frozenset[str]:
        """Files whose answers were kept from an earlier run."""
        return frozenset(self._done)

    def append(self, row: Row) -> None:
        """Adds a row."""
        self._table.append(row)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._table.close()
        if kind is None:
            self.part.replace(self._out)
        self._before.unlink(missing_ok=True)

    def _earlier(self) -> Path | None:
        """The table of an earlier run, out of the way of the new one; None: there is none."""
        left = [path for path in (self.part, self._before) if path.exists()]
        # A run that is killed while it copies leaves both; the longer one has all of the other.
        readable = [(count, path) for path in left if (count := self._count(path)) is not None]
        if readable:
            _, path = max(readable, key=lambda found: found[0])
            return path.replace(self._before)
        if left:
            raise ConfigError(
                f"{left[0]} cannot be gone on from: it was not written to its end; remove it"
            )
        return self._out if self._out.exists() else None

    def _count(self, path: Path) -> int | None:
        """Number of rows of a table; None: it cannot be read."""
        try:
            return sum(1 for _ in read_table(path, self._form))
        except DataError:
            return None

    def _is_kept(self, row: Row) -> bool:
        same = self._versions
        return row.status is Outcome.OK and (row.weights, row.calibration, row.policy) == (
            same.weights,
            same.calibration,
            same.policy,
        )
