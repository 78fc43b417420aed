"""The command `ibinn-serve`."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import ibinn
from ibinn import manifest
from ibinn.errors import ConfigError, IbinnError
from ibinn.policy import file as policy_file
from ibinn.types import ModelInfo
from service import settings as settings_module
from service.predictor import Classifier
from service.settings import Settings

_EPILOG = (
    "Every option can also be set in the environment (IBINN_PORT=8080) or in a TOML file given by "
    "--config (port = 8080). Flags win over the environment, the environment over the file."
)

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


def _option(name: str) -> Any:
    """The command-line option of a setting, with its description and default."""
    field = Settings.model_fields[name]
    default = "" if field.default is None else f" Default: {field.default}."
    return typer.Option(
        f"--{name.replace('_', '-')}", help=f"{field.description}{default}", show_default=False
    )


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"ibinn-serve {ibinn.__version__}")
        raise typer.Exit


@app.command(epilog=_EPILOG)
def serve(
    bundle: Annotated[Path | None, _option("bundle")] = None,
    alpha: Annotated[float | None, _option("alpha")] = None,
    policy: Annotated[Path | None, _option("policy")] = None,
    device: Annotated[str | None, _option("device")] = None,
    host: Annotated[str | None, _option("host")] = None,
    port: Annotated[int | None, _option("port")] = None,
    metrics_port: Annotated[int | None, _option("metrics_port")] = None,
    max_batch_size: Annotated[int | None, _option("max_batch_size")] = None,
    max_pending: Annotated[int | None, _option("max_pending")] = None,
    request_timeout_s: Annotated[float | None, _option("request_timeout_s")] = None,
    drain_timeout_s: Annotated[float | None, _option("drain_timeout_s")] = None,
    decode_threads: Annotated[int | None, _option("decode_threads")] = None,
    max_image_bytes: Annotated[int | None, _option("max_image_bytes")] = None,
    max_image_px: Annotated[int | None, _option("max_image_px")] = None,
    max_side_px: Annotated[int | None, _option("max_side_px")] = None,
    log_level: Annotated[str | None, _option("log_level")] = None,
    config: Annotated[Path | None, _option("config")] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Serve a model over gRPC.

    Answers Classify, Explain and GetModel of ibinn.v1.ClassificationService, with health,
    reflection and a Prometheus endpoint. Prints one line when it is ready. SIGTERM stops it
    after the requests in flight are answered.
    """
    flags = {name: value for name, value in locals().items() if name in Settings.model_fields}
    try:
        settings = settings_module.load(flags)
        logging.basicConfig(
            level=settings.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
            stream=sys.stderr,
        )
        run(settings)
    except IbinnError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def run(settings: Settings) -> None:
    """Serves the settings' bundle until a signal stops it.

    Raises:
        IbinnError: The server cannot start.
    """
    from service.server import Addresses
    from service.server import serve as serve_forever

    def announce(addresses: Addresses, info: ModelInfo) -> None:
        weights = info.versions.weights[:12]
        typer.echo(
            f"ready grpc={addresses.grpc} metrics={addresses.metrics} "
            f"model={info.name} weights={weights} alpha={info.alpha:g}"
            + (f" policy={info.policy.digest[:12]}" if info.policy else "")
        )
        sys.stdout.flush()

    asyncio.run(serve_forever(settings, lambda: load_bundle(settings), on_ready=announce))


def load_bundle(settings: Settings) -> Classifier:
    """The classifier of the settings' bundle, under the settings' policy if there is one.

    Raises:
        BundleError: There is no usable bundle.
        ConfigError: The bundle's calibration cannot give the significance asked for, or one is
            given beside a policy, which has its own.
        PolicyError: The policy cannot be used, or not with this bundle.
    """
    if settings.policy is not None and settings.alpha is not None:
        raise ConfigError(
            f"got alpha {settings.alpha:g} and policy {settings.policy}; a policy has its own "
            "significance, leave --alpha (IBINN_ALPHA) out"
        )
    policy = None if settings.policy is None else policy_file.read(settings.policy)
    if settings.bundle is not None:
        manifest.read(settings.bundle)
    # torch takes seconds to import: --help, a wrong setting or path need not wait for it.
    from ibinn import bundle, deciding
    from ibinn.images import Limits

    limits = Limits(
        max_bytes=settings.max_image_bytes,
        max_pixels=settings.max_image_px,
        max_side=settings.max_side_px,
    )
    path = settings.bundle or bundle.embedded_path()
    if policy is not None:
        return deciding.load(path, policy, device=settings.device, limits=limits)
    return bundle.load(path, alpha=settings.alpha, device=settings.device, limits=limits)


def main() -> None:
    """Runs the command."""
    app()
