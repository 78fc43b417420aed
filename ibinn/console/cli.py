"""The command `ibinn-console`: a web page on which a server is asked.

Importing this module imports no Gradio: the page is loaded when the command runs.
"""

from __future__ import annotations

import ipaddress
import threading
from typing import Annotated

import typer

from ibinn.errors import ConfigError
from ibinn.server_options import ServerOptions, with_server
from ibinn.terminal import interruptible, reported_errors

app = typer.Typer(
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DEFAULT_SERVER = "localhost:50051"
DEFAULT_PORT = 7860


@app.command()
@with_server
def console(
    asked: ServerOptions,
    *,
    host: Annotated[
        str, typer.Option(help="Address to listen on.", metavar="ADDRESS")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)
    ] = DEFAULT_PORT,
) -> None:
    """Serve a web page on which a person asks the server about images, sees why it answers so,
    and says what is true. It runs until Ctrl-C.

    Without --server it asks localhost:50051. Whoever reaches the page asks with this command's
    token: beyond this machine, let a proxy in front say who may.
    """
    import dataclasses

    with reported_errors():
        asked = dataclasses.replace(asked, server=asked.server or DEFAULT_SERVER)
        serve(asked, host=host, port=port)


def serve(asked: ServerOptions, *, host: str, port: int) -> None:
    """Serves the page until a signal ends it.

    Raises:
        ConfigError: Gradio is not installed, an option is not valid, or the port is taken.
    """
    with asked.client() as client:
        try:
            from ibinn.console import page
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"the console needs {error.name}, which is not installed; install it with: "
                "pip install 'ibinn[console]'"
            ) from error
        from ibinn.console.asking import Asker

        built = page.build(Asker(client, target=str(asked.server)))
        try:
            url = page.launch(built, host=host, port=port)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error}; choose another with --port, 0 takes a "
                "free one"
            ) from error
        try:
            if not _only_here(host):
                typer.echo(
                    f"ibinn-console: {host} can be reached from other machines; whoever reaches "
                    "the page asks with this command's token",
                    err=True,
                )
            typer.echo(f"ready {url} server={asked.server}")
            with interruptible():
                threading.Event().wait()
        except KeyboardInterrupt:
            pass
        finally:
            built.close(verbose=False)


def _only_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def main() -> None:
    """Entry point of the command."""
    app()


if __name__ == "__main__":
    main()
