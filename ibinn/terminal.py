"""What the commands share: a console, and errors told without a traceback."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console

from ibinn.errors import IbinnError, RemoteError

PLAIN_WIDTH = 160


def console() -> Console:
    """Console on stdout; wide lines where no terminal sets a width, so that nothing is cut."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


@contextmanager
def reported_errors() -> Iterator[None]:
    """End with code 2 and a message instead of a traceback on an error of `ibinn`."""
    try:
        yield
    except IbinnError as error:
        complain(error)
        raise typer.Exit(2) from error


@contextmanager
def interruptible() -> Iterator[None]:
    """A request to end (SIGTERM) is a KeyboardInterrupt, as Ctrl-C is."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def complain(error: IbinnError, *, image: Path | None = None) -> None:
    """Tell an error on stderr, with the image it concerns unless the message names it.

    What a server said of a request has the request's name beside it, by which its logs have it.
    """
    where = f"{image}: " if image is not None and str(image) not in str(error) else ""
    told = isinstance(error, RemoteError) and error.reason and error.request_id
    typer.echo(f"ibinn: {where}{error}" + (f" (request {told})" if told else ""), err=True)
