"""The commands `ibinn keygen` and `ibinn sign`, and the check of a signature for `ibinn verify`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ibinn import signing
from ibinn.errors import ConfigError
from ibinn.terminal import reported_errors

PassphraseEnv = Annotated[
    str | None,
    typer.Option(help="Environment variable with the private key's passphrase.", metavar="NAME",
                 show_default=False),
]  # fmt: skip


def keygen(
    out: Annotated[
        Path,
        typer.Option(help="Where to write the private key; the public one is put beside it, as "
                     "NAME.pub.pem.", metavar="NAME.pem"),
    ] = Path("signing.pem"),
    passphrase_env: PassphraseEnv = None,
) -> None:  # fmt: skip
    """Make a key to sign bundles with.

    The private key is written for its owner alone (mode 600), encrypted if a passphrase is given.
    Servers get the public key: ibinn-serve --require-signature --trusted-keys NAME.pub.pem.
    """
    with reported_errors():
        public = out.with_name(f"{out.stem}.pub.pem")
        if public.exists():
            raise ConfigError(f"{public} exists; a key in use is not replaced, choose another name")
        pair = signing.generate_keypair(passphrase=_passphrase(passphrase_env))
        signing.write_private_key(pair.private_pem, out)
        public.write_bytes(pair.public_pem)
        typer.echo(f"key {pair.key_id}: private {out}, public {public}")


def sign(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE|POLICY", show_default=False)],
    key: Annotated[
        Path,
        typer.Option(help="Private key, from `ibinn keygen`.", metavar="FILE", show_default=False),
    ],
    passphrase_env: PassphraseEnv = None,
) -> None:
    """Sign a bundle, or a policy's file, after checking it; replaces the signature there.

    Whatever changes it later, such as a new calibration, needs a new signature.
    """
    with reported_errors():
        try:
            pem = key.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"--key {key} cannot be read ({error.strerror}); make one with `ibinn keygen`"
            ) from error
        # A bundle is a folder; what is not there is told as a bundle that is missing.
        sign_one = signing.sign_policy if path.is_file() else signing.sign_bundle
        key_id = sign_one(path, pem, passphrase=_passphrase(passphrase_env))
        typer.echo(f"{path}: signed by key {key_id}")


def _passphrase(variable: str | None) -> bytes | None:
    if variable is None:
        return None
    value = os.environ.get(variable)
    if not value:
        raise ConfigError(
            f"--passphrase-env is {variable}, and that variable is empty or not set; set it to "
            "the passphrase"
        )
    return value.encode()
