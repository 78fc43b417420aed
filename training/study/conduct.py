"""Runs a study: what is finished is skipped, what was begun goes on, what fails is written down."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lightning.fabric import Fabric

from ibinn.errors import ConfigError, DataError, IbinnError
from training.data import DataSource
from training.study import record as records
from training.study.execute import RunImages, execute, record_of
from training.study.images import DataFolder, ood_sets, open_block, prepared
from training.study.plan import Block, Run, Study, runs_of
from training.study.record import RunRecord, State

RUNS = "runs"
_FAILURE = "failure.txt"
_STARTED = "started.txt"


class Reporter(Protocol):
    """Who is told how a study goes."""

    def begin(self, runs: Sequence[Run], finished: int) -> None:
        """The study starts; so many of its runs are finished already."""

    def opening(self, block: Block) -> None:
        """A data set is being read."""

    def run(self, run: Run, number: int) -> None:
        """Run `number` (from 1) begins or goes on."""

    def epochs(self, run: Run, epochs: float) -> None:
        """So many epochs of the run are done."""

    def done(self, run: Run, record: RunRecord) -> None:
        """The run is over: finished, unfinished or failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conducted:
    """A study as far as it got.

    Attributes:
        study: The study.
        runs: Every run that was asked for.
        records: What there is of each, in the same order; None where nothing was begun.
    """

    study: Study
    runs: tuple[Run, ...]
    records: tuple[RunRecord | None, ...]

    @property
    def complete(self) -> bool:
        """Whether every run is finished or has failed."""
        over = (State.FINISHED, State.FAILED)
        return all(record is not None and record.state in over for record in self.records)


def conduct(
    study: Study,
    data: Path,
    out: Path,
    *,
    fabric: Fabric,
    reporter: Reporter,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] = (),
    stop_after_s: float | None = None,
) -> Conducted:
    """Run what is not finished.

    A run that failed is tried again by the next call; a data set that is not there fails its
    runs, and the others go on.

    Args:
        study: The study.
        data: Folder of the data sets, or of the only one.
        out: Folder of the study.
        fabric: Where to compute, launched.
        reporter: Who is told.
        seeds: Instead of the study's own.
        only: Names of models or data sets; empty: all.
        stop_after_s: Stop after about so many seconds; the same call goes on from there.

    Raises:
        ConfigError: A name or seed is unknown, or the folder cannot be made.
    """
    runs = runs_of(study, seeds=seeds, only=only)
    try:
        (out / RUNS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"out is {out}, which cannot be made ({error.strerror}); give a folder"
        ) from error
    started = time.monotonic()
    images = _Images(DataFolder(data), reporter.opening)
    reporter.begin(runs, sum(_finished(out, run) for run in runs))
    begun = False
    for number, run in enumerate(runs, start=1):
        if _finished(out, run):
            continue
        left = None if stop_after_s is None else stop_after_s - (time.monotonic() - started)
        if begun and left is not None and left <= 0.0:
            break
        begun = True  # every call gets somewhere, however short its time
        reporter.run(run, number)
        record = _attempt(run, out, images, fabric, left, reporter)
        reporter.done(run, record)
        if record.state is State.UNFINISHED:
            break
    return collected(study, runs, out)


def collected(study: Study, runs: Sequence[Run], out: Path) -> Conducted:
    """What lies in the folder of a study."""
    return Conducted(
        study=study,
        runs=tuple(runs),
        records=tuple(records.read(_folder(out, run), digest=run.digest) for run in runs),
    )


class _Images:
    """Images of the data set and seed in use; a data set is read once, and kept."""

    def __init__(self, data: DataFolder, opening: Callable[[Block], None]) -> None:
        self._data, self._opening = data, opening
        self._sources: dict[str, DataSource | DataError] = {}
        self._latest: tuple[tuple[str, int], RunImages] | None = None

    def of(self, run: Run) -> RunImages:
        """The images of a run.

        Raises:
            DataError: The data set is not there, or cannot be used.
        """
        key = (run.block.name, run.seed)
        if self._latest is None or self._latest[0] != key:
            source = self._source(run.block)
            images = prepared(run.block, source, seed=run.seed)
            sets = ood_sets(run.block, images, self._data, seed=run.seed)
            self._latest = (key, RunImages(prepared=images, sets=sets))
        return self._latest[1]

    def _source(self, block: Block) -> DataSource:
        if block.name not in self._sources:
            self._opening(block)
            try:
                self._sources[block.name] = open_block(block, self._data)
            except DataError as error:
                self._sources[block.name] = error
        found = self._sources[block.name]
        if isinstance(found, DataError):
            raise found
        return found


def _attempt(
    run: Run,
    out: Path,
    images: _Images,
    fabric: Fabric,
    left_s: float | None,
    reporter: Reporter,
) -> RunRecord:
    folder = _folder(out, run)
    try:
        _clear_another(folder, run)
        record = execute(
            run,
            images.of(run),
            folder,
            fabric=fabric,
            stop_after_s=left_s,
            progress=lambda epochs: reporter.epochs(run, epochs),
        )
    except Exception as error:  # noqa: BLE001 - a run is a job of its own, the next must go on
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _FAILURE).write_text(traceback.format_exc(), encoding="utf-8")
        kind = "" if isinstance(error, IbinnError) else f"{type(error).__name__}: "
        lines = str(error).splitlines() or ["no message"]
        record = record_of(run, state=State.FAILED, reason=f"{kind}{lines[0]}")
    records.write(record, folder)
    if record.state is State.FINISHED:
        for leftover in folder.iterdir():
            if leftover.name != records.FILE:
                leftover.unlink()
    return record


def _clear_another(folder: Path, run: Run) -> None:
    """Remove what another configuration left, so that no run goes on from a stranger's weights."""
    note = folder / _STARTED
    if folder.exists() and (not note.exists() or note.read_text("utf-8") != run.digest):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    records.write_text(note, run.digest)


def _finished(out: Path, run: Run) -> bool:
    found = records.read(_folder(out, run), digest=run.digest)
    return found is not None and found.state is State.FINISHED


def _folder(out: Path, run: Run) -> Path:
    return out / RUNS / run.path
