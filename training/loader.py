"""Batches of images for training and evaluation.

The order of an epoch is a function of (seed, epoch), and every image's variation one of (seed,
epoch, image), so a run can be resumed at any step, and with any number of worker processes,
with exactly the same batches.

Shapes: B batch, N images, S x S pixels.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ibinn.errors import ConfigError
from ibinn.images import Preprocessing
from training.augment import AugmentConfig, cut, draw_box, reduction, vary
from training.image_set import ImageSet, Pixels
from training.jpeg import finisher
from training.pixel_stores import KeptPixels

CACHE_BYTES = 2 * 2**30
"""Images cropped and resized to the network's side are kept in memory up to this size, which
worker processes share; larger sets are decoded each time."""

WINDOW = 16
"""Archives behind a URL that an epoch's order visits at a time."""

_PREFETCHED_BATCHES = 4
_COMPARED = 32
_EVAL_THREADS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Images as the network will see them, before `Preprocessing.to_tensor`.

    Attributes:
        images: uint8 (B, S, S, 3).
        labels: int64 (B,).
        ids: Content ids, B of them.
    """

    images: Tensor
    labels: Tensor
    ids: tuple[str, ...]


class TrainLoader:
    """Shuffled, augmented batches; the JPEG step comes after the augmentation.

    Workers are processes, not threads: for small images most of the time is Python holding the
    interpreter lock, which would delay the training step's own launches.

    Args:
        image_set: Images to train on.
        preprocessing: Crop and resize before the augmentation, JPEG step after it.
        augment: What to vary.
        batch_size: Images per step of this process.
        seed: Seed of order and variations.
        workers: Processes that prepare batches ahead; 0 prepares them in this one.
        rank: Number of this process among `world_size`.
        world_size: Processes that train together; each gets its own part of every step.

    Attributes:
        waited_s: Seconds for which `epoch` has kept its consumer waiting; set it to 0 to start
            anew.

    Raises:
        ConfigError: Not one full step of images, or an argument out of range.
    """

    def __init__(
        self,
        image_set: ImageSet,
        preprocessing: Preprocessing,
        augment: AugmentConfig,
        *,
        batch_size: int,
        seed: int,
        workers: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1 or workers < 0 or not 0 <= rank < world_size:
            raise ConfigError(
                f"batch_size is {batch_size}, workers {workers}, rank {rank}, world_size "
                f"{world_size}; expected batch_size >= 1, workers >= 0, 0 <= rank < world_size"
            )
        step = batch_size * world_size
        if len(image_set) < step:
            raise ConfigError(
                f"one step takes {step} images ({batch_size} on each of {world_size} processes) "
                f"and there are {len(image_set)} training images; use a smaller batch size"
            )
        self.batch_size = batch_size
        self.waited_s = 0.0
        self.steps_per_epoch = len(image_set) // step
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._labels = image_set.labels
        self._items = image_set.items
        self._places = image_set.places
        self._images = image_set
        self._schedule: list[list[tuple[int, int]]] = []
        self._loader: DataLoader[Tensor] = DataLoader(
            _Variations(image_set, preprocessing, augment, seed),
            batch_sampler=self._schedule,
            num_workers=workers,
            collate_fn=_as_is,
            prefetch_factor=_PREFETCHED_BATCHES if workers else None,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # the loader draws a base seed that is not used
        )

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Positions of the images that this process sees: int64 (steps_per_epoch, batch_size)."""
        step = self.batch_size * self._world_size
        shuffled = shuffled_order(len(self._items), self._places, [self._seed, epoch])
        steps = shuffled[: self.steps_per_epoch * step]
        return steps.reshape(-1, self._world_size, self.batch_size)[:, self._rank]

    def epoch(self, epoch: int, *, start_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from `start_step` on; the last images that do not fill a
        step are left out (others in each epoch).

        Only one epoch can be under way at a time.
        """
        order = self.order(epoch)[start_step:]
        self._schedule[:] = [[(epoch, int(index)) for index in step] for step in order]
        batches = iter(self._loader)
        with _FetchAhead(self._images, order) as ahead:
            for number, indices in enumerate(order):
                ahead.reach(number)
                before = time.perf_counter()
                images = next(batches)
                self.waited_s += time.perf_counter() - before
                yield Batch(
                    images=images,
                    labels=torch.from_numpy(self._labels[indices]),
                    ids=tuple(self._items[index].id for index in indices),
                )


def shuffled_order(
    count: int, places: npt.NDArray[np.int32] | None, seed: Sequence[int]
) -> npt.NDArray[np.int64]:
    """A random order of N images; of archives behind a URL, a few are visited at a time.

    Without `places` every order is equally likely. With them, the archives come in random order,
    `WINDOW` at a time, and the images of those in random order.

    Args:
        count: N.
        places: int32 (N,), the archive that each image is in, or None.
        seed: Of the order.
    """
    rng = np.random.default_rng(seed)
    shuffled: npt.NDArray[np.int64] = rng.permutation(count)
    if places is None or not count:
        return shuffled
    window = rng.permutation(int(places.max()) + 1) // WINDOW
    return shuffled[np.argsort(window[places[shuffled]], kind="stable")]


class _FetchAhead:
    """Fetches archives behind a URL in the background, a window before they are needed."""

    def __init__(self, images: ImageSet, order: npt.NDArray[np.int64]) -> None:
        self._images, self._order = images, order
        self._wanted = images.places is not None and len(order) > 0
        self._lead = 0
        if images.places is not None and len(order):
            windows = len(np.unique(images.places)) / WINDOW
            self._lead = math.ceil(len(order) / max(windows, 1.0))
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> _FetchAhead:
        if self._wanted:
            self._pool = ThreadPoolExecutor(1)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def reach(self, step: int) -> None:
        """A step is about to be taken."""
        if self._pool is not None and step + self._lead < len(self._order):
            indices = self._order[step + self._lead].tolist()
            self._pool.submit(self._images.prepare, indices)


class _Variations(Dataset[Tensor]):
    """Images of an epoch, varied; asked for whole batches of (epoch, position)."""

    def __init__(
        self, image_set: ImageSet, preprocessing: Preprocessing, config: AugmentConfig, seed: int
    ) -> None:
        self._images = image_set
        self._preprocessing = preprocessing
        self._config = config
        self._seed = seed
        self._fitted = _room_for_fitted(image_set, preprocessing, config)
        self._finish: Callable[[Pixels], Pixels] | None = None  # chosen on the first batch

    def __len__(self) -> int:
        return len(self._images)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Tensor:
        fitted = self._fitted
        self._images.prepare(
            [index for _, index in keys if fitted is None or fitted.get(index) is None]
        )
        if self._finish is None:
            compared = (self._vary(*key) for key in keys[:_COMPARED])
            self._finish = finisher(self._preprocessing, compared)
        side = self._preprocessing.config.side
        batch = np.empty((len(keys), side, side, 3), np.uint8)
        for row, key in enumerate(keys):
            batch[row] = self._finish(self._vary(*key))
        return torch.from_numpy(batch)

    def _vary(self, epoch: int, index: int) -> Pixels:
        rng = np.random.default_rng([self._seed, epoch, index])
        if self._config.random_resized_crop_min < 1:
            pixels = self._cut(index, rng)
        else:
            pixels = self._fit(index)
        return vary(pixels, self._config, rng)

    def _cut(self, index: int, rng: np.random.Generator) -> Pixels:
        config = self._preprocessing.config
        height, width = self._images.sizes[index].tolist()
        box = draw_box((height, width), self._config.random_resized_crop_min, rng)
        return cut(
            self._images.load(index, reduce=reduction(box, config.side)),
            box,
            config.side,
            size=(height, width),
            interpolation=Image.Resampling[config.interpolation.upper()],
        )

    def _fit(self, index: int) -> Pixels:
        if self._fitted is None:
            return self._preprocessing.fit_size(self._images.load(index))
        fitted = self._fitted.get(index)
        if fitted is None:
            pixels = self._preprocessing.fit_size(self._images.load(index))
            fitted = self._fitted.put(index, pixels)
        return fitted


def _room_for_fitted(
    image_set: ImageSet, preprocessing: Preprocessing, config: AugmentConfig
) -> KeptPixels | None:
    """Where fitted images are kept; None where they are too many, or not what is cut from."""
    shape = (preprocessing.config.side, preprocessing.config.side, 3)
    size = len(image_set) * int(np.prod(shape, dtype=np.int64))
    if config.random_resized_crop_min < 1 or size > CACHE_BYTES:
        return None
    return KeptPixels(len(image_set), shape)


def _as_is(batch: Any) -> Any:
    return batch


def eval_batches(
    image_set: ImageSet, preprocessing: Preprocessing, batch_size: int
) -> Iterator[Batch]:
    """All images in order, cropped, resized and JPEG-stepped; the last batch may be short.

    Threads prepare the next batch while the consumer computes with this one.
    """
    labels = torch.from_numpy(image_set.labels)
    side = preprocessing.config.side

    def fill(images: npt.NDArray[np.uint8], start: int, rows: range) -> None:
        for row in rows:
            original = image_set.load(start + row)
            images[row] = preprocessing.finish(preprocessing.fit_size(original))

    def begin(pool: ThreadPoolExecutor, start: int) -> _Filling:
        count = max(0, min(batch_size, len(image_set) - start))
        images = np.empty((count, side, side, 3), np.uint8)
        shares = [range(first, count, threads) for first in range(min(threads, count))]
        return _Filling(images, [pool.submit(fill, images, start, rows) for rows in shares])

    threads = min(_EVAL_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        ahead = begin(pool, 0)
        for start in range(0, len(image_set), batch_size):
            filling, ahead = ahead, begin(pool, start + batch_size)
            for share in filling.shares:
                share.result()
            end = start + len(filling.images)
            yield Batch(
                images=torch.from_numpy(filling.images),
                labels=labels[start:end],
                ids=tuple(item.id for item in image_set.items[start:end]),
            )


@dataclass(frozen=True, slots=True)
class _Filling:
    """A batch that threads are filling, each its share of the rows."""

    images: npt.NDArray[np.uint8]
    shares: list[Future[None]]
