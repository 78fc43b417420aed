"""What a data set is: labelled images with content ids, held in memory or read on demand.

Shapes: N images, H x W pixels. Pixels are uint8 RGB in [0, 255].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from ibinn.decoding import pixels_sha256
from training.pixel_stores import ArrayStore, FileStore, Pixels, PixelStore

__all__ = [
    "THUMBNAIL_SIDE",
    "ArrayStore",
    "DataSource",
    "FileStore",
    "ImageSet",
    "Item",
    "JoinedStore",
    "PixelStore",
    "Pixels",
    "Skipped",
    "image_id",
    "thumbnail",
]

THUMBNAIL_SIDE = 16
"""Side in pixels of the thumbnails that near-duplicates are searched in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One labelled image.

    Attributes:
        id: sha256 (hex) of the decoded RGB pixels with their shape, see `image_id`.
        label: Position of its class in `ImageSet.class_names`.
        group: Name of the patient, lot or device whose images stay on one side of every
            split; empty where there is none.
        name: Something a person can look up: a path relative to the data folder, or
            ``digits/17``.
    """

    id: str
    label: int
    group: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A file that could not be read, and why."""

    name: str
    reason: str


def image_id(pixels: Pixels) -> str:
    """The content id of an image: `ibinn.decoding.pixels_sha256` of its decoded pixels.

    It covers the shape, because two flat images of different sizes can have the same bytes.
    Names and encodings are not in it: a renamed or losslessly re-encoded copy keeps its id,
    and an answer's ``sha256_pixels`` can be looked up among the training images.

    Args:
        pixels: uint8, shape (H, W, 3).
    """
    return pixels_sha256(pixels)


def thumbnail(pixels: Pixels) -> Pixels:
    """The image squashed to `THUMBNAIL_SIDE` squared by averaging: uint8 (16, 16, 3)."""
    small = Image.fromarray(pixels).resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    return np.asarray(small)


class ImageSet:
    """Labelled images in a fixed order.

    Args:
        class_names: Class names, in the order of the labels.
        items: One per image.
        store: Where their pixels are.
        thumbnails: uint8 (N, 16, 16, 3), from `thumbnail`.
        sizes: int32 (N, 2), height and width of each image in pixels.
        positions: int64 (N,), the place of each item in `store`; 0 ... N-1 if not given.
        places: int32 (N,), which images are fetched together because they lie in one archive
            behind a URL; None where any order costs the same.
    """

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        items: Sequence[Item],
        store: PixelStore,
        thumbnails: Pixels,
        sizes: npt.NDArray[np.int32],
        positions: npt.NDArray[np.int64] | None = None,
        places: npt.NDArray[np.int32] | None = None,
    ) -> None:
        self.class_names = tuple(class_names)
        self.items = tuple(items)
        self.thumbnails = thumbnails
        self.sizes = sizes
        self.places = places
        self._store = store
        self._positions = np.arange(len(self.items)) if positions is None else positions

    @classmethod
    def from_array(
        cls,
        pixels: Pixels,
        *,
        class_names: Sequence[str],
        labels: Sequence[int] | npt.NDArray[np.integer],
        name: str,
    ) -> Self:
        """Images of one size that are already in memory.

        Args:
            pixels: uint8 (N, H, W, 3), or (N, H, W) for grey ones.
            class_names: Class names, in the order of the labels.
            labels: (N,), positions in `class_names`.
            name: Image i is called ``name/i``.
        """
        store = ArrayStore(pixels)
        thumbnails = np.empty((len(pixels), THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), np.uint8)
        items = []
        for index, label in enumerate(labels):
            image = store.load(index)
            thumbnails[index] = thumbnail(image)
            items.append(
                Item(id=image_id(image), label=int(label), group="", name=f"{name}/{index}")
            )
        return cls(
            class_names=class_names,
            items=items,
            store=store,
            thumbnails=thumbnails,
            sizes=np.tile(np.asarray(pixels.shape[1:3], np.int32), (len(items), 1)),
        )

    def __len__(self) -> int:
        return len(self.items)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Labels of all images, int64 (N,)."""
        return np.fromiter((item.label for item in self.items), np.int64, len(self.items))

    def load(self, index: int, *, reduce: int = 1) -> Pixels:
        """Pixels of image `index`: uint8 (H, W, 3), upright, as decoded. Do not write to them.

        Args:
            index: Of the image.
            reduce: 1, 2, 4 or 8: a JPEG may come at that fraction of its sides, rounded up.
        """
        return self._store.load(int(self._positions[index]), reduce=reduce)

    def encoded(self, index: int) -> bytes:
        """Image `index` as a file holds it; as PNG where there is no file."""
        return self._store.encoded(int(self._positions[index]))

    def prepare(self, indices: Sequence[int]) -> None:
        """Say what a training run loads next; images behind a URL are fetched shard by shard."""
        self._store.prepare([int(self._positions[index]) for index in indices])

    @property
    def one_size(self) -> tuple[int, int] | None:
        """Height and width in pixels if all images have the same, else None."""
        if not len(self.sizes) or (self.sizes != self.sizes[0]).any():
            return None
        return int(self.sizes[0, 0]), int(self.sizes[0, 1])

    def subset(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> ImageSet:
        """The images at `indices`, in that order; pixels are shared, not copied."""
        chosen = np.asarray(indices, dtype=np.int64)
        return ImageSet(
            class_names=self.class_names,
            items=[self.items[index] for index in chosen],
            store=self._store,
            thumbnails=self.thumbnails[chosen],
            sizes=self.sizes[chosen],
            positions=self._positions[chosen],
            places=None if self.places is None else self.places[chosen],
        )

    def with_items(self, items: Sequence[Item], *, class_names: Sequence[str]) -> ImageSet:
        """The same images under other labels, names or classes.

        Args:
            items: One per image, in the same order.
            class_names: What their labels are positions in.
        """
        return ImageSet(
            class_names=class_names,
            items=items,
            store=self._store,
            thumbnails=self.thumbnails,
            sizes=self.sizes,
            positions=self._positions,
            places=self.places,
        )

    def joined(self, other: ImageSet) -> ImageSet:
        """These images and then the other ones, under this set's class names."""
        return ImageSet(
            class_names=self.class_names,
            items=(*self.items, *other.items),
            store=JoinedStore((self, other)),
            thumbnails=np.concatenate([self.thumbnails, other.thumbnails]),
            sizes=np.concatenate([self.sizes, other.sizes]),
        )


@dataclass(frozen=True, slots=True)
class JoinedStore:
    """The images of two sets, one after the other."""

    parts: tuple[ImageSet, ImageSet]

    def load(self, position: int, *, reduce: int = 1) -> Pixels:
        """Pixels of one image, uint8 (H, W, 3)."""
        first, second = self.parts
        if position < len(first):
            return first.load(position, reduce=reduce)
        return second.load(position - len(first), reduce=reduce)

    def encoded(self, position: int) -> bytes:
        """The image as a file holds it."""
        first, second = self.parts
        if position < len(first):
            return first.encoded(position)
        return second.encoded(position - len(first))

    def prepare(self, positions: Sequence[int]) -> None:
        """Tell both sets."""
        first, second = self.parts
        first.prepare([position for position in positions if position < len(first)])
        second.prepare([position - len(first) for position in positions if position >= len(first)])


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """A data set as it was opened.

    Attributes:
        name: Name of the folder or of the packaged data set.
        train: Images to split into training, validation and calibration (and test).
        test: The data set's own test images, or None where it has none.
        skipped: Files that could not be read (only with ``skip_unreadable``).
        ignored: Number of files in class folders that are not of an accepted image type.
    """

    name: str
    train: ImageSet
    test: ImageSet | None
    skipped: tuple[Skipped, ...] = ()
    ignored: int = 0
