"""The command `ibinn-train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="Train, evaluate and compare trustworthy image classifiers.",
    pretty_exceptions_enable=False,
)

DataOption = Annotated[
    str, typer.Option("--data", help="Folder of class folders, or: digits, elpv.")
]


@app.command()
def fit(
    recipe: Annotated[str, typer.Option(help="Name of a recipe; see `ibinn-train recipes`.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder of the run; an existing run is resumed.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, such as epochs=20.")
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Regular expression or 'parent': images kept together.")
    ] = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Go on without unreadable files.")
    ] = False,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[int, typer.Option(help="Number of processes.")] = 1,
    stop_after: Annotated[
        float | None, typer.Option(help="Stop with a checkpoint after so many seconds.")
    ] = None,
) -> None:
    """Train a model and write its bundle."""
    from training import fit as fitting
    from training.config import override
    from training.console import Console
    from training.recipes import recipe as recipe_of

    config = override(recipe_of(recipe), set_ or [])
    fabric = fitting.Hardware(accelerator=accelerator, devices=devices).fabric()
    prepared = fitting.prepare(
        config, data, out, skip_unreadable=skip_unreadable, group_by=group_by
    )
    with Console(out, quiet=not fabric.is_global_zero) as console:
        fitting.train_model(
            config, prepared, out, fabric=fabric, progress=console, stop_after_s=stop_after
        )


def main() -> None:
    """Entry point of the console script."""
    app()


@app.callback()
def _root() -> None:
    pass
