"""The command behind ``python -m ibinn.loop``: play the loop, or serve again what it left."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from ibinn.errors import ConfigError, IbinnError
from ibinn.loop.scenario import Scenario
from ibinn.loop.timeline import Timeline
from ibinn.terminal import console, interruptible

_MARK = "loop.json"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="Folder of everything that it leaves.")] = Path(
        "out/loop"
    ),
    data: Annotated[
        Path, typer.Option(help="Folder with mnist/, as `make data` unpacks it.")
    ] = Path("data"),
    database: Annotated[
        str, typer.Option(help="auto, postgresql or sqlite; auto: PostgreSQL if it is installed.")
    ] = "auto",
    reuse: Annotated[
        Path | None,
        typer.Option(help="Folder of base models of earlier runs; one is used, or put there."),
    ] = None,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Play nothing: serve what a run left in --out again, for an "
                     "auditor, until Ctrl-C."),
    ] = False,
) -> None:  # fmt: skip
    """Drift noticed, truths heard, a model retrained and promoted: on MNIST, on this machine.

    Ends with 0 if everything came out as it must; the last line says what did not.
    """
    shown = console()
    timeline = Timeline(shown)
    try:
        with interruptible():
            if serve:
                from ibinn.loop.auditing import serve_again

                serve_again(out, timeline)
                return
            if database not in ("auto", "postgresql", "sqlite"):
                raise ConfigError(
                    f"--database is {database!r}; expected auto, postgresql or sqlite"
                )
            try:
                from ibinn.loop.page import write_page
                from ibinn.loop.story import Options, Story
                from ibinn.loop.verdict import shortcomings, write_record
            except ModuleNotFoundError as error:
                raise ConfigError(
                    f"the package {error.name} is not installed; the loop needs server, training "
                    "and plots: pip install 'ibinn[serve,train,loop]'"
                ) from error
            _clear(out)
            options = Options(
                out=out, data=data, database=database, reuse=reuse, scenario=Scenario()
            )
            outcome = Story(options, timeline).play()
            missing = shortcomings(outcome)
            write_record(outcome, options.scenario, timeline.events, missing, out / _MARK)
            page = write_page(outcome, timeline.events, missing, out / "index.html")
    except IbinnError as error:
        typer.echo(f"loop: failed: {error}")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo("loop: stopped")
        raise typer.Exit(130) from None
    minutes = timeline.now_s() / 60
    timeline.tell("fact", f"page of plots: {page}; figures: {out / _MARK}")
    if missing:
        typer.echo(f"loop: failed: {'; '.join(missing)}")
        raise typer.Exit(1)
    typer.echo(f"loop: ok, {len(outcome.seen):,} images in {minutes:.1f} minutes")


def _clear(out: Path) -> None:
    """Remove what an earlier run left, and nothing else.

    Raises:
        ConfigError: The folder holds something that is no run's.
    """
    if out.is_dir() and any(out.iterdir()):
        if not (out / "logs" / "commands.log").is_file():
            raise ConfigError(
                f"--out {out} holds files, and not those of an earlier run; give another folder"
            )
        shutil.rmtree(out)
    try:
        (out / "logs").mkdir(parents=True, exist_ok=True)
        (out / "logs" / "commands.log").touch()
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be made ({error.strerror})") from error
