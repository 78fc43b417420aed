"""Small data sets that tests make: folders of random PNG files and sets without pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from training.image_set import ArrayStore, DataSource, ImageSet, Item


def write_image(path: Path, *, seed: int, size: tuple[int, int] = (16, 16)) -> None:
    """A PNG of smooth random colours; different seeds give images that are not alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, format="PNG")


def write_folder(root: Path, counts: Mapping[str, int], *, first_seed: int = 0) -> Path:
    """A folder with `counts[c]` images in each class folder c (which may be ``train/cat``)."""
    seed = first_seed
    for folder, count in counts.items():
        for number in range(count):
            write_image(root / folder / f"{number:03d}.png", seed=seed)
            seed += 1
    return root


def random_set(
    labels: Sequence[int], *, class_count: int, groups: Sequence[str] | None = None, seed: int = 0
) -> ImageSet:
    """A set of N images that are all different, with 1 x 1 pixels and random thumbnails."""
    count = len(labels)
    rng = np.random.default_rng(seed)
    return ImageSet(
        class_names=[f"class{label}" for label in range(class_count)],
        items=[
            Item(
                id=f"{seed}-{index:06d}",
                label=int(label),
                group=groups[index] if groups else "",
                name=f"image/{index}",
            )
            for index, label in enumerate(labels)
        ],
        store=ArrayStore(np.zeros((count, 1, 1, 3), np.uint8)),
        thumbnails=rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8),
        sizes=np.ones((count, 2), np.int32),
    )


def source_of(train: ImageSet, test: ImageSet | None = None) -> DataSource:
    """A data source of sets made in a test."""
    return DataSource(name="made", train=train, test=test)
