"""The images of a study: each data set with its roles, and its out-of-distribution sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ibinn.errors import ConfigError, DataError
from ibinn.images import Preprocessing
from training.data import PACKAGED, DataSource, open_data
from training.development_sets import drawings
from training.fit import Prepared
from training.image_set import ImageSet
from training.ood_sets import (
    LazyImages,
    OodSet,
    choose,
    coloured_digits,
    mnist_digits,
    noisy,
    rotated_colours,
    sklearn_digits,
    tiny_imagenet_set,
)
from training.scoring import fitted
from training.sources import cifar_root, mnist_root
from training.splits import Role, make_splits, role_set
from training.study.plan import Block

_LAYOUTS: Mapping[str, Callable[[Path], object]] = {
    "cifar10": cifar_root,
    "mnist": mnist_root,
    "tiny-imagenet": lambda folder: folder if (folder / "val").is_dir() else None,
}


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Where ``--data`` points: a folder of data sets, or the one data set itself."""

    root: Path

    def of(self, name: str) -> Path:
        """Folder of a data set by name: below the root, the root itself, or beside it."""
        if _LAYOUTS[name](self.root) is not None:
            return self.root
        for candidate in (self.root / name, self.root.parent / name):
            if candidate.is_dir():
                return candidate
        raise DataError(
            f"data set {name!r} is neither in {self.root} nor beside it; `make data` unpacks it"
        )


def open_block(block: Block, data: DataFolder) -> DataSource:
    """Open the data set of a block, whole.

    Raises:
        DataError: It is not there, or cannot be used as it is.
    """
    if block.source in PACKAGED:
        return open_data(block.source)
    return open_data(str(data.of(block.source)))


def prepared(block: Block, source: DataSource, *, seed: int) -> Prepared:
    """The images of one seed with their roles: drawn, then split, both by that seed."""
    train, test = source.train, source.test
    if block.train_images is not None:
        train = _drawn(train, block.train_images, seed=seed)
    if test is not None and block.test_images is not None:
        test = _drawn(test, block.test_images, seed=seed)
    chosen = replace(source, train=train, test=test)
    return Prepared(
        source=chosen, manifest=make_splits(chosen, replace(block.config.split, seed=seed))
    )


def ood_sets(block: Block, images: Prepared, data: DataFolder, *, seed: int) -> tuple[OodSet, ...]:
    """The out-of-distribution sets of a block that can be made here, in its order.

    Those that change test images are made of this seed's test images.
    """
    test = fitted(
        role_set(images.source, images.manifest, Role.TEST),
        Preprocessing(block.config.preprocessing),
    )
    side, count = block.config.preprocessing.side, block.ood_images

    def digits() -> OodSet:
        return coloured_digits(
            mnist_digits(data.of("mnist")),
            name="digits",
            source="MNIST test digits",
            count=count,
            seed=seed,
        )

    def tiny_imagenet() -> OodSet:
        return tiny_imagenet_set(
            data.of("tiny-imagenet"),
            side=side,
            class_names=images.source.train.class_names,
            count=count,
            seed=seed,
        )

    makers: dict[str, Callable[[], OodSet]] = {
        "rotation": lambda: rotated_colours(test, count=count, seed=seed),
        "noise-0.1": lambda: noisy(test, sigma=0.1, count=count, seed=seed),
        "noise-0.015": lambda: noisy(test, sigma=0.015, count=count, seed=seed),
        "drawings": lambda: replace(drawings(side=side, count=count, seed=seed), name="drawings"),
        "other-digits": lambda: _other_digits(block, data, seed=seed),
        "digits": digits,
        "tiny-imagenet": tiny_imagenet,
    }
    made = []
    for name in block.ood:
        if name not in makers:
            raise ConfigError(f"out-of-distribution set {name!r}; there are: {', '.join(makers)}")
        try:
            made.append(makers[name]())
        except DataError:
            continue  # its folder is not there; the tables show a dash
    return tuple(made)


def _other_digits(block: Block, data: DataFolder, *, seed: int) -> OodSet:
    """MNIST for a model of scikit-learn's digits, and the other way round."""
    if block.source == "digits":
        pixels, words = mnist_digits(data.of("mnist")), "MNIST test digits"
    else:
        pixels, words = sklearn_digits(), "scikit-learn's 8×8 digits, enlarged to 28×28"
    chosen = choose(len(pixels), block.ood_images, seed=seed)
    return OodSet(
        name="other-digits",
        description=f"{words}: the same ten classes, written and scanned elsewhere.",
        images=LazyImages(
            count=len(chosen),
            make=lambda index: np.repeat(pixels[chosen[index]][:, :, None], 3, axis=2),
        ),
        caveat="The same classes: what is unlike is the hand and the scanner.",
    )


def _drawn(images: ImageSet, count: int, *, seed: int) -> ImageSet:
    if count >= len(images):
        return images
    chosen = np.random.default_rng([seed, 7]).choice(len(images), size=count, replace=False)
    return images.subset(np.sort(chosen))
