"""The command `ibinn classify`: images and folders, answered on the terminal or into a table.

Importing this module imports neither torch nor generated protobuf code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from ibinn import tables
from ibinn.errors import ConfigError, RemoteError
from ibinn.folder import Results, images_in
from ibinn.json_lines import json_line
from ibinn.rendering import prediction_block, predictions_table
from ibinn.server_options import ServerOptions, with_server
from ibinn.sources import Failure, Source, open_source
from ibinn.terminal import complain, console, interruptible, reported_errors
from ibinn.types import Prediction, Verdict

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM."""

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on with an interrupted --out, or add to a finished one: "
                 "images that the same model has answered are not asked again."),
]  # fmt: skip


@with_server
def classify(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", show_default=False)],
    *,
    asked: ServerOptions,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Load this bundle instead of the embedded one.", metavar="DIR",
                     show_default=False),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", help="Decide with this policy what to do with each answer: "
                     "ACCEPT, DEFER or REJECT_INPUT; see `ibinn policy`.", metavar="FILE",
                     show_default=False),
    ] = None,
    as_json: AsJson = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Write a row for each image to this file instead: .parquet, .jsonl or "
                     ".csv.", metavar="FILE", show_default=False),
    ] = None,
    resume: Resume = False,
    alpha: Annotated[
        float | None,
        typer.Option(help="Significance of the verdict, instead of the bundle's.",
                     show_default=False),
    ] = None,
) -> None:  # fmt: skip
    """Answer each image with its class, a verdict and the reason, and a decision under a policy.

    A folder stands for all images in it and in the folders below.
    """
    with reported_errors():
        if out is None and resume:
            raise ConfigError("got --resume without --out; name the table to go on with")
        if out is not None and as_json:
            raise ConfigError("got --out and --json; for JSON lines in a file: --out NAME.jsonl")
        if out is not None:
            tables.Format.of(out)
        paths = images_in(images)
        with open_source(asked, bundle=bundle, alpha=alpha, policy=policy) as source:
            if out is None:
                failed = _show(source, paths, as_json=as_json)
            else:
                failed = _write(source, paths, out, resume=resume)
    if failed:
        raise typer.Exit(1)


def _show(source: Source, paths: Sequence[Path], *, as_json: bool) -> int:
    """Shows the answers; the number of images that have none."""
    answers: list[tuple[str, Prediction]] = []
    failed = 0
    try:
        for path, answer in _followed(source, paths):
            if isinstance(answer, Failure):
                failed += 1
                complain(answer.error, image=path)
            elif as_json:
                typer.echo(json_line(answer, image=str(path)))
            else:
                answers.append((str(path), answer))
    finally:
        # Also when the connection broke on the way: what was answered is shown.
        if len(answers) == 1 and len(paths) == 1:
            console().print(prediction_block(*answers[0]))
        elif answers:
            console().print(predictions_table(answers))
    return failed


def _write(source: Source, paths: Sequence[Path], out: Path, *, resume: bool) -> int:
    """Writes the answers; the number of images that have none."""
    failed = 0
    verdicts = dict.fromkeys(Verdict, 0)
    versions = source.model().versions
    with interruptible(), Results(out, versions=versions, resume=resume) as results:
        left = [path for path in paths if str(path) not in results.done]
        kept = len(paths) - len(left)
        written = 0
        try:
            for path, answer in _followed(source, left):
                results.append(_row(path, answer))
                written += 1
                if isinstance(answer, Failure):
                    failed += 1
                else:
                    verdicts[answer.verdict] += 1
        except (KeyboardInterrupt, RemoteError) as error:
            typer.echo(
                f"ibinn: stopped after {written} of {len(left)} images; they are kept in "
                f"{results.part}; to go on, give the same command with --resume",
                err=True,
            )
            if isinstance(error, KeyboardInterrupt):
                raise typer.Exit(INTERRUPTED) from error
            raise
    counts = [f"{count} {verdict.value.replace('_', ' ')}" for verdict, count in verdicts.items()]
    parts = [part for part in counts if not part.startswith("0 ")]
    if failed:
        parts.append(f"{failed} failed")
    if kept:
        parts.append(f"{kept} kept from before")
    console().print(f"{out}: {len(paths)} images: {', '.join(parts)}", markup=False)
    return failed


def _followed(source: Source, paths: Sequence[Path]) -> Iterator[tuple[Path, Prediction | Failure]]:
    """Each image with its answer, while a bar on the terminal shows how far it is."""
    on_error = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}"),
        TimeRemainingColumn(),
        console=on_error,
        transient=True,
        disable=len(paths) < 2 or not on_error.is_terminal,
    ) as progress:
        task = progress.add_task("classifying", total=len(paths), failed="")
        failed = 0
        for path, answer in zip(paths, source.classify(paths), strict=True):
            failed += isinstance(answer, Failure)
            progress.update(task, advance=1, failed=f"{failed} failed" if failed else "")
            yield path, answer


def _row(path: Path, answer: Prediction | Failure) -> tables.Row:
    if isinstance(answer, Failure):
        request_id = answer.error.request_id if isinstance(answer.error, RemoteError) else ""
        return tables.failed(str(path), str(answer.error), request_id=request_id)
    return tables.answered(str(path), answer)
