"""The commands `ibinn-serve token`: make, list and remove tokens."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ibinn.errors import ConfigError
from ibinn.terminal import console, reported_errors
from service.access import editing, grants
from service.access.grants import Grant
from service.call import Role

app = typer.Typer(
    help="Make, list and remove the tokens that callers show to a server.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_ENVIRONMENT = "IBINN_TOKENS"

File = Annotated[
    Path,
    typer.Option("--file", help="File of tokens.", metavar="FILE", envvar=_ENVIRONMENT,
                 show_default=False),
]  # fmt: skip


@app.command()
def new(
    name: Annotated[
        str,
        typer.Option(help="Names the holder in logs; letters, digits and ._@-.", metavar="NAME",
                     show_default=False),
    ],
    role: Annotated[
        list[Role],
        typer.Option(help="What the holder may do; may be given more than once.",
                     show_default=False),
    ],
    rate: Annotated[
        float | None,
        typer.Option(help="Images per second; inf: no limit; none: the server's --caller-rate.",
                     metavar="R", show_default=False),
    ] = None,
    burst: Annotated[
        int | None,
        typer.Option(help="Images at once before the rate applies; none: the server's "
                     "--caller-burst.", metavar="N", show_default=False),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(help="Refused from then on: 2027-01-31 (midnight UTC) or "
                     "2027-01-31T12:00:00+01:00.", metavar="DATE", show_default=False),
    ] = None,
    certificate: Annotated[
        str | None,
        typer.Option(help="Instead of a token: the name in the holder's client certificate.",
                     metavar="SUBJECT", show_default=False),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="File of tokens to add the entry to; made if it is not there. "
                     "Without it the entry is printed, and the token on standard error.",
                     metavar="FILE", envvar=_ENVIRONMENT, show_default=False),
    ] = None,
) -> None:  # fmt: skip
    """Make a token and print it, this once: the file keeps only its sha256.

    A running server reads the file again within a second.
    """
    with reported_errors():
        token = None if certificate is not None else grants.new_token()
        entry = editing.new_entry(
            kind="certificate" if token is None else "token",
            name=name,
            key=certificate or "" if token is None else grants.token_digest(token).hex(),
            roles=list(dict.fromkeys(role)),
            rate=rate,
            burst=burst,
            expires=None if expires is None else _moment(expires),
        )
        if file is None:
            typer.echo(entry, nl=False)
            if token is not None:
                typer.echo(f"the token of {name}, shown this once: {token}", err=True)
            return
        text = _text_of(file) if file.exists() else ""
        editing.write(editing.added(text, entry, path=file), file)
        typer.echo(f"{name} was added to {file}", err=True)
        if token is not None:
            typer.echo("the token is shown this once:", err=True)
            typer.echo(token)


@app.command("list")
def list_(file: File) -> None:
    """Show who holds which roles; no token can be shown."""
    with reported_errors():
        known = grants.read(file)
        table = Table(
            "name", "shows", "roles", "limits", box=None, padding=(0, 2, 0, 0), pad_edge=False
        )
        for _, grant in known.tokens:
            table.add_row(grant.name, "token", *_columns(grant))
        for subject, grant in known.certificates.items():
            table.add_row(grant.name, f"certificate {subject}", *_columns(grant))
        console().print(table)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)], file: File
) -> None:
    """Remove an entry; a running server refuses it within a second."""
    with reported_errors():
        editing.write(editing.removed(_text_of(file), name, path=file), file)
        typer.echo(f"{name} was removed from {file}", err=True)


def _columns(grant: Grant) -> tuple[str, str]:
    expired = grant.expires is not None and datetime.now(UTC) >= grant.expires
    limits = grants.in_words(grant)
    return ", ".join(sorted(grant.roles)), f"EXPIRED; {limits}" if expired else limits


def _moment(text: str) -> date | datetime:
    try:
        found = date.fromisoformat(text) if "T" not in text else datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"--expires is {text!r}, expected a date such as 2027-01-31") from error
    if isinstance(found, datetime):
        if found.tzinfo is None:
            raise ConfigError(f"--expires is {text!r}, a time without a zone; add Z or +01:00")
        passed = found <= datetime.now(UTC)
    else:
        passed = found <= datetime.now(UTC).date()
    if passed:
        raise ConfigError(f"--expires is {text!r}, which has passed; give a date to come")
    return found


def _text_of(file: Path) -> str:
    grants.read(file)  # Says what is wrong with it.
    return file.read_text(encoding="utf-8")
