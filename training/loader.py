"""Batches of images for training and evaluation.

The order of an epoch is a function of (seed, epoch), and every image's variation one of (seed,
epoch, image), so a run can be resumed at any step, and with any number of worker processes,
with exactly the same batches.

Shapes: B batch, N images, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ibinn.errors import ConfigError
from ibinn.images import Preprocessing
from training.augment import AugmentConfig, augment
from training.image_set import ImageSet, Pixels
from training.jpeg import finisher

CACHE_BYTES = 2 * 2**30
"""Images cropped and resized to the network's side are kept in memory up to this size."""

_PREFETCHED_BATCHES = 4
_COMPARED = 32


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
        self.steps_per_epoch = len(image_set) // step
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._labels = image_set.labels
        self._ids = np.array([item.id for item in image_set.items])
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
        shuffled = np.random.default_rng([self._seed, epoch]).permutation(len(self._ids))
        steps = shuffled[: self.steps_per_epoch * step]
        return steps.reshape(-1, self._world_size, self.batch_size)[:, self._rank]

    def epoch(self, epoch: int, *, start_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from `start_step` on; the last images that do not fill a
        step are left out (others in each epoch).

        Only one epoch can be under way at a time.
        """
        order = self.order(epoch)[start_step:]
        self._schedule[:] = [[(epoch, int(index)) for index in step] for step in order]
        for indices, images in zip(order, self._loader, strict=True):
            yield Batch(
                images=images,
                labels=torch.from_numpy(self._labels[indices]),
                ids=tuple(self._ids[indices].tolist()),
            )


class _Variations(Dataset[Tensor]):
    """Images of an epoch, varied; asked for whole batches of (epoch, position)."""

    def __init__(
        self, image_set: ImageSet, preprocessing: Preprocessing, config: AugmentConfig, seed: int
    ) -> None:
        self._images = image_set
        self._preprocessing = preprocessing
        self._config = config
        self._seed = seed
        self._fitted = _fit_all(image_set, preprocessing)
        self._finish: Callable[[Pixels], Pixels] | None = None  # chosen on the first batch

    def __len__(self) -> int:
        return len(self._images)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Tensor:
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
        return augment(self._fit(index), self._config, rng)

    def _fit(self, index: int) -> Pixels:
        if self._fitted is not None:
            return self._fitted[index]
        return self._preprocessing.fit_size(self._images.load(index))


def _fit_all(image_set: ImageSet, preprocessing: Preprocessing) -> Pixels | None:
    side = preprocessing.config.side
    shape = (len(image_set), side, side, 3)
    if np.prod(shape, dtype=np.int64) > CACHE_BYTES:
        return None
    fitted = np.empty(shape, np.uint8)
    for index in range(len(image_set)):
        fitted[index] = preprocessing.fit_size(image_set.load(index))
    return fitted


def _as_is(batch: Any) -> Any:
    return batch


def eval_batches(
    image_set: ImageSet, preprocessing: Preprocessing, batch_size: int
) -> Iterator[Batch]:
    """All images in order, cropped, resized and JPEG-stepped; the last batch may be short."""
    labels = torch.from_numpy(image_set.labels)
    side = preprocessing.config.side
    for start in range(0, len(image_set), batch_size):
        indices = range(start, min(start + batch_size, len(image_set)))
        images = np.empty((len(indices), side, side, 3), np.uint8)
        for row, index in enumerate(indices):
            images[row] = preprocessing.finish(preprocessing.fit_size(image_set.load(index)))
        yield Batch(
            images=torch.from_numpy(images),
            labels=labels[indices.start : indices.stop],
            ids=tuple(image_set.items[index].id for index in indices),
        )
