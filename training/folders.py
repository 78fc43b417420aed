"""Folders of image files: one subfolder per class.

Every file is decoded once when the folder is opened: for its content id and its thumbnail, and
so that an unreadable file is named before a job starts and not in its middle. What was found in
a large folder is remembered (`training.scan`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ibinn.decoding import Limits, decode
from ibinn.errors import DataError, ImageError
from training.image_set import (
    THUMBNAIL_SIDE,
    DataSource,
    FileStore,
    ImageSet,
    Item,
    Pixels,
    PixelStore,
    Skipped,
    thumbnail,
)
from training.imagenet_names import readable
from training.pixel_stores import KeptStore
from training.scan import REMEMBERED_FROM, Progress, remembered_scan

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})
TEST_FOLDERS = ("test", "val", "valid", "validation")
MEMORY_BYTES = 2 * 2**30
"""Images of one size are kept decoded up to this size, so that they are decoded once."""

_CHUNK = 256
_NAMED_FILES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """A file that is to be read as an image of a class."""

    path: Path
    name: str
    label: int
    group: str


def read_folder(
    root: Path, *, skip_unreadable: bool, group_by: str | None, progress: Progress | None
) -> DataSource:
    """A folder with one subfolder per class, or ``train/`` and ``test/`` folders of those.

    Folders called by WordNet ids (n01440764) get ImageNet's readable class names. Files are found
    at any depth below the class folder. ``val/``, ``valid/`` and
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
    files: list[ImageFile] = []
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

    readable_names = readable(class_names)
    images, skipped = scan_files(files, readable_names, progress=progress, root=root)
    if skipped and not skip_unreadable:
        raise DataError(unreadable_message(skipped, len(files)))
    lost = {entry.name for entry in skipped}
    left = [file for file in files[:train_count] if file.name not in lost]
    _check_classes(root, class_names, left, "holds no readable images")
    return DataSource(
        name=root.resolve().name,
        train=images.subset(range(len(left))),
        test=None if test_root is None else images.subset(range(len(left), len(images))),
        skipped=skipped,
        ignored=ignored,
    )


def scan_files(
    files: Sequence[ImageFile],
    class_names: Sequence[str],
    *,
    progress: Progress | None,
    root: Path | None = None,
) -> tuple[ImageSet, tuple[Skipped, ...]]:
    """Decode every file once for its id and thumbnail, and keep the pixels if they are small.

    The pixels stay in memory where all images have one size and fit into `MEMORY_BYTES`;
    otherwise they are decoded again when they are asked for.

    Args:
        files: What to read.
        class_names: What the labels are positions in.
        progress: Told how many images have been read.
        root: Folder under which the scan of many files is remembered; None: it is not.
    """
    if root is not None and len(files) >= REMEMBERED_FROM:
        return _scan_many(root, files, class_names, progress=progress)
    return _scan_few(files, class_names, progress=progress)


def _scan_many(
    root: Path,
    files: Sequence[ImageFile],
    class_names: Sequence[str],
    *,
    progress: Progress | None,
) -> tuple[ImageSet, tuple[Skipped, ...]]:
    limits = Limits()
    paths = tuple(file.path for file in files)
    found = remembered_scan(
        root, paths, [file.name for file in files], limits=limits, progress=progress
    )
    skipped = tuple(
        Skipped(name=files[position].name, reason=reason)
        for position, reason in sorted(found.reasons.items())
    )
    readable = np.array([i for i in range(len(files)) if i not in found.reasons], np.int64)
    sizes = found.sizes[readable]
    store: PixelStore = FileStore(paths, limits)
    one_size = len(sizes) > 0 and not (sizes != sizes[0]).any()
    if one_size and 3 * int(sizes[0].prod()) * len(files) <= MEMORY_BYTES:
        store = KeptStore(store, len(files), (int(sizes[0, 0]), int(sizes[0, 1])))
    images = ImageSet(
        class_names=class_names,
        items=[
            Item(
                id=found.ids[position].tobytes().hex(),
                label=files[position].label,
                group=files[position].group,
                name=files[position].name,
            )
            for position in readable.tolist()
        ],
        store=store,
        thumbnails=found.thumbnails if not skipped else found.thumbnails[readable],
        sizes=sizes,
        positions=readable,
    )
    return images, skipped


def _scan_few(
    files: Sequence[ImageFile], class_names: Sequence[str], *, progress: Progress | None
) -> tuple[ImageSet, tuple[Skipped, ...]]:
    limits = Limits()
    items: list[Item] = []
    positions: list[int] = []
    skipped: list[Skipped] = []
    thumbnails = np.empty((len(files), THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), np.uint8)
    sizes = np.empty((len(files), 2), np.int32)
    store = FileStore(tuple(file.path for file in files), limits)
    kept: KeptStore | None = None
    shape: tuple[int, ...] | None = None
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for start in range(0, len(files), _CHUNK):
            chunk = files[start : start + _CHUNK]
            for offset, result in enumerate(pool.map(lambda file: _read(file, limits), chunk)):
                if isinstance(result, Skipped):
                    skipped.append(result)
                    continue
                item, pixels, thumbnails[len(items)] = result
                sizes[len(items)] = pixels.shape[:2]
                if shape is None:
                    shape = pixels.shape
                    if pixels.nbytes * len(files) <= MEMORY_BYTES:
                        kept = KeptStore(store, len(files), (shape[0], shape[1]))
                if pixels.shape != shape:
                    kept = None
                if kept is not None:
                    kept.keep(start + offset, pixels)
                items.append(item)
                positions.append(start + offset)
            if progress is not None:
                progress(min(start + _CHUNK, len(files)), len(files))
    images = ImageSet(
        class_names=class_names,
        items=items,
        store=store if kept is None else kept,
        thumbnails=thumbnails[: len(items)],
        sizes=sizes[: len(items)],
        positions=np.asarray(positions, np.int64),
    )
    return images, tuple(skipped)


def _read(file: ImageFile, limits: Limits) -> tuple[Item, Pixels, Pixels] | Skipped:
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
    root: Path, class_names: Sequence[str], files: Sequence[ImageFile], what: str
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
) -> tuple[list[ImageFile], int]:
    labels = {name: label for label, name in enumerate(class_names)}
    files: list[ImageFile] = []
    ignored = 0
    for class_folder in _subfolders(folder):
        if class_folder.name not in labels:
            raise DataError(
                f"{class_folder} is not one of the training classes "
                f"({_listing(class_names)}); rename or remove it"
            )
        for path in sorted(_visible_files(class_folder)):
            if path.suffix.lower() not in SUFFIXES:
                ignored += 1
                continue
            name = path.relative_to(root).as_posix()
            group = _group(name, path, class_folder, group_by)
            files.append(
                ImageFile(path=path, name=name, label=labels[class_folder.name], group=group)
            )
    return files, ignored


def _visible_files(folder: Path) -> Iterator[Path]:
    # `Path.rglob` asks the disk about every file: minutes for a million of them.
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _visible_files(Path(entry.path))
            elif entry.is_file() and not entry.name.startswith("."):
                yield Path(entry.path)


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


def unreadable_message(skipped: Sequence[Skipped], total: int) -> str:
    """What is said when files cannot be read: how many, which (the first five), what to do."""
    named = "; ".join(f"{entry.name} ({entry.reason})" for entry in skipped[:_NAMED_FILES])
    more = f"; and {len(skipped) - _NAMED_FILES} more" if len(skipped) > _NAMED_FILES else ""
    return (
        f"{len(skipped)} of {total} files cannot be read: {named}{more}. Repair or remove them, "
        f"or go on without them with --skip-unreadable"
    )
