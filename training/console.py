"""What a person sees of a run: a progress bar, lines at epoch ends, TensorBoard curves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch.utils.tensorboard import SummaryWriter

from training.checkpoint import CurvePoint
from training.data import DataSource
from training.splits import SplitManifest

_LINE_EVERY_S = 60.0


class Console:
    """Progress of a run on the terminal, in TensorBoard, and as JSON lines in its folder.

    Args:
        out: Folder of the run; gets ``tensorboard/`` and ``curve.jsonl``.
        quiet: Show and write nothing, for all processes but the first.
    """

    def __init__(self, out: Path, *, quiet: bool = False) -> None:
        self._out, self._quiet = out, quiet
        self._console = RichConsole(stderr=True, quiet=quiet)
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(
                "{task.fields[rate]} images/s{task.fields[waits]}, {task.fields[left]} left"
            ),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("train", total=None, rate="?", waits="", left="?")
        self._writer: SummaryWriter | None = None
        self._started: tuple[float, int] | None = None
        self._last_line = 0.0

    def __enter__(self) -> Self:
        if not self._quiet and self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if self._writer is not None:
            self._writer.close()

    def say(self, text: str) -> None:
        """Print a line, as it is: no wrapping, and brackets in file names are no markup."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def data(self, source: DataSource, manifest: SplitManifest) -> None:
        """Say what the run trains on."""
        counts = ", ".join(
            f"{len(ids):,} {role.replace('_', ' ')}" for role, ids in manifest.roles.items()
        )
        self.say(f"{source.name}: {len(source.train.class_names)} classes; images: {counts}")
        if manifest.excluded:
            self.say(
                f"{len(manifest.excluded):,} training images are left out: the test set has the "
                "same image or group"
            )
        if source.skipped:
            self.say(
                f"{len(source.skipped):,} unreadable files skipped, such as "
                f"{source.skipped[0].name}: {source.skipped[0].reason}"
            )

    def evaluation(self, what: str, done: int, total: int) -> None:
        """Show how far the evaluation is."""
        self._bar.update(
            self._task, completed=done, total=total, rate="?", left=what, description=what
        )

    def begin(self, curve: Sequence[CurvePoint]) -> None:
        """Take up the curves where the checkpoint left them.

        A run that was killed has written points after its last checkpoint; they come again.
        """
        if self._quiet:
            return
        after = curve[-1].step + 1 if curve else 0
        self._writer = SummaryWriter(str(self._out / "tensorboard"), purge_step=after)
        partial = self._out / ".curve.jsonl.partial"
        partial.write_text("".join(map(_line, curve)))
        partial.replace(self._out / "curve.jsonl")
        if curve:
            self.say(f"going on after step {curve[-1].step:,}")

    def step(self, step: int, total: int, images_per_s: float, loader_share: float) -> None:
        """Advance the bar; the time left follows from this session's own pace."""
        now = time.monotonic()
        if self._started is None:
            self._started = (now, step)
        since, first = self._started
        pace = (now - since) / (step - first) if step > first else 0.0
        left = _duration(pace * (total - step)) if pace else "?"
        rate, waits = _rate(images_per_s), f" ({loader_share:.0%} waiting for images)"
        self._bar.update(self._task, completed=step, total=total, rate=rate, waits=waits, left=left)
        if not self._console.is_terminal and now - self._last_line > _LINE_EVERY_S:
            self._last_line = now
            self.say(f"step {step}/{total}, {rate} images/s{waits}, {left} left")

    def point(self, point: CurvePoint) -> None:
        """Write a point of the curves; print a line where an epoch ends."""
        if self._writer is None:
            return
        for key, value in _values(point).items():
            self._writer.add_scalar(key, value, point.step)
        with (self._out / "curve.jsonl").open("a") as file:
            file.write(_line(point))
        if point.validation_accuracy is not None:
            self.say(
                f"epoch {point.epoch:.0f}: loss {point.loss:.3f}, training accuracy "
                f"{point.accuracy:.1%}, validation accuracy {point.validation_accuracy:.1%}, "
                f"{point.validation_bits_per_dim:.2f} bits/dim, {_rate(point.images_per_s)} "
                f"images/s ({point.loader_share or 0.0:.0%} waiting for images)"
            )


@contextmanager
def counting(what: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show how far a count of things is: a bar on a terminal, a line a minute elsewhere.

    Yields:
        What to call with (done, in all).
    """
    console = RichConsole(stderr=True, quiet=quiet)
    bar = Progress(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), console=console, transient=True
    )
    task = bar.add_task(what, total=None)
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        bar.update(task, completed=done, total=total)
        if not console.is_terminal and time.monotonic() - last > _LINE_EVERY_S:
            last = time.monotonic()
            console.print(f"{what}: {done:,} of {total:,}", highlight=False)

    if console.is_terminal and not quiet:
        with bar:
            yield show
    else:
        yield show


def _values(point: CurvePoint) -> dict[str, float]:
    return {key: value for key, value in asdict(point).items() if value is not None}


def _line(point: CurvePoint) -> str:
    return json.dumps(_values(point)) + "\n"


def _rate(images_per_s: float) -> str:
    return f"{images_per_s:.0f}" if images_per_s >= 20 else f"{images_per_s:.2g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
