"""The options of every command that asks a server, and the clients they make.

    @with_server
    def model(asked: ServerOptions, as_json: AsJson = False) -> None: ...

gives the command ``--server``, ``--token-file``, ``--tls-ca`` and the others of `ServerOptions`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ibinn.errors import ConfigError

if TYPE_CHECKING:
    from ibinn.client import AdminClient, Client, ClientTls
    from ibinn.client.channels import Connection

TOKEN_VARIABLE = "IBINN_TOKEN"
_PARAMETER = "asked"


def _file(help_: str) -> Any:
    return typer.Option(help=help_, metavar="FILE", show_default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How a server is asked, as the command line says."""

    server: Annotated[
        str | None,
        typer.Option(help="Ask the server at this address; several with commas between them take "
                     "turns.", metavar="HOST:PORT",
                     show_default=False),
    ] = None  # fmt: skip
    token_file: Annotated[
        Path | None,
        _file(f"File with the token for the server; without it {TOKEN_VARIABLE} of the "
              "environment."),
    ] = None  # fmt: skip
    allow_plaintext_token: Annotated[
        bool,
        typer.Option("--allow-plaintext-token", help="Send the token without TLS beyond this "
                     "machine."),
    ] = False  # fmt: skip
    tls: Annotated[
        bool, typer.Option("--tls", help="Use TLS; implied by the other options of TLS.")
    ] = False
    tls_ca: Annotated[
        Path | None, _file("Authorities (PEM) that the server's certificate must come from.")
    ] = None
    tls_cert: Annotated[Path | None, _file("Own certificate (PEM) for the server.")] = None
    tls_key: Annotated[Path | None, _file("Its private key (PEM).")] = None
    tls_server_name: Annotated[
        str | None,
        typer.Option(help="Name that the server's certificate must have, if not the address's.",
                     metavar="NAME", show_default=False),
    ] = None  # fmt: skip
    model: Annotated[
        str | None,
        typer.Option(help="Only the model with this weights digest may answer; the first 8 or "
                     "more digits.", metavar="DIGEST", show_default=False),
    ] = None  # fmt: skip
    timeout: Annotated[
        float | None,
        typer.Option(help="Time for each call to the server, and for each image of many.",
                     metavar="SECONDS", min=0.001, show_default=False),
    ] = None  # fmt: skip

    def refuse(self, instead: str) -> None:
        """Refuses options that say something of a server where none is asked.

        Raises:
            ConfigError: One is given.
        """
        for field in fields(self):
            if getattr(self, field.name):
                flag = field.name.replace("_", "-")
                raise ConfigError(f"got --{flag} without --server; {instead}")

    def client(self) -> Client:
        """The client that the options ask for."""
        from ibinn.client import Client, Retry

        # Whoever sends a folder would rather wait than get it back with holes. A stream slows down
        # at each refusal, so that patience is no burden to the server.
        patient = Retry(attempts=6, budget=1000.0, refill=1.0)
        return Client(self._target(), model=self.model or "", retry=patient, **self._connection())

    def admin_client(self) -> AdminClient:
        """The operator's client that the options ask for."""
        from ibinn.client import AdminClient

        if self.model:
            raise ConfigError("got --model; a server is administered as a whole, leave it out")
        return AdminClient(self._target(), **self._connection())

    def connection(self) -> Connection:
        """The connection alone that the options ask for."""
        from ibinn.client.channels import Connection

        return Connection(
            target=self._target(),
            tls=self._tls(),
            token=self._token(),
            allow_plaintext_token=self.allow_plaintext_token,
        )

    def _target(self) -> str:
        if self.server is None:
            raise ConfigError("--server is missing; give the server's address: --server HOST:PORT")
        return self.server

    def _connection(self) -> dict[str, Any]:
        timeout = {} if self.timeout is None else {"timeout_s": self.timeout}
        return {
            "tls": self._tls(),
            "token": self._token(),
            "allow_plaintext_token": self.allow_plaintext_token,
            **timeout,
        }

    def _tls(self) -> ClientTls | None:
        files = (self.tls_ca, self.tls_cert, self.tls_key)
        if not (self.tls or self.tls_server_name or any(files)):
            return None
        from ibinn.client import ClientTls

        return ClientTls.from_files(
            root_certificates=self.tls_ca,
            certificate=self.tls_cert,
            key=self.tls_key,
            server_name=self.tls_server_name or "",
        )

    def _token(self) -> str:
        if self.token_file is None:
            return os.environ.get(TOKEN_VARIABLE, "")
        try:
            token = self.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"cannot read the token file {self.token_file}: {error}; give a text file that "
                "holds the token"
            ) from error
        if not token:
            raise ConfigError(f"the token file {self.token_file} is empty; put the token there")
        return token


def with_server(
    command: Callable[..., None], *, without: frozenset[str] = frozenset()
) -> Callable[..., None]:
    """Gives a command the options of `ServerOptions`, which it gets together as `asked`.

    Args:
        command: What is run.
        without: Names of options to leave out, which the command says in its own way.
    """
    own = inspect.signature(command, eval_str=True)
    every = inspect.signature(ServerOptions, eval_str=True).parameters
    options = {name: option for name, option in every.items() if name not in without}
    parameters = [
        *(parameter for parameter in own.parameters.values() if parameter.name != _PARAMETER),
        *options.values(),
    ]

    def run(**arguments: Any) -> None:
        asked = ServerOptions(**{name: arguments.pop(name) for name in options})
        command(**arguments, **{_PARAMETER: asked})

    run.__name__ = command.__name__
    run.__doc__ = command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    # Inspection, by which typer learns the options, takes this for the function's own.
    run.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters
        ]
    )
    return run
