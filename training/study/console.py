"""What a person sees of a study: run i of n, how long it will take, a line per run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn

from training.study.plan import Block, Run
from training.study.record import RunRecord, State
from training.study.summary import error

_LINE_EVERY_S = 60.0


class StudyConsole:
    """Progress of a study on standard error; shows nothing where `quiet`.

    Args:
        quiet: For all processes but the first.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = RichConsole(stderr=True, quiet=quiet)
        self._bar = Progress(
            TextColumn("run {task.fields[number]} of {task.fields[runs]}"),
            BarColumn(),
            TextColumn("{task.fields[what]}, {task.fields[left]} left"),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("study", total=1.0, number=0, runs=0, what="", left="?")
        self._runs: tuple[Run, ...] = ()
        self._open = 0
        self._number = 0
        self._seconds: list[float] = []
        self._started = 0.0
        self._last_line = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line, as it is."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def begin(self, runs: Sequence[Run], finished: int) -> None:
        """Say how many runs there are."""
        self._runs, self._open = tuple(runs), len(runs) - finished
        skipped = f", {finished} finished before" if finished else ""
        self.say(f"{len(runs)} runs{skipped}")
        self._bar.update(self._task, runs=len(runs))

    def opening(self, block: Block) -> None:
        """Say which data set is being read."""
        self.say(f"reading {block.name}: {block.words}")

    def run(self, run: Run, number: int) -> None:
        """Show which run begins."""
        self._number, self._started = number, time.monotonic()
        self._last_line = self._started
        self._bar.update(
            self._task, completed=0.0, number=number, what=_named(run), left=self._left(0.0)
        )

    def epochs(self, run: Run, epochs: float) -> None:
        """Show how far the run is."""
        share = epochs / run.block.config.epochs
        left = self._left(share)
        self._bar.update(self._task, completed=share, left=left)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line > _LINE_EVERY_S:
            self._last_line = now
            self.say(
                f"  {_named(run)}: {epochs:.2f} of {run.block.config.epochs} epochs, {left} left"
            )

    def done(self, run: Run, record: RunRecord) -> None:
        """Print a line for the run."""
        seconds = time.monotonic() - self._started
        self._seconds.append(seconds)
        self._open -= 1
        what = f"run {self._number} of {len(self._runs)}: {_named(run)}: "
        if record.state is State.FINISHED and record.figures is not None:
            bits = record.figures.bits_per_dim
            density = "" if bits is None else f", {bits:.2f} bits/dim"
            what += f"error {error(record.figures):.2f} %{density}"
        elif record.state is State.FAILED:
            what += f"failed: {record.reason}"
        else:
            what += f"stopped after {record.epochs:.2f} of {record.epochs_planned} epochs"
        self.say(f"{what}; {seconds:.1f} s; {self._left(1.0)} left")

    def _left(self, share: float) -> str:
        """Time left: the mean of the runs done in this session for each that is open."""
        if self._seconds:
            pace = sum(self._seconds) / len(self._seconds)
        elif share > 0.0:
            pace = (time.monotonic() - self._started) / share
        else:
            return "?"
        count = self._open if share >= 1.0 else max(self._open - share, 0.0)
        minutes, rest = divmod(int(pace * count), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{rest:02d}"


def _named(run: Run) -> str:
    return f"{run.block.name}, {run.entry.label}, seed {run.seed}"
