"""Images in class folders, for a model whose classes are given.

Unlike `training.data.open_data`, which makes the classes from the folders, folders are looked up
among the model's classes: by name, or by WordNet id for ImageNet's. Some classes may be absent.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ibinn.errors import DataError
from training import imagenet_names
from training.duplicates import find_duplicates
from training.folders import SUFFIXES, ImageFile, scan_files, unreadable_message
from training.image_set import ImageSet, Skipped
from training.scan import Progress

_NAMED = 5


def read_class_folders(
    root: Path,
    classes: Sequence[str],
    *,
    most: int | None = None,
    seed: int = 0,
    skip_unreadable: bool = False,
    progress: Progress | None = None,
) -> tuple[ImageSet, tuple[Skipped, ...]]:
    """The images in a folder of class folders, with the labels of a model's classes.

    Args:
        root: The folder; each subfolder is called like a class (spaces may be underscores), or
            by its WordNet id where the classes are ImageNet's.
        classes: The model's classes, in index order.
        most: Take so many images, of all classes alike by their shares; None: all.
        seed: Of which ones are taken.
        skip_unreadable: Go on without the files that cannot be read.
        progress: Told how many images have been read.

    Returns:
        The images, and the files that were skipped.

    Raises:
        DataError: No such folder, no image in it, a subfolder that is no class, or files that
            cannot be read.
    """
    files = _chosen(_files(root, classes), most, seed=seed)
    whole = root if most is None else None  # the scan of a part is not worth remembering
    images, skipped = scan_files(files, classes, progress=progress, root=whole)
    if skipped and not skip_unreadable:
        raise DataError(unreadable_message(skipped, len(files)))
    if not len(images):
        raise DataError(f"{root}: none of its {len(files)} images can be read")
    return images, skipped


def halves(images: ImageSet, *, seed: int) -> tuple[ImageSet, ImageSet]:
    """Two parts of about equal size, alike in their classes, near-duplicates on one side."""
    ids = [item.id for item in images.items]
    clusters = find_duplicates(ids, images.thumbnails).cluster
    members: dict[int, list[int]] = {}
    for index in sorted(range(len(ids)), key=lambda index: _rank(seed, ids[index])):
        members.setdefault(int(clusters[index]), []).append(index)
    parts: tuple[list[int], list[int]] = ([], [])
    given = np.zeros((2, len(images.class_names)), np.int64)
    labels = images.labels
    # The largest groups first: single images even out what they leave. Unlike the parts of a
    # training run's split, neither part needs an image of every class.
    for group in sorted(members.values(), key=len, reverse=True):
        of_group = labels[group]
        part = min((0, 1), key=lambda part: (given[part, of_group].sum(), len(parts[part])))
        parts[part].extend(group)
        np.add.at(given[part], of_group, 1)
    first, second = (images.subset(sorted(part)) for part in parts)
    return first, second


def folder_labels(classes: Sequence[str]) -> Mapping[str, int]:
    """Label by the name that a folder may have."""
    labels = {name.replace(" ", "_"): label for label, name in enumerate(classes)}
    if len(classes) == imagenet_names.COUNT and tuple(classes) == imagenet_names.class_names():
        labels |= {wnid: label for label, wnid in enumerate(imagenet_names.wordnet_ids())}
    return labels | {name: label for label, name in enumerate(classes)}


def _files(root: Path, classes: Sequence[str]) -> list[ImageFile]:
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root} {problem}; expected a folder with one subfolder per class")
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    labels = folder_labels(classes)
    if unknown := [folder.name for folder in folders if folder.name not in labels]:
        inner = sorted({"train", "val", "test"}.intersection(unknown))
        advice = (
            f"give the folder that holds the class folders, such as {root / inner[0]}"
            if inner
            else "rename or remove it"
        )
        raise DataError(
            f"{root / unknown[0]} is not called like a class of the model ({_some(classes)}"
            f"{_wordnet_words(labels)}); {advice}"
        )
    files = [
        ImageFile(
            path=path, name=path.relative_to(root).as_posix(), label=labels[folder.name], group=""
        )
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    if not files:
        raise DataError(
            f"{root} has no images ({', '.join(sorted(SUFFIXES))}) in class folders; expected such "
            f"as {root / classes[0].replace(' ', '_') / '001.jpg'}"
        )
    return files


def _chosen(files: list[ImageFile], most: int | None, *, seed: int) -> list[ImageFile]:
    """Of every class the same share, the first ones in an order by the hash of their names."""
    if most is None or len(files) <= most:
        return files
    order = sorted(range(len(files)), key=lambda index: _rank(seed, files[index].name))
    sizes, seen = Counter(file.label for file in files), Counter[int]()
    share: dict[int, float] = {}
    for index in order:
        label = files[index].label
        share[index] = (seen[label] + 0.5) / sizes[label]
        seen[label] += 1
    taken = sorted(order, key=lambda index: share[index])[:most]  # a stable sort
    return [files[index] for index in sorted(taken)]


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _some(classes: Sequence[str]) -> str:
    more = f" and {len(classes) - _NAMED} more" if len(classes) > _NAMED else ""
    return ", ".join(classes[:_NAMED]) + more


def _wordnet_words(labels: Mapping[str, int]) -> str:
    return ", or their WordNet ids" if "n01440764" in labels else ""
