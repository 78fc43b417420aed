"""Commands for released checkpoints: import-checkpoint, export-checkpoint."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import (
    SkipOption,
    reported_errors,
    usable,
)


def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="A released checkpoint, such as beta_8.avg.pt.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Folder of class folders (names or WordNet ids) with images that the model was "
            "not trained on; without one the bundle is not calibrated and assesses nothing."
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(min=2, help="Most images that are calibrated on, half for each part.")
    ] = 5_000,
    class_names: Annotated[
        Path | None, typer.Option(help="File with a class name a line; default: ImageNet's.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model; default: the file's.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Significance of the verdict.")] = 0.01,
    seed: Annotated[int, typer.Option(help="Seed of which images calibrate what.")] = 0,
    skip_unreadable: SkipOption = False,
    device: Annotated[str, typer.Option(help="Where calibration computes: cpu or cuda.")] = "cpu",
) -> None:
    """Make a bundle of a released ImageNet checkpoint; no code in the file is run."""
    with reported_errors():
        from training.import_checkpoint import ImportRequest
        from training.import_checkpoint import import_checkpoint as import_one

        request = ImportRequest(
            file=file,
            out=out,
            name=name,
            class_names=class_names,
            calibrate=calibrate,
            images=images,
            skip_unreadable=skip_unreadable,
            alpha=alpha,
            seed=seed,
            command=shlex.join(["ibinn-train", *sys.argv[1:]]),
        )
        written = import_one(request, device=usable(device), say=typer.echo)
        typer.echo(
            f"written: {out} ({len(written.classes)} classes, weights "
            f"{written.weights_digest[:12]})"
        )
        if calibrate is None:
            typer.echo(
                "not calibrated: every verdict will be NOT_ASSESSED; import again with "
                "--calibrate FOLDER"
            )


def export_checkpoint(
    bundle: Annotated[Path, typer.Argument(help="A bundle of architecture ib-inn-50.")],
    out: Annotated[Path, typer.Option(help="File to write, such as model.avg.pt.")],
) -> None:
    """Write a bundle as a checkpoint in the layout of the released ImageNet networks."""
    with reported_errors():
        from training.export_checkpoint import export_checkpoint as export_one

        count = export_one(bundle, out)
        typer.echo(f"written: {out} ({count} tensors)")
