"""Data sets in torchvision's formats and in installed packages; nothing here downloads."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from ibinn.errors import DataError
from training.folders import ImageFile, scan_files, unreadable_message
from training.image_set import DataSource, ImageSet
from training.scan import Progress


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
        files.append(ImageFile(path=folder / name, name=name, label=label, group=""))
    images, skipped = scan_files(files, ELPV_CLASSES, progress=progress)
    if skipped and not skip_unreadable:
        raise DataError(unreadable_message(skipped, len(files)))
    return DataSource(name="elpv", train=images, test=None, skipped=skipped)
