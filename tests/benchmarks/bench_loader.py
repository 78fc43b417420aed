"""How many images a second the training loader prepares: folders beside shards.

    python -m tests.benchmarks.bench_loader --data data/tiny-imagenet

Two kinds of images: Tiny ImageNet's own files with its recipe (shift, flip, colour, JPEG step),
and the same enlarged to 500x375 JPEG files with the recipe for ImageNet (a crop of random size
from the original at 224x224, flip). Images a second of wall time depend on what else the machine
does; images per second of processor time hardly do.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from PIL import Image

from ibinn.images import Preprocessing
from training.config import FitConfig
from training.data import open_data
from training.image_set import ImageSet
from training.loader import TrainLoader
from training.recipes import recipe
from training.shard_writer import write_shards

PHOTOGRAPH = (500, 375)
QUALITY = 90
BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """One measurement.

    Attributes:
        images: Images prepared.
        seconds: Wall time.
        cpu_s: Processor time of this process and its workers.
    """

    images: int
    seconds: float
    cpu_s: float


def rate(images: ImageSet, config: FitConfig, *, workers: int, batches: int) -> Rate:
    """Take batches as fast as they come; the first two are not counted."""
    loader = TrainLoader(
        images,
        Preprocessing(config.preprocessing),
        config.augment,
        batch_size=BATCH,
        seed=0,
        workers=workers,
    )
    stream = itertools.chain.from_iterable(loader.epoch(epoch) for epoch in itertools.count())
    for _ in range(2):
        next(stream)
    began, used = time.perf_counter(), _cpu_s()
    for _ in range(batches):
        next(stream)
    return Rate(images=batches * BATCH, seconds=time.perf_counter() - began, cpu_s=_cpu_s() - used)


def _cpu_s() -> float:
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return float(sum(entry.user + entry.system for entry in times))


def some_of(data: Path, out: Path, *, classes: int, each: int, enlarged: bool) -> None:
    """A folder with some of the images, as they are or enlarged to photographs."""
    for name in sorted(path.name for path in (data / "train").iterdir())[:classes]:
        (out / name).mkdir(parents=True)
        for number, path in enumerate(sorted((data / "train" / name).iterdir())[:each]):
            if enlarged:
                with Image.open(path) as image:
                    # Two sizes: images of one size would be kept decoded while there is room.
                    size = PHOTOGRAPH if number % 2 else PHOTOGRAPH[::-1]
                    large = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
                large.save(out / name / f"{path.stem}.jpg", quality=QUALITY)
            else:
                shutil.copy(path, out / name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/tiny-imagenet"))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    chosen = parser.parse_args(arguments)
    print("| images | from | workers | images/s | images per second of processor time |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, enlarged, batches in (("tiny-imagenet", False, 40), ("imagenet", True, 6)):
            config = recipe(name)
            data = Path(folder) / name
            some_of(
                chosen.data, data, classes=40, each=400 if not enlarged else 25, enlarged=enlarged
            )
            write_shards(open_data(str(data)), Path(folder) / f"{name}-shards")
            for what, place in (("JPEG files", data), ("shards", Path(f"{data}-shards"))):
                for workers in chosen.workers:
                    # Opened anew: nothing is decoded yet.
                    images = open_data(str(place)).train
                    found = rate(images, config, workers=workers, batches=batches)
                    print(
                        f"| {name} | {what} | {workers} | {found.images / found.seconds:,.0f} | "
                        f"{found.images / found.cpu_s:,.0f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
