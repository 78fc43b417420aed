"""Sample images as encoded bytes: what they show, and where they come from (see README.md).

Thumbnails are files of this package, photographs are read from the installed scikit-image,
the digit and the noise are drawn on request. Nothing is downloaded, and importing does nothing.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ibinn.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_PHOTOGRAPHS = (
    ("chelsea.png", "a cat"),
    ("rocket.jpg", "a rocket launch"),
    ("coffee.png", "a cup of coffee"),
    ("astronaut.png", "an astronaut"),
)


class SampleKind(StrEnum):
    """Where a sample comes from."""

    THUMBNAIL = "thumbnail"
    """CIFAR-10 test image: in-distribution for the embedded bundle."""
    PHOTOGRAPH = "photograph"
    """Photograph of ordinary size; what it shows need not be a class of the model."""
    DIGIT = "digit"
    """Handwritten digit: out-of-distribution for the embedded bundle."""
    NOISE = "noise"
    """Uniform noise: out-of-distribution for every model of photographs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample image.

    Attributes:
        name: File name, such as ``cat-0012.jpg``.
        kind: Where it comes from.
        shows: What is on it, in words; the data set's label for a thumbnail.
        data: The encoded image.
    """

    name: str
    kind: SampleKind
    shows: str
    data: bytes


def thumbnails() -> tuple[Sample, ...]:
    """All thumbnails of ``thumbnails/``, by name; ``CLASS-NUMBER.jpg`` shows ``CLASS``."""
    folder = resources.files(__name__) / "thumbnails"
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".jpg")),
        key=lambda file: file.name,
    )
    return tuple(
        Sample(
            name=file.name,
            kind=SampleKind.THUMBNAIL,
            shows=file.name.rpartition("-")[0],
            data=file.read_bytes(),
        )
        for file in files
    )


def photographs() -> tuple[Sample, ...]:
    """Photographs that lie inside the installed scikit-image.

    The files are read directly: `skimage.data` would download one that is missing.

    Raises:
        DataError: scikit-image is not installed, or does not bring a photograph along.
    """
    folder = _package_folder("skimage", install="scikit-image") / "data"
    return tuple(
        Sample(name=name, kind=SampleKind.PHOTOGRAPH, shows=shows, data=_read(folder / name))
        for name, shows in _PHOTOGRAPHS
    )


def digit(index: int = 0, *, enlarged: int = 4) -> Sample:
    """Handwritten digit number ``index`` of scikit-learn's 1,797, dark on white, PNG.

    Args:
        index: Position in `sklearn.datasets.load_digits`, 0 to 1796.
        enlarged: Side of the square that each of the 8 × 8 values becomes. The default gives
            32 × 32, the embedded bundle's input, so that no resizing blurs the edges.

    Raises:
        DataError: There is no digit with this number, or scikit-learn is not installed.
    """
    import numpy as np

    # The file that `load_digits` reads: importing scikit-learn for one image takes seconds.
    file = _package_folder("sklearn", install="scikit-learn") / "datasets/data/digits.csv.gz"
    rows = gzip.decompress(_read(file)).decode("ascii").splitlines()
    if not 0 <= index < len(rows):
        raise DataError(f"digit number {index} does not exist; choose 0 to {len(rows) - 1}")
    # 8×8 grey levels from 0 (paper) to 16 (ink) and the digit, enlarged without smoothing.
    *values, target = (int(float(value)) for value in rows[index].split(","))
    ink = np.array(values, dtype=np.float64).reshape(8, 8) / 16.0
    paper = np.rint(255.0 * (1.0 - ink)).astype(np.uint8)
    pixels = paper.repeat(enlarged, axis=0).repeat(enlarged, axis=1)
    return Sample(
        name=f"digit-{index:04d}.png",
        kind=SampleKind.DIGIT,
        shows=f"a handwritten {target}",
        data=_png(pixels),
    )


def noise(seed: int = 0, *, side: int = 32) -> Sample:
    """Colour noise, each value uniform in 0..255, ``side`` × ``side`` pixels, PNG.

    Args:
        seed: Seed of the generator; the same seed gives the same image.
        side: Side in pixels. The default is the embedded bundle's, so that no resizing
            averages the noise away.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Sample(
        name=f"noise-{seed:04d}.png", kind=SampleKind.NOISE, shows="noise", data=_png(pixels)
    )


def all_samples() -> tuple[Sample, ...]:
    """Thumbnails, photographs, one digit and one noise image, in this order."""
    return (*thumbnails(), *photographs(), digit(), noise())


def _package_folder(name: str, *, install: str) -> Path:
    """Folder of an installed package, found without importing it."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"{install} is not installed, expected it for the sample images; "
            f"install it with: pip install {install}"
        )
    return Path(spec.submodule_search_locations[0])


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"{file.name} is not in {file.parent}, expected it there in the installed package; "
            "install the versions that constraints.txt names"
        ) from error


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
