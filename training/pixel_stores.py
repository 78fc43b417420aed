"""Where the pixels of a data set are: in memory, in files, or in files and then in memory.

Shapes: N images, H x W pixels. Pixels are uint8 RGB in [0, 255].
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from ibinn.decoding import Limits, decode_pixels
from ibinn.errors import DataError

Pixels = npt.NDArray[np.uint8]


class PixelStore(Protocol):
    """Where the pixels of a data set are."""

    def load(self, position: int, *, reduce: int = 1) -> Pixels:
        """Pixels of one image, uint8 (H, W, 3).

        Args:
            position: Of the image in the store.
            reduce: 1, 2, 4 or 8; a store that decodes may give the image at that fraction of
                its sides, rounded up, and any may give it whole.
        """
        ...

    def encoded(self, position: int) -> bytes:
        """The image as a file holds it, whole; as PNG where there is no file."""
        ...

    def prepare(self, positions: Sequence[int]) -> None:
        """Told what is loaded next, again and again in the course of a training run."""
        ...


@dataclass(frozen=True, slots=True)
class ArrayStore:
    """Images of one size in memory: uint8 (N, H, W, 3), or (N, H, W) for grey ones."""

    pixels: Pixels

    def load(self, position: int, *, reduce: int = 1) -> Pixels:
        """Pixels of one image, uint8 (H, W, 3)."""
        image = self.pixels[position]
        return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)

    def encoded(self, position: int) -> bytes:
        """The image as PNG."""
        buffer = BytesIO()
        Image.fromarray(self.load(position)).save(buffer, format="PNG")
        return buffer.getvalue()

    def prepare(self, positions: Sequence[int]) -> None:
        """Nothing to do."""


@dataclass(frozen=True, slots=True)
class FileStore:
    """Images in files, decoded each time they are asked for."""

    paths: tuple[Path, ...]
    limits: Limits

    def load(self, position: int, *, reduce: int = 1) -> Pixels:
        """Pixels of one image, uint8 (H, W, 3).

        Raises:
            DataError: The file is no longer there.
            ImageError: The file has changed and is not a readable image any more.
        """
        return decode_pixels(self.encoded(position), self.limits, reduce=reduce)

    def encoded(self, position: int) -> bytes:
        """The bytes of a file.

        Raises:
            DataError: The file is no longer there.
        """
        path = self.paths[position]
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{path} was readable when the data was opened and is not now "
                f"({error.strerror}); do not change the folder while a job uses it"
            ) from error

    def prepare(self, positions: Sequence[int]) -> None:
        """Nothing to do."""


class KeptPixels:
    """Arrays of one shape that are put in once and kept, in memory that forked processes share.

    A loader's worker processes so decode an image once between them, and what is never asked
    for takes no memory. Two that put the same one in at once write the same bytes.

    Args:
        count: Number of arrays N.
        shape: Of each.
    """

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        self._count, self._shape = count, shape
        size = int(np.prod(shape, dtype=np.int64))
        # Not `multiprocessing.shared_memory`: /dev/shm is 64 MB in many containers.
        memory = mmap.mmap(-1, max(1, count * (size + 1)))
        whole = np.frombuffer(memory, np.uint8)
        self._known = whole[:count]
        self._pixels = whole[count : count * (size + 1)].reshape(count, *shape)

    def __reduce__(self) -> tuple[type[KeptPixels], tuple[int, tuple[int, ...]]]:
        return KeptPixels, (self._count, self._shape)  # elsewhere it starts empty

    def get(self, position: int) -> Pixels | None:
        """What was put in at a position, or None. Do not write to it."""
        return self._pixels[position] if self._known[position] else None

    def put(self, position: int, pixels: Pixels) -> Pixels:
        """Keep an array; gives it back."""
        self._pixels[position] = pixels
        self._known[position] = 1
        return self._pixels[position]


class KeptStore:
    """Images of one size, decoded by another store when they are first asked for.

    Args:
        source: Decodes them.
        count: Number of images N.
        shape: (H, W) of each.
    """

    def __init__(self, source: PixelStore, count: int, shape: tuple[int, int]) -> None:
        self._source = source
        self._kept = KeptPixels(count, (*shape, 3))
        self._shape = shape

    def load(self, position: int, *, reduce: int = 1) -> Pixels:
        """Pixels of one image, uint8 (H, W, 3).

        Raises:
            DataError: It has another size than when the data was opened.
        """
        kept = self._kept.get(position)
        if kept is not None:
            return kept
        pixels = self._source.load(position)
        if pixels.shape[:2] != self._shape:
            raise DataError(
                f"image {position} had {self._shape[1]}x{self._shape[0]} px when the data was "
                f"opened and has {pixels.shape[1]}x{pixels.shape[0]} px now; do not change the "
                "folder while a job uses it"
            )
        return self._kept.put(position, pixels)

    def keep(self, position: int, pixels: Pixels) -> None:
        """Put in an image that has been decoded already."""
        self._kept.put(position, pixels)

    def encoded(self, position: int) -> bytes:
        """The image as the store behind has it."""
        return self._source.encoded(position)

    def prepare(self, positions: Sequence[int]) -> None:
        """Tell the store behind, about what is not kept yet."""
        missing = [position for position in positions if self._kept.get(position) is None]
        if missing:
            self._source.prepare(missing)
