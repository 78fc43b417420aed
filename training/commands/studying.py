"""The command that trains many models: study."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import (
    AcceleratorOption,
    reported_errors,
)


def study(
    name: Annotated[
        str, typer.Argument(metavar="STUDY", help="small, cifar10 or cifar10-two-cores.")
    ],
    data: Annotated[
        Path, typer.Option(help="Folder that holds the data sets (mnist, cifar10, …), or one.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the study; an existing one is resumed.")],
    seeds: Annotated[
        str | None, typer.Option(help="Seeds, such as 0,1,2; default: the study's own.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only this model or data set, such as gamma-1 or mnist; repeatable."),
    ] = None,
    stop_after: Annotated[
        float | None, typer.Option(help="Stop, to be resumed, after about so many seconds.")
    ] = None,
    accelerator: AcceleratorOption = "auto",
) -> None:
    """Train many models on the same images and set their figures beside the published ones.

    Finished runs are skipped, the others go on where they stopped. Writes study.html,
    study.json and a CSV per table.
    """
    with reported_errors():
        from training import fit as fitting
        from training.finish import library_versions, machine
        from training.study.conduct import collected, conduct
        from training.study.console import StudyConsole
        from training.study.page import HTML_FILE, write_study
        from training.study.plan import runs_of
        from training.study.recipes import study as study_of

        chosen = study_of(name)
        wanted = _seeds(seeds)
        runs = runs_of(chosen, seeds=wanted, only=only or ())
        fabric = fitting.Hardware(accelerator=accelerator).fabric()
        with StudyConsole() as console:
            try:
                conducted = conduct(
                    chosen,
                    data,
                    out,
                    fabric=fabric,
                    reporter=console,
                    seeds=wanted,
                    only=only or (),
                    stop_after_s=stop_after,
                )
            except KeyboardInterrupt:
                conducted = collected(chosen, runs, out)
        summary = write_study(
            conducted,
            out,
            facts=(
                ("command", shlex.join(["ibinn-train", *sys.argv[1:]])),
                ("machine", machine(fabric.device)),
                *library_versions().items(),
            ),
        )
        for finding in summary.findings:
            typer.echo(f"{finding.data}: {finding.claim}: {finding.answer.value}. {finding.words}")
        typer.echo(f"written: {out / HTML_FILE}")
        if not conducted.complete:
            typer.echo("not complete; the same command goes on from here", err=True)
            raise typer.Exit(1)


def _seeds(text: str | None) -> tuple[int, ...] | None:
    from ibinn.errors import ConfigError

    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--seeds is {text!r}; expected whole numbers with commas between, such as 0,1,2"
        ) from error
