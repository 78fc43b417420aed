"""How each kind of data set is read.

`training.data.open_data` chooses among these readers; nothing here downloads anything.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ibinn.decoding import Limits, decode
from ibinn.errors import DataError, ImageError
from training.image_set import (
    THUMBNAIL_SIDE,
    ArrayStore,
    DataSource,
    FileStore,
    ImageSet,
    Item,
    Pixels,
    PixelStore,
    Skipped,
    thumbnail,
)

Progress = Callable[[int, int], None]
"""Called with (images read, images in all) while a folder is opened."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})
TEST_FOLDERS = ("test", "val", "valid", "validation")
MEMORY_BYTES = 2 * 2**30
"""Images of one size are kept decoded up to this size, so that they are decoded once."""

_CHUNK = 256
_NAMED_FILES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    path: Path
    name: str
    label: int
    group: str


# --- class folders ---------------------------------------------------------------------


def read_folder(
    root: Path, *, skip_unreadable: bool, group_by: str | None, progress: Progress | None
) -> DataSource:
    """A folder with one subfolder per class, or ``train/`` and ``test/`` folders of those.

    Files are found at any depth below the class folder. ``val/``, ``valid/`` and
    ``validation/`` serve as the test set where there is no ``test/``; where there is one,
    their images join the training images (a validation part is drawn from those anyway).

    Args:
        root: The folder.
        skip_unreadable: Go on without the files that cannot be read.
        group_by: See `training.data.open_data`.
        progress: Told how many images have been read.

    Raises:
        DataError: No image, one class only, a class without images, a test class that is
            not among the training classes, a group pattern that does not match, or files
            that cannot be read.
    """
    train_roots, test_root = _split_folders(root)
    class_names = _class_names(train_roots)
    files: list[_File] = []
    ignored = 0
    for folder in train_roots:
        found, other = _list_files(root, folder, class_names, group_by)
        files += found
        ignored += other
    train_count = len(files)
    if test_root is not None:
        found, other = _list_files(root, test_root, class_names, group_by)
        files += found
        ignored += other
    _check_classes(root, class_names, files[:train_count], "holds no images")

    images, skipped = scan_files(files, class_names, progress=progress)
    if skipped and not skip_unreadable:
        raise DataError(_unreadable_message(skipped, len(files)))
    lost = {entry.name for entry in skipped}
    readable = [file for file in files[:train_count] if file.name not in lost]
    _check_classes(root, class_names, readable, "holds no readable images")
    return DataSource(
        name=root.resolve().name,
        train=images.subset(range(len(readable))),
        test=None if test_root is None else images.subset(range(len(readable), len(images))),
        skipped=skipped,
        ignored=ignored,
    )


def scan_files(
    files: Sequence[_File], class_names: Sequence[str], *, progress: Progress | None
) -> tuple[ImageSet, tuple[Skipped, ...]]:
    """Decode every file once for its id and thumbnail, and keep the pixels if they are small.

    The pixels stay in memory where all images have one size and fit into `MEMORY_BYTES`;
    otherwise they are decoded again when they are asked for.
    """
    limits = Limits()
    items: list[Item] = []
    positions: list[int] = []
    skipped: list[Skipped] = []
    thumbnails = np.empty((len(files), THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), np.uint8)
    kept: Pixels | None = None
    keep = True
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for start in range(0, len(files), _CHUNK):
            chunk = files[start : start + _CHUNK]
            for offset, result in enumerate(pool.map(lambda file: _read(file, limits), chunk)):
                if isinstance(result, Skipped):
                    skipped.append(result)
                    continue
                item, pixels, thumbnails[len(items)] = result
                if keep and kept is None:
                    keep = pixels.nbytes * len(files) <= MEMORY_BYTES
                    kept = np.empty((len(files), *pixels.shape), np.uint8) if keep else None
                if kept is not None:
                    if kept.shape[1:] == pixels.shape:
                        kept[start + offset] = pixels
                    else:
                        keep, kept = False, None
                items.append(item)
                positions.append(start + offset)
            if progress is not None:
                progress(min(start + _CHUNK, len(files)), len(files))
    store: PixelStore
    if kept is not None:
        store = ArrayStore(kept)
    else:
        store = FileStore(tuple(file.path for file in files), limits)
    images = ImageSet(
        class_names=class_names,
        items=items,
        store=store,
        thumbnails=thumbnails[: len(items)],
        positions=np.asarray(positions, np.int64),
    )
    return images, tuple(skipped)


def _read(file: _File, limits: Limits) -> tuple[Item, Pixels, Pixels] | Skipped:
    try:
        decoded = decode(file.path.read_bytes(), limits)
    except (ImageError, OSError) as error:
        return Skipped(name=file.name, reason=str(error))
    # The decoder has hashed the pixels already: this is `image_id(decoded.pixels)`.
    item = Item(id=decoded.sha256_pixels, label=file.label, group=file.group, name=file.name)
    return item, decoded.pixels, thumbnail(decoded.pixels)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def _split_folders(root: Path) -> tuple[list[Path], Path | None]:
    # Only where *every* subfolder is a split: "train" can also be a class, beside "car".
    folders = {entry.name: entry for entry in _subfolders(root)}
    if "train" not in folders or not set(folders) <= {"train", *TEST_FOLDERS}:
        return [root], None
    train, *others = (folders[name] for name in ("train", *TEST_FOLDERS) if name in folders)
    if not others:
        return [train], None
    return [train, *others[1:]], others[0]


def _class_names(roots: Iterable[Path]) -> list[str]:
    names = sorted({entry.name for root in roots for entry in _subfolders(root)})
    where = ", ".join(str(root) for root in roots)
    if not names:
        raise DataError(
            f"{where} has no class folders; expected one subfolder per class with its images "
            f"in it, such as {where}/cat/001.jpg"
        )
    if len(names) == 1:
        raise DataError(
            f"{where} has one class only ({names[0]}); a classifier needs at least two class "
            f"folders: add one"
        )
    return names


def _check_classes(
    root: Path, class_names: Sequence[str], files: Sequence[_File], what: str
) -> None:
    present = {file.label for file in files}
    empty = [name for label, name in enumerate(class_names) if label not in present]
    if empty:
        raise DataError(
            f"{root}: class {_listing(empty)} {what} ({', '.join(sorted(SUFFIXES))}) in the "
            f"training images; add some or remove the folder"
        )


def _list_files(
    root: Path, folder: Path, class_names: Sequence[str], group_by: str | None
) -> tuple[list[_File], int]:
    labels = {name: label for label, name in enumerate(class_names)}
    files: list[_File] = []
    ignored = 0
    for class_folder in _subfolders(folder):
        if class_folder.name not in labels:
            raise DataError(
                f"{class_folder} is not one of the training classes "
                f"({_listing(class_names)}); rename or remove it"
            )
        for path in sorted(class_folder.rglob("*")):
            if path.name.startswith(".") or not path.is_file():
                continue
            if path.suffix.lower() not in SUFFIXES:
                ignored += 1
                continue
            name = path.relative_to(root).as_posix()
            group = _group(name, path, class_folder, group_by)
            files.append(
                _File(path=path, name=name, label=labels[class_folder.name], group=group)
            )
    return files, ignored


def _group(name: str, path: Path, class_folder: Path, group_by: str | None) -> str:
    if group_by is None:
        return ""
    if group_by == "parent":
        if path.parent == class_folder:
            raise DataError(
                f"group-by parent: {name} lies directly in its class folder, so a class would "
                f"be one group; put each group into a subfolder such as "
                f"{class_folder.name}/lot7/{path.name}, or give a pattern such as 'lot(\\d+)'"
            )
        return path.parent.name
    match = re.search(group_by, name)
    if match is None or match.group(1) is None:
        raise DataError(
            f"group-by pattern {group_by!r} does not match {name}; every image needs a group: "
            f"widen the pattern or rename the file"
        )
    return match.group(1)


def check_group_by(group_by: str | None) -> None:
    """Refuse a pattern that is not a regular expression with exactly one group.

    Raises:
        DataError: It is not.
    """
    if group_by is None or group_by == "parent":
        return
    try:
        groups = re.compile(group_by).groups
    except re.error as error:
        raise DataError(
            f"group-by {group_by!r} is not a regular expression ({error}); expected 'parent' "
            f"or a pattern with one group such as 'lot(\\d+)'"
        ) from error
    if groups != 1:
        raise DataError(
            f"group-by {group_by!r} has {groups} groups in parentheses, expected one, such as "
            f"'lot(\\d+)'"
        )


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED_FILES])
    return shown if len(names) <= _NAMED_FILES else f"{shown} and {len(names) - _NAMED_FILES} more"


def _unreadable_message(skipped: Sequence[Skipped], total: int) -> str:
    named = "; ".join(f"{entry.name} ({entry.reason})" for entry in skipped[:_NAMED_FILES])
    more = f"; and {len(skipped) - _NAMED_FILES} more" if len(skipped) > _NAMED_FILES else ""
    return (
        f"{len(skipped)} of {total} files cannot be read: {named}{more}. Repair or remove them, "
        f"or go on without them with --skip-unreadable"
    )


# --- torchvision's formats -------------------------------------------------------------


def cifar_root(folder: Path) -> tuple[Path, int] | None:
    """(torchvision root, number of classes) if `folder` holds CIFAR's python pickles."""
    for base, classes in (("cifar-10-batches-py", 10), ("cifar-100-python", 100)):
        if folder.name == base:
            return folder.parent, classes
        if (folder / base).is_dir():
            return folder, classes
    return None


def read_cifar(root: Path, classes: int) -> DataSource:
    """CIFAR-10 or CIFAR-100 as torchvision lays it out.

    torchvision compares the files with its known checksums before it unpickles them.

    Raises:
        DataError: Files are missing or are not CIFAR's.
    """
    from torchvision.datasets import CIFAR10, CIFAR100

    dataset = CIFAR10 if classes == 10 else CIFAR100
    try:
        parts = [dataset(str(root), train=train, download=False) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{root} is laid out like CIFAR-{classes} but cannot be read: {error}; unpack the "
            f"python version of the archive again"
        ) from error
    sets = [
        ImageSet.from_array(part.data, class_names=part.classes, labels=part.targets, name=name)
        for part, name in zip(parts, ("train", "test"), strict=True)
    ]
    return DataSource(name=f"cifar{classes}", train=sets[0], test=sets[1])


def mnist_root(folder: Path) -> Path | None:
    """torchvision's root if `folder` holds MNIST's IDX files (``MNIST/raw``)."""
    if folder.name == "MNIST" and (folder / "raw").is_dir():
        return folder.parent
    return folder if (folder / "MNIST" / "raw").is_dir() else None


def read_mnist(root: Path) -> DataSource:
    """MNIST as torchvision lays it out: 28 x 28 grey, made RGB.

    Raises:
        DataError: Files are missing or malformed.
    """
    from torchvision.datasets import MNIST

    sets = []
    for name, train in (("train", True), ("test", False)):
        try:
            part = MNIST(str(root), train=train, download=False)
        except (RuntimeError, ValueError, AssertionError, OSError) as error:
            raise DataError(
                f"{root} is laid out like MNIST but cannot be read: {error}; put the four IDX "
                f"files (or their .gz) into {root / 'MNIST' / 'raw'}"
            ) from error
        classes = [entry.split(" - ")[0] for entry in part.classes]
        pixels = part.data.numpy()
        sets.append(
            ImageSet.from_array(
                pixels, class_names=classes, labels=part.targets.tolist(), name=name
            )
        )
    return DataSource(name="mnist", train=sets[0], test=sets[1])


# --- packaged data sets ----------------------------------------------------------------


def read_digits() -> DataSource:
    """scikit-learn's digits: 1,797 grey images of 8 x 8, values 0 ... 16 scaled to 0 ... 255."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    names = [str(name) for name in digits.target_names]
    images = ImageSet.from_array(pixels, class_names=names, labels=digits.target, name="digits")
    return DataSource(name="digits", train=images, test=None)


ELPV_CLASSES = ("defective", "functional")


def read_elpv(*, skip_unreadable: bool, progress: Progress | None) -> DataSource:
    """elpv-dataset: 2,624 photographs of solar cells, 300 x 300 grey, made RGB.

    The labels are averages of experts' answers: probability 0, 1/3, 2/3 or 1 of a defect.
    Only 106 images have 2/3, too few for classes of their own, so that the honest task is
    two classes: *defective* from probability 0.5 on, *functional* below. The data does not
    say which module a cell was cut from, so cells of one module can fall on two sides.

    Raises:
        DataError: The package is not installed, or its files cannot be read.
    """
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise DataError(
            "data 'elpv' needs the package elpv-dataset, which is not installed; install it "
            "with: pip install elpv-dataset"
        )
    folder = Path(spec.origin).parent / "data"
    files = []
    for line in (folder / "labels.csv").read_text(encoding="utf-8").splitlines():
        name, probability, _cell_type = line.split()
        label = ELPV_CLASSES.index("defective" if float(probability) >= 0.5 else "functional")
        files.append(_File(path=folder / name, name=name, label=label, group=""))
    images, skipped = scan_files(files, ELPV_CLASSES, progress=progress)
    if skipped and not skip_unreadable:
        raise DataError(_unreadable_message(skipped, len(files)))
    return DataSource(name="elpv", train=images, test=None, skipped=skipped)
