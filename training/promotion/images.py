"""The operator's acceptance set and the out-of-distribution sets: read once, checked, named."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ibinn.errors import DataError
from training.folders import SUFFIXES, ImageFile, scan_files, unreadable_message
from training.image_set import ImageSet
from training.splits import Role, SplitManifest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldImages:
    """Class folders, or one folder per kind of image.

    Attributes:
        folder: Where they are.
        images: In order of the folders' names.
        digest: sha256 (hex) of every image's folder name and decoded pixels; names, encodings and
            order of the files are not in it.
    """

    folder: Path
    images: ImageSet
    digest: str

    @property
    def names(self) -> npt.NDArray[np.str_]:
        """Folder name per image (N,)."""
        return np.array(self.images.class_names)[self.images.labels]

    @property
    def ids(self) -> tuple[str, ...]:
        """Content id per image."""
        return tuple(item.id for item in self.images.items)

    def positions(self, name: str) -> npt.NDArray[np.int64]:
        """Places of the images of a folder."""
        return np.flatnonzero(self.names == name)


def read_held(folder: Path, *, option: str) -> HeldImages:
    """The images in the sub-folders of a folder, at any depth below each.

    Args:
        folder: The folder.
        option: Of the command line that named it, for messages.

    Raises:
        DataError: It holds no sub-folders, an empty one, a file that cannot be read, or the same
            image twice: images that are counted must be independent of each other.
    """
    if not folder.is_dir():
        raise DataError(f"{option} {folder} is not a folder; expected one folder per class or kind")
    parents = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    files = [
        ImageFile(path=path, name=path.relative_to(folder).as_posix(), label=label, group="")
        for label, parent in enumerate(parents)
        for path in sorted(parent.rglob("*"))
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    empty = sorted({p.name for p in parents} - {parents[file.label].name for file in files})
    if not files or empty:
        raise DataError(
            f"{option} {folder / (empty[0] if empty else '')} holds no images "
            f"({', '.join(sorted(SUFFIXES))}); expected {folder.name}/NAME/IMAGE; add some, or "
            "remove the folder"
        )
    images, skipped = scan_files(files, [parent.name for parent in parents], progress=None)
    if skipped:
        raise DataError(f"{option} {folder}: {unreadable_message(skipped, len(files))}")
    seen: dict[str, str] = {}
    for item in images.items:
        if item.id in seen:
            raise DataError(
                f"{option} {folder}: {item.name} and {seen[item.id]} are the same image; each may "
                "count once: remove one"
            )
        seen[item.id] = item.name
    named = sorted(f"{images.class_names[item.label]}/{item.id}" for item in images.items)
    digest = hashlib.sha256("\n".join(named).encode()).hexdigest()
    return HeldImages(folder=folder, images=images, digest=digest)


def refuse_seen(held: HeldImages, candidate: Path) -> None:
    """Refuse an acceptance set of which the candidate's run has used images, where that is known.

    A run keeps ``split.json`` beside its bundle, or in ``data/`` beside it.

    Raises:
        DataError: An image is among the run's training, validation or calibration images.
    """
    run = candidate.resolve().parent
    used = {
        id_: role
        for path in (run / "split.json", run / "data" / "split.json")
        if path.is_file()
        for role, ids in SplitManifest.load(path).roles.items()
        if role is not Role.TEST
        for id_ in ids
    }
    if wrong := [item for item in held.images.items if item.id in used]:
        raise DataError(
            f"{len(wrong):,} acceptance images were used by the candidate's run, such as "
            f"{wrong[0].name} ({used[wrong[0].id].value}); it knows them: keep them out of "
            "training and calibration, or take other images"
        )
