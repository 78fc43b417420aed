"""The commands `ibinn admin`: what an operator tells a running server.

Importing this module imports no generated protobuf code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ibinn.errors import ConfigError, PreconditionError
from ibinn.json_lines import json_line
from ibinn.rendering import candidate_block, state_block
from ibinn.server_options import ServerOptions, with_server
from ibinn.serving import Mode, ServerState
from ibinn.terminal import complain, console, reported_errors

if TYPE_CHECKING:
    from ibinn.client import AdminClient

app = typer.Typer(
    help="Tell a running server which model to serve, stop it from deciding, acknowledge drift.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Bundle = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="Name of a folder in the server's models folder.",
                        show_default=False),
]  # fmt: skip
KeepDefault = Annotated[
    bool,
    typer.Option("--keep-default", help="Load and check only; the model can be asked by its "
                 "digest."),
]  # fmt: skip
End = Annotated[bool, typer.Option("--end", help="End the shadow.")]


@app.command()
@with_server
def status(*, asked: ServerOptions, as_json: AsJson = False) -> None:
    """Show what is loaded, what is done with answers, drift, records and the last candidates."""
    with _operator(asked) as client:
        _show(client.status(), as_json=as_json)


@app.command()
@with_server
def reload(
    bundle: Bundle,
    *,
    asked: ServerOptions,
    keep_default: KeepDefault = False,
    as_json: AsJson = False,
) -> None:
    """Make BUNDLE the default model, if it passes the server's checks."""
    with _operator(asked) as client:
        done = client.load(bundle) if keep_default else client.reload(bundle)
        if as_json:
            typer.echo(json_line(done))
        else:
            console().print(candidate_block(done.candidate))
            console().print(state_block(done.state))


@app.command()
@with_server
def rollback(*, asked: ServerOptions, as_json: AsJson = False) -> None:
    """Make the previous default model the default again."""
    with _operator(asked) as client:
        _show(client.rollback(), as_json=as_json)


@app.command()
@with_server
def shadow(
    bundle: Annotated[str | None, typer.Argument(metavar="BUNDLE", show_default=False)] = None,
    *,
    asked: ServerOptions,
    share: Annotated[
        float | None,
        typer.Option(help="Share of the calls that the shadow answers too; without it the "
                     "server's setting.", show_default=False),
    ] = None,
    end: End = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Let BUNDLE answer a share of the calls silently, to be compared; or end that."""
    with _operator(asked) as client:
        if (bundle is None) is not end:
            raise ConfigError("give BUNDLE to begin a shadow, or --end to end it, and not both")
        state = client.end_shadow() if bundle is None else client.set_shadow(bundle, share=share)
        _show(state, as_json=as_json)


@app.command()
@with_server
def mode(
    mode: Annotated[Mode, typer.Argument(show_default=False)],
    *,
    asked: ServerOptions,
    reason: Annotated[
        str, typer.Option(help="Why; stands in every answer.", show_default=False)
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Press the stop button (abstain-all: every decision is left to people), or release it."""
    with _operator(asked) as client:
        _show(client.set_mode(mode, reason=reason), as_json=as_json)


@app.command()
@with_server
def acknowledge(
    reason: Annotated[
        str,
        typer.Argument(metavar="REASON", help="Why; stands in the ledger and in the log.",
                       show_default=False),
    ],
    *,
    asked: ServerOptions,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """End the suspension of the guarantee after a drift alarm: the detectors begin anew."""
    with _operator(asked) as client:
        _show(client.acknowledge_drift(reason), as_json=as_json)


@app.command()
@with_server
def erase(
    record_id: Annotated[
        str,
        typer.Argument(metavar="ID", help="Record id of one answer that had the image.",
                       show_default=False),
    ],
    reason: Annotated[
        str,
        typer.Argument(metavar="REASON", help="Why; stands in the ledger.", show_default=False),
    ],
    *,
    asked: ServerOptions,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Erase the image of an answer, from every record of the same bytes; the records stay."""
    with _operator(asked) as client:
        done = client.erase_image(record_id, reason)
        if as_json:
            typer.echo(json_line(done, record_id=record_id))
        else:
            what = "its image was erased" if done.found else "there was no image to erase"
            noun = "record" if done.records == 1 else "records"
            told = f"{record_id}: {what}; it was that of {done.records} {noun}, and they stay"
            console().print(told, markup=False)


@contextmanager
def _operator(asked: ServerOptions) -> Iterator[AdminClient]:
    """The client of an operator; what the server refuses ends the command with 1."""
    with reported_errors():
        try:
            with asked.admin_client() as client:
                yield client
        except PreconditionError as error:
            complain(error)
            for reason in error.reasons:
                typer.echo(f"  - {reason}", err=True)
            raise typer.Exit(1) from error


def _show(state: ServerState, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json_line(state))
    else:
        console().print(state_block(state))
