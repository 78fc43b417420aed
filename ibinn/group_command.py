"""The command `ibinn judge-group`: folders of images judged as sets, and their unknown images.

Importing this module imports no torch: the classifier is loaded when the command runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group as Lines
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ibinn import sources
from ibinn.errors import ConfigError, DataError, ImageError, NotCalibratedError
from ibinn.folder import SUFFIXES
from ibinn.json_lines import json_line
from ibinn.rendering import printable
from ibinn.terminal import complain, console, reported_errors

if TYPE_CHECKING:
    from ibinn.ood.group_test import GroupAnswer, GroupScores
    from ibinn.trusted import TrustedClassifier

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per folder.")]
_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownImage:
    """An image of a list that is named unknown.

    Attributes:
        image: Its file.
        p_value: Of the combined test.
        p_adjusted: Adjusted by Benjamini and Hochberg over the list.
    """

    image: str
    p_value: float
    p_adjusted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedGroup:
    """A folder's images together, and which of them are unknown.

    Attributes:
        answer: The verdict on the set.
        unknown: Images named unknown, the most unusual first.
        false_discovery_rate: q; at most this share of `unknown` is expected to be usual.
        fewest_found: Fewer unknown images than this cannot be named in a list of this length.
        unreadable: Files that could not be read.
    """

    answer: GroupAnswer
    unknown: tuple[UnknownImage, ...]
    false_discovery_rate: float
    fewest_found: int
    unreadable: int


def judge_group(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", show_default=False)],
    bundle: Annotated[
        Path | None,
        typer.Option(help="Load this bundle instead of the embedded one.", metavar="DIR",
                     show_default=False),
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="Chance of flagging a folder whose images are usual.")
    ] = 0.01,
    q: Annotated[
        float, typer.Option(help="False discovery rate of the list of unknown images.")
    ] = 0.1,
    as_json: AsJson = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:  # fmt: skip
    """Judge the images of each DIR together: are they still like the calibration images?

    Below the verdict stand the images that are unknown one by one, with a bound on the share of
    usual ones among them. Each folder is judged on its own, at its own significance.
    """
    failed = False
    with reported_errors():
        listed = [(folder, _images_in(folder)) for folder in folders]
        classifier = sources.load_classifier(bundle, None)
        for folder, paths in listed:
            judged = _judged(classifier, paths, alpha=alpha, q=q)
            failed |= bool(judged.unreadable)
            if as_json:
                typer.echo(json_line(judged, folder=str(folder)))
            else:
                console().print(group_block(str(folder), judged))
    if failed:
        raise typer.Exit(1)


def group_block(name: str, judged: JudgedGroup) -> RenderableType:
    """A folder's verdict, its tests and its unknown images, as a rich renderable."""
    answer = judged.answer
    verdict = (
        Text("UNLIKE THE CALIBRATION IMAGES", style="bold red")
        if answer.flagged
        else Text("NOT FLAGGED", style="bold green")
    )
    tests = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    tests.add_column("test")
    for title in ("p", "adjusted"):
        tests.add_column(title, justify="right", no_wrap=True)
    tests.add_column("found")
    for test in answer.tests:
        tests.add_row(test.name, _p(test.p_value), _p(test.p_adjusted), test.words)
    parts: list[RenderableType] = [
        Text.assemble(verdict, "  ", printable(answer.reason)), "", tests, "",
        Text(_list_line(judged)),
    ]  # fmt: skip
    if judged.unknown:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        table.add_column("unknown image")
        for title in ("p", "adjusted"):
            table.add_column(title, justify="right", no_wrap=True)
        for image in judged.unknown:
            table.add_row(printable(image.image), _p(image.p_value), _p(image.p_adjusted))
        parts += ["", table]
    head = Text.assemble((printable(name), "bold"), f"  {answer.count} images", no_wrap=True)
    return Lines(head, Padding(Lines(*parts), (0, 0, 1, 2), expand=False))


def _images_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ConfigError(f"{str(folder)!r} is not a folder; expected a folder with images")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if len(paths) < 2:
        raise DataError(
            f"{folder} holds {len(paths)} images ({', '.join(sorted(SUFFIXES))}); expected at "
            "least 2: `ibinn classify` judges single images"
        )
    return paths


def _judged(
    classifier: TrustedClassifier, paths: Sequence[Path], *, alpha: float, q: float
) -> JudgedGroup:
    import numpy as np

    from ibinn.ood.group_test import GroupReference
    from ibinn.ood.group_test import judge_group as judge
    from ibinn.ood.multiple import bh_adjusted, fewest_found

    reference = classifier.reference
    if reference is None:
        raise NotCalibratedError(
            "the bundle is not calibrated, so nothing can be said about how usual images are; "
            "calibrate it first"
        )
    n = len(reference.combined)
    fewest_found(len(paths), n, q=q)  # refuses a q that is none before anything is computed
    readable, scores = _scored(classifier, paths)
    held_against = GroupReference.of(reference.combined, reference.ranks, reference.centres)
    answer = judge(scores, held_against, alpha=alpha)
    adjusted = bh_adjusted(scores.combined_p)
    named = [int(i) for i in np.argsort(scores.combined_p, kind="stable") if adjusted[i] <= q]
    return JudgedGroup(
        answer=answer,
        unknown=tuple(
            UnknownImage(
                image=str(readable[i]),
                p_value=float(scores.combined_p[i]),
                p_adjusted=float(adjusted[i]),
            )
            for i in named
        ),
        false_discovery_rate=q,
        fewest_found=fewest_found(answer.count, n, q=q),
        unreadable=len(paths) - len(readable),
    )


def _scored(classifier: TrustedClassifier, paths: Sequence[Path]) -> tuple[list[Path], GroupScores]:
    import numpy as np

    from ibinn.ood.group_test import LIKELIHOOD, GroupScores

    readable: list[Path] = []
    parts = []
    for start in range(0, len(paths), _BATCH):
        pixels = []
        for path in paths[start : start + _BATCH]:
            try:
                pixels.append(classifier.prepare(path).pixels)
                readable.append(path)
            except ImageError as error:
                complain(error, image=path)
        if pixels:
            parts.append(classifier.score(np.stack(pixels)))
    if not parts:
        raise DataError(f"none of the {len(paths)} images could be read")
    return readable, GroupScores(
        combined_score=np.concatenate([part.combined_score for part in parts]),
        combined_p=np.concatenate([part.combined_p for part in parts]),
        likelihood=np.concatenate([part.statistics[LIKELIHOOD] for part in parts]),
    )


def _list_line(judged: JudgedGroup) -> str:
    q, count = judged.false_discovery_rate, len(judged.unknown)
    limit = (
        f"fewer than {judged.fewest_found} unknown images cannot be named in a list of "
        f"{judged.answer.count} with {judged.answer.calibration_count:,} calibration images"
        if judged.fewest_found > 1
        else ""
    )
    if not count:
        return f"No image is named unknown at a false discovery rate of {q:g}" + (
            f"; {limit}." if limit else "."
        )
    noun = "image is" if count == 1 else "images are"
    return (
        f"{count} {noun} named unknown; on average over such lists at most {q:.0%} of those named "
        "are usual." + (f" Note: {limit}." if limit else "")
    )


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.1e}"
