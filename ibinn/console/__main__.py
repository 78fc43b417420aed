"""``python -m ibinn.console`` (also ``make console``): the page with a server of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ibinn.console.cli import DEFAULT_PORT, serve
from ibinn.demo import running_server
from ibinn.server_options import ServerOptions
from ibinn.terminal import interruptible, reported_errors

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def console(
    *,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Model bundle; none: the embedded model.", show_default=False),
    ] = None,
    state_dir: Annotated[Path, typer.Option(help="Where the server keeps its records.")] = Path(
        "runs/console"
    ),
    port: Annotated[
        int, typer.Option(help="Port of the page; 0 takes a free one.", min=0, max=65535)
    ] = DEFAULT_PORT,
) -> None:
    """Start a server and the page that asks it; both run until Ctrl-C."""
    options = ["--state-dir", str(state_dir)]
    if bundle is not None:
        options += ["--bundle", str(bundle)]
    with reported_errors(), interruptible(), running_server(options=options) as target:
        serve(ServerOptions(server=target), host="127.0.0.1", port=port)


if __name__ == "__main__":
    app()
