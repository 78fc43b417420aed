"""Opening a data set by name or folder."""

from __future__ import annotations

from pathlib import Path

from ibinn.errors import DataError
from training.folders import check_group_by, read_folder
from training.image_set import DataSource, ImageSet, Item, Skipped, image_id
from training.retraining.composed import is_composed, old_data, read_composed
from training.scan import Progress
from training.shards import is_shards, read_shards
from training.sources import (
    cifar_root,
    mnist_root,
    read_cifar,
    read_digits,
    read_elpv,
    read_mnist,
)

__all__ = ["DataSource", "ImageSet", "Item", "Skipped", "image_id", "open_data"]

PACKAGED = ("digits", "elpv")


def open_data(
    data: str,
    *,
    skip_unreadable: bool = False,
    group_by: str | None = None,
    progress: Progress | None = None,
) -> DataSource:
    """Open a data set; every image is decoded once, to check it and for its content id.

    What was found in large folders, and in shards without an index, is remembered.

    Args:
        data: A folder, or the name of a packaged set: ``digits`` (scikit-learn) or ``elpv``
            (elpv-dataset). A folder holds one subfolder per class, or ``train/`` and
            ``test/`` (or ``val/``) folders of those, or CIFAR-10/100 or MNIST as
            torchvision lays them out, or shards, or ``RUN/data`` of a retraining. Shards may
            also be named by a pattern or a URL, see `training.shard_places.locate`.
        skip_unreadable: Go on without the files that cannot be read; they are listed in
            `DataSource.skipped`.
        group_by: What keeps images together on one side of every split: ``parent`` (the
            name of the folder the file is in, below its class folder), or a regular
            expression with one group that is searched in the path relative to the data
            folder, such as ``lot(\\d+)``.
        progress: Called with (images read, images in all).

    Raises:
        DataError: The data cannot be used as it is; the message names the class or the
            first five files, and says what to do.

    Example:
        >>> source = open_data("digits")
        >>> len(source.train), source.train.load(0).shape
        (1797, (8, 8, 3))
    """
    check_group_by(group_by)
    if is_shards(data):
        _refuse_groups(data, group_by)
        return read_shards(data, skip_unreadable=skip_unreadable, progress=progress)
    folder = Path(data)
    if not folder.is_dir():
        if data in PACKAGED:
            _refuse_groups(data, group_by)
            if data == "digits":
                return read_digits()
            return read_elpv(skip_unreadable=skip_unreadable, progress=progress)
        problem = "is a file" if folder.exists() else "does not exist"
        raise DataError(
            f"data {data!r} {problem}; expected a folder with one subfolder per class, or one "
            f"of: {', '.join(PACKAGED)}"
        )
    if is_composed(folder):
        _refuse_groups(data, group_by)
        old = old_data(folder)
        opened = open_data(old.data, skip_unreadable=old.skip_unreadable, group_by=old.group_by)
        return read_composed(folder, opened)
    cifar = cifar_root(folder)
    if cifar is not None:
        _refuse_groups(data, group_by)
        return read_cifar(*cifar)
    mnist = mnist_root(folder)
    if mnist is not None:
        _refuse_groups(data, group_by)
        return read_mnist(mnist)
    return read_folder(
        folder, skip_unreadable=skip_unreadable, group_by=group_by, progress=progress
    )


def _refuse_groups(data: str, group_by: str | None) -> None:
    if group_by is not None:
        raise DataError(
            f"data {data!r} has no file paths to group by; use --group-by with a folder of "
            f"class folders only"
        )
