"""IB-INN-50 and the embedded model: speed beside ResNet-50, agreement, costs, memory, serving.

    python -m tests.benchmarks.bench --out out/benchmarks.json

Under ten minutes on two quiet cores. The JSON is flat: a dotted name -> value, unit, low and high
(ends of the 95 % interval, null where there is none), and how it was measured. Whatever is compared
alternates in one process, and the median over the rounds counts: how busy the machine is cancels in
ratios, and in nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.benchmarks.imagenet import machine
from tests.benchmarks.imagenet.figures import Figure, Figures

if TYPE_CHECKING:
    from ibinn.classifier import GenerativeClassifier
    from ibinn.trusted import TrustedClassifier

# Nothing above imports torch: how its threads wait is settled by then.

SECONDS = 10.0
QUICK_S = 1.0
LIMIT_S = 540.0
"""No further section begins after this time."""


@dataclass
class Work:
    """What sections share: settings, and material that the first to need it makes.

    Attributes:
        seconds: For each measurement.
        quick: Whether only to see that everything works.
        compiled: Which networks the compiler gets: ``none``, ``theirs`` or ``all``.
        folder: For bundles.
        told: Hears what is being done.
    """

    seconds: float
    quick: bool
    compiled: Literal["none", "theirs", "all"]
    folder: Path
    told: Callable[[str], None] = field(default=lambda line: None)

    @cached_property
    def model(self) -> GenerativeClassifier:
        """IB-INN-50."""
        from tests.benchmarks.imagenet import material

        self.told("making IB-INN-50")
        return material.model()

    @cached_property
    def bundle(self) -> Path:
        """IB-INN-50 with a calibration, as a bundle."""
        from tests.benchmarks.imagenet import material

        folder = self.folder / "ib-inn-50"
        model = self.model
        self.told("writing a bundle of IB-INN-50")
        material.write_bundle(model, folder, calibrated=True)
        return folder

    @cached_property
    def classifier(self) -> TrustedClassifier:
        """IB-INN-50 as a server loads it."""
        from ibinn import bundle

        folder = self.bundle
        self.told("loading IB-INN-50")
        return bundle.load(folder, engine="auto")

    def embedded(self, *, fast: bool) -> TrustedClassifier:
        """The embedded model."""
        from ibinn import bundle

        return bundle.load(bundle.embedded_path(), engine="auto" if fast else "plain")


def forward(work: Work) -> list[Figure]:
    """``cpu.*``"""
    from tests.benchmarks.imagenet import forward

    return forward.measure(
        work.model.network, seconds=work.seconds, compiled=work.compiled, told=work.told
    )


def agreement(work: Work) -> list[Figure]:
    """``agreement.*``"""
    from tests.benchmarks.imagenet import agreement

    found = agreement.of_ib_inn_50(work.model, work.classifier.form)
    work.told("agreement of the embedded model")
    return [*found, *agreement.of_embedded()]


def scoring(work: Work) -> list[Figure]:
    """``scoring.*`` and ``explain.*``"""
    from tests.benchmarks.imagenet import scoring

    found = scoring.measure(work.classifier, "ib_inn_50", seconds=work.seconds)
    work.told("scoring of the embedded model")
    found += scoring.measure(work.embedded(fast=True), "embedded", seconds=work.seconds / 2)
    pairs = 3 if work.quick else 40
    return found + scoring.of_embedded(work.embedded(fast=False), pairs=pairs)


def training(work: Work) -> list[Figure]:
    """``training.*``"""
    from tests.benchmarks.imagenet import steps

    found = []
    for case in steps.CASES:
        work.told(f"training {case.name}")
        found += steps.measure(case, seconds=work.seconds / 2)
    return found


def memory(work: Work) -> list[Figure]:
    """``memory.*``, ``load.*`` and ``cold_start.*``"""
    from ibinn import bundle
    from tests.benchmarks.imagenet import processes

    times = 1 if work.quick else 3
    folder = work.bundle
    work.told("loading and one request")
    found = processes.measure(folder, "ib_inn_50", engines=("auto", "plain"), times=times)
    found += processes.measure(bundle.embedded_path(), "embedded", engines=("auto",), times=times)
    work.told("cold start")
    found += processes.cold_start(folder, "ib_inn_50", times=times)
    return found + processes.cold_start(None, "embedded", times=times)


def served(work: Work) -> list[Figure]:
    """``served.*``"""
    from ibinn import bundle
    from tests.benchmarks.imagenet import served

    found = []
    for name, folder in (("ib_inn_50", work.bundle), ("embedded", None)):
        work.told(f"serving {name}")
        preparer = bundle.load(folder or bundle.embedded_path()).preparer
        found += served.measure(folder, name, preparer, seconds=work.seconds)
    return found


def accelerator(work: Work) -> list[Figure]:
    """``gpu.*``, where there is one"""
    from tests.benchmarks.imagenet import accelerator

    return accelerator.measure(work.model.network, seconds=work.seconds, told=work.told)


SECTIONS: tuple[Callable[[Work], list[Figure]], ...] = (
    forward,
    agreement,
    memory,
    served,
    scoring,
    training,
    accelerator,
)
"""In the order of how much they are missed where time runs out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; returns 1 where a section failed or, unless quick, a bar is missed."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    if options.show is not None:
        _show(Figures.from_json(options.show.read_text("utf-8")), options)
        return 0
    # As `ibinn-serve` has it; has no effect once torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    threads = options.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    figures = Figures()
    figures.add(*machine.described(threads), machine.load_average("before"))
    sections = [one for one in SECTIONS if not options.only or one.__name__ in options.only]
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ibinn-bench-") as folder:
        work = Work(
            seconds=options.seconds or (QUICK_S if options.quick else SECONDS),
            quick=options.quick,
            compiled=options.compiled or ("none" if options.quick else "theirs"),
            folder=Path(folder),
        )
        failed, skipped = _run(sections, work, figures, console, limit_s=options.limit)
    figures.add(
        machine.load_average("after"),
        Figure(
            name="bench.seconds",
            value=round(time.monotonic() - start, 1),
            unit="s",
            how=f"all sections, {work.seconds:g} s for each measurement"
            + (", quick: too short for figures to be told" if options.quick else ""),
        ),
        Figure(name="bench.failed", value=", ".join(failed) or "none", how="sections"),
        Figure(
            name="bench.skipped",
            value=", ".join(skipped) or "none",
            how=f"sections that did not begin within {options.limit:g} s",
        ),
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(figures.to_json(), encoding="utf-8")
    _show(figures, options)
    console.print(f"written to {options.out}")
    return 1 if failed or (figures.missed() and not options.quick) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [one.__name__ for one in SECTIONS]
    parser.add_argument("--out", type=Path, default=Path("benchmarks.json"))
    parser.add_argument("--seconds", type=float, help=f"for each measurement ({SECONDS:g})")
    parser.add_argument("--quick", action="store_true", help="only see that everything works")
    parser.add_argument("--only", choices=names, action="append", help="this section; repeat it")
    parser.add_argument("--threads", type=int, help="of a forward pass (as many as cores)")
    parser.add_argument(
        "--compiled",
        choices=("none", "theirs", "all"),
        help="what torch.compile gets, a minute each: ResNet-50 (default), IB-INN-50 too, or "
        "nothing (default if quick)",
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=LIMIT_S,
        help=f"no section begins after so many seconds ({LIMIT_S:g})",
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--how", action="store_true", help="print how each figure was measured")
    parser.add_argument("--show", type=Path, metavar="JSON", help="print an earlier run's figures")
    return parser


def _run(
    sections: Sequence[Callable[[Work], list[Figure]]],
    work: Work,
    figures: Figures,
    console: Console,
    *,
    limit_s: float,
) -> tuple[list[str], list[str]]:
    """Runs sections one after the other; returns names of those that failed and were skipped."""
    start = time.monotonic()
    failed, skipped = [], []
    with _progress(console, len(sections)) as (told, done):
        for section in sections:
            name = section.__name__
            if time.monotonic() - start > limit_s:
                skipped.append(name)
                continue
            work.told = lambda line, name=name: told(f"{name}: {line}")
            work.told("begins")
            try:
                figures.add(*section(work))
            except Exception:  # noqa: BLE001 - the other sections' figures are worth having
                failed.append(name)
                console.print(f"{name} failed:\n{traceback.format_exc()}", markup=False)
            done()
    return failed, skipped


@contextlib.contextmanager
def _progress(
    console: Console, total: int
) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """A bar on a terminal, lines elsewhere."""
    if not console.is_terminal:
        start = time.monotonic()

        def told(line: str) -> None:
            console.print(f"{time.monotonic() - start:6.0f} s  {line}", markup=False)

        yield told, lambda: None
        return
    columns = (
        MofNCompleteColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total)
        yield (
            lambda line: progress.update(task, description=line),
            lambda: progress.advance(task),
        )


def _show(figures: Figures, options: argparse.Namespace) -> None:
    if options.markdown:
        print(figures.markdown(), end="")
    else:
        # A figure's name must not be cut where output is not a terminal.
        wide = Console(width=None if sys.stdout.isatty() else 200)
        wide.print(figures.table(how=options.how))
    for line in figures.missed():
        print(f"MISSED  {line}")


if __name__ == "__main__":
    sys.exit(main())
