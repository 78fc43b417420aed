"""Old data and accepted feedback as one data set that every job can open again.

A folder, ``RUN/data``, that `training.data.open_data` takes like any other:

    composed.json   where the old data is, the classes, and one entry per new image
    split.json      roles of old and new images
    images/         the new images, as they were sent, by content

The old data is not copied: it has to stay where it is. Erasing an image from a server's records
does not erase it here; delete the folder and retrain from a new export for that.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ibinn.errors import DataError
from training.folders import ImageFile, scan_files, unreadable_message
from training.image_set import DataSource, ImageSet
from training.retraining.composition import Composition
from training.splits import Role, SplitManifest

FILE = "composed.json"
SPLIT_FILE = "split.json"
FORMAT_VERSION = 1
NAME_PREFIX = "feedback/"
"""What names of new images begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OldData:
    """How the old data was opened.

    Attributes:
        data: Folder or name.
        group_by: See `training.data.open_data`.
        skip_unreadable: Whether unreadable files are left out.
    """

    data: str
    group_by: str | None = None
    skip_unreadable: bool = False

    def absolute(self) -> OldData:
        """The same from any working folder."""
        folder = Path(self.data)
        return replace(self, data=str(folder.resolve())) if folder.is_dir() else self


def write_composed(folder: Path, composition: Composition, old: OldData) -> None:
    """Write the folder; ``composed.json`` comes last, so that half of one is never opened."""
    (folder / FILE).unlink(missing_ok=True)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    entries = []
    for item, entry, role in zip(
        composition.images.items, composition.labelled, composition.roles, strict=True
    ):
        path = entry.candidate.path
        assert path is not None
        name = f"images/{item.id[:2]}/{item.id}{path.suffix}"
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / name)
        entries.append(
            {
                "file": name,
                "id": item.id,
                "class": entry.class_name,
                "group": item.group,
                "record_id": entry.candidate.record_id,
                "source": entry.source,
                "test": role is Role.TEST,
            }
        )
    composition.split.save(folder / SPLIT_FILE)
    stated = old.absolute()
    content = {
        "format_version": FORMAT_VERSION,
        "old": {
            "data": stated.data,
            "group_by": stated.group_by,
            "skip_unreadable": stated.skip_unreadable,
        },
        "classes": list(composition.classes),
        "images": entries,
    }
    partial = folder / f".{FILE}.partial"
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(folder / FILE)


def is_composed(folder: Path) -> bool:
    """Whether a folder is one that `write_composed` wrote."""
    return (folder / FILE).is_file()


def recorded_split(data: str) -> SplitManifest | None:
    """The roles that a composed data set was written with; None for data of another kind.

    Raises:
        DataError: They cannot be read.
    """
    folder = Path(data)
    return SplitManifest.load(folder / SPLIT_FILE) if is_composed(folder) else None


def old_data(folder: Path) -> OldData:
    """Where the old data of a composed data set is.

    Raises:
        DataError: ``composed.json`` is malformed.
    """
    return _parts(folder)[0]


def read_composed(folder: Path, old: DataSource) -> DataSource:
    """The data set: the old images in their order, then the new ones.

    Args:
        folder: That `write_composed` wrote.
        old: The old data, opened.

    Raises:
        DataError: The folder or a file in it is not what was written.
    """
    _, classes, entries = _parts(folder)
    if classes[: len(old.train.class_names)] != old.train.class_names:
        raise DataError(
            f"{folder}: the old data has classes {', '.join(old.train.class_names)}; expected "
            f"the first of {', '.join(classes)}; it was changed since, put it back"
        )
    positions = {name: label for label, name in enumerate(classes)}
    try:
        files = [
            ImageFile(
                path=folder / entry["file"],
                name=f"{NAME_PREFIX}{entry['record_id']}",
                label=positions[entry["class"]],
                group=entry["group"],
            )
            for entry in entries
        ]
    except (KeyError, TypeError) as error:
        raise _malformed(folder, error) from error
    new, skipped = scan_files(files, classes, progress=None)
    if skipped:
        raise DataError(unreadable_message(skipped, len(files)))
    for item, entry in zip(new.items, entries, strict=True):
        if item.id != entry["id"]:
            raise DataError(
                f"{folder / entry['file']} has content id {item.id[:16]}…, {FILE} states "
                f"{str(entry['id'])[:16]}…; the file was changed, compose the data again"
            )
    test = [index for index, entry in enumerate(entries) if entry["test"]]
    rest = [index for index, entry in enumerate(entries) if not entry["test"]]
    train = old.train.with_items(old.train.items, class_names=classes)
    if old.test is None:
        return replace(old, name=folder.resolve().parent.name, train=train.joined(new))
    own_test: ImageSet = old.test.with_items(old.test.items, class_names=classes)
    return replace(
        old,
        name=folder.resolve().parent.name,
        train=train.joined(new.subset(rest)),
        test=own_test.joined(new.subset(test)),
    )


def _parts(folder: Path) -> tuple[OldData, tuple[str, ...], Sequence[dict[str, Any]]]:
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            raise DataError(
                f"{folder / FILE}: format version is {content['format_version']!r}, expected "
                f"{FORMAT_VERSION}; compose the data again with this version"
            )
        return OldData(**content["old"]), tuple(content["classes"]), list(content["images"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _malformed(folder, error) from error


def _malformed(folder: Path, error: Exception) -> DataError:
    return DataError(
        f"{folder / FILE} is malformed ({type(error).__name__}: {error}); compose the data again"
    )
