"""Commands about data: doctor, shard, recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import (
    GroupOption,
    SkipOption,
    reported_errors,
)


def doctor(
    data: Annotated[str, typer.Argument(help="Folder of class folders, or: digits, elpv.")],
    recipe: Annotated[
        str | None, typer.Option(help="Examine with this recipe's split instead of the default.")
    ] = None,
    group_by: GroupOption = None,
    alpha: Annotated[float, typer.Option(help="Significance wished for per class.")] = 0.05,
) -> None:
    """Examine a data set: what is in it, what is wrong with it, what it can promise."""
    from rich.console import Console

    from training.data import open_data
    from training.doctor import diagnose
    from training.doctor_view import render
    from training.recipes import recipe as recipe_of
    from training.splits import SplitConfig

    with reported_errors():
        split = recipe_of(recipe).split if recipe else SplitConfig()
        source = open_data(data, skip_unreadable=True, group_by=group_by)
        Console().print(render(diagnose(source, split, alpha=alpha)))


def shard(
    data: Annotated[str, typer.Argument(help="Folder of class folders, or: digits, elpv.")],
    out: Annotated[Path, typer.Option(help="New folder of the shards and their index.")],
    shard_mib: Annotated[
        int, typer.Option(min=1, help="Size at which a shard is closed, in MiB.")
    ] = 128,
    seed: Annotated[int, typer.Option(help="Of the order of the images.")] = 0,
    group_by: GroupOption = None,
    skip_unreadable: SkipOption = False,
) -> None:
    """Write a data set as webdataset shards with an index, so that it opens at once."""
    with reported_errors():
        from training.console import counting
        from training.data import open_data
        from training.shard_writer import write_shards

        with counting("reading images") as read:
            source = open_data(
                data, skip_unreadable=skip_unreadable, group_by=group_by, progress=read
            )
        with counting("writing images") as written:
            index = write_shards(
                source, out, shard_bytes=shard_mib * 2**20, seed=seed, progress=written
            )
        size = sum(entry.size for entry in index.shards)
        typer.echo(
            f"written: {out}: {len(index.names):,} images of {len(index.class_names)} classes in "
            f"{len(index.shards)} shards, {size / 1e6:,.1f} MB; {len(source.skipped)} unreadable "
            f"files left out; use it as --data {out}"
        )


def recipes(
    show: Annotated[
        str | None, typer.Option(help="Print one recipe's whole configuration.")
    ] = None,
) -> None:
    """List the recipes, or print one."""
    from training.config import to_dict
    from training.recipes import RECIPES
    from training.recipes import recipe as recipe_of

    with reported_errors():
        if show is not None:
            typer.echo(json.dumps(to_dict(recipe_of(show)), indent=2))
            return
        width = max(map(len, RECIPES))
        for entry in RECIPES.values():
            typer.echo(f"{entry.name:<{width}}  {entry.summary}")
