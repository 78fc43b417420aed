"""Arrays in a file without a name, so that their pages need not stay in memory.

A large model's weights are read once, to make its inference form, and then seldom or never again.
In ordinary memory they would take their place for good. Here the kernel can be given the place back
at any time: what is touched again is read again from the file.

The file lies in the folder for temporary files (`TMPDIR`) and is gone with the process, however it
ends. Nobody else can open it. Where that folder is itself in memory (tmpfs), nothing is saved.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import tempfile
import weakref
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64
"""Arrays begin at multiples of so many bytes: a cache line, and the widest vector register."""

_log = logging.getLogger("ibinn.paged")

T = TypeVar("T", bound=np.generic)


class PagedMemory:
    """Room for arrays in such a file.

    Args:
        size: Bytes of all of them together; no place is taken before they are stored.

    Attributes:
        size: As given.

    Raises:
        OSError: There is no folder for temporary files that can be written.
    """

    def __init__(self, size: int) -> None:
        with tempfile.TemporaryFile(prefix="ibinn-") as file:
            file.truncate(max(size, 1))
            self._map = mmap.mmap(file.fileno(), max(size, 1))
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        self.size = size
        self._free, self._end = size, 0

    def store(self, array: NDArray[T]) -> NDArray[T]:
        """The array in here; as it is where the room or the disk's is used up.

        What is given out keeps the memory alive. It may be written to, which nobody else sees.
        """
        whole = np.asarray(array, order="C")
        start = -(-self._end // ALIGNMENT) * ALIGNMENT
        if start + whole.nbytes > self._free:
            return whole
        try:
            self._write(whole.reshape(-1).view(np.uint8).data, start)
        except OSError as error:
            _log.warning(
                "weights stay in memory: %s has no place for them (%s)",
                tempfile.gettempdir(),
                error,
            )
            self._free = self._end  # asked and told once
            return whole
        self._end = start + whole.nbytes
        return np.ndarray(whole.shape, whole.dtype, self._map, start)

    def give_back(self) -> None:
        """Let go of the pages; what is touched again comes back from the file."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def _write(self, content: memoryview, start: int) -> None:
        # Not through the map: what is written there would be in memory at once.
        written = 0
        while written < len(content):
            written += os.pwrite(self._file, content[written:], start + written)


def room(size: int) -> PagedMemory | None:
    """Paged memory of a size, or None, with a warning, where there can be none."""
    try:
        return PagedMemory(size)
    except OSError as error:
        _log.warning("weights stay in memory: no temporary file can be made (%s)", error)
        return None


def trim() -> None:
    """Give freed memory that the allocator keeps for later back to the kernel, where it can."""
    trim_all = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only GNU's C library has it
    if trim_all is not None:
        trim_all(0)
