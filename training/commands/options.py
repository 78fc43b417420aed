"""What several commands of `ibinn-train` take, and how they end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ibinn.errors import IbinnError

if TYPE_CHECKING:
    import torch

    from training.trust_report import OodFolders

DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        help="Folder of class folders; folder, pattern or URL of shards; or: digits, elpv.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value, such as epochs=20 or optimizer.learning_rate=0.002."),
]
GroupOption = Annotated[
    str | None,
    typer.Option(help="'parent' or a regular expression with a group: images kept together."),
]
SkipOption = Annotated[
    bool, typer.Option("--skip-unreadable", help="Go on without unreadable files; count them.")
]
OodOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder with mnist/ and tiny-imagenet/ for the report; default: beside --data."
    ),
]
OodCountOption = Annotated[
    int, typer.Option(min=2, help="Most images of each out-of-distribution set in the report.")
]
AcceleratorOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn an error of ours into one line on standard error and exit code 2."""
    try:
        yield
    except IbinnError as error:
        typer.secho(f"ibinn-train: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(2) from error


def ood_folders(ood_data: Path | None, data: str) -> OodFolders:
    """Where the report's out-of-distribution images lie; by default beside the data."""
    from training.trust_report import OodFolders

    return OodFolders.under(ood_data if ood_data is not None else Path(data).resolve().parent)


def usable(device: str) -> torch.device:
    """The device of a name.

    Raises:
        ConfigError: It cannot be used.
    """
    import torch

    from ibinn.errors import ConfigError

    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"--device is {device!r}, which cannot be used ({str(error).splitlines()[0]}); "
            "expected cpu, or cuda where there is one"
        ) from error


def print_summary(headline: dict[str, float], where: Path) -> None:
    """Show headline figures, and where the report lies."""
    for name, value in headline.items():
        typer.echo(f"{name:>24}  {value:.4g}")
    typer.echo(f"written: {where} (open {where / 'report.html'})")
