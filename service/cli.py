"""The command `ibinn-serve`."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

import ibinn
from ibinn import manifest
from ibinn.errors import IbinnError
from service import checks, logs, tuning
from service import settings as settings_module
from service.access.cli import app as token_app
from service.models.served import Classifier
from service.ready import Ready
from service.records.cli import app as records_app
from service.settings import Settings

_log = logging.getLogger(__name__)

_EPILOG = (
    "Every option can also be set in the environment (IBINN_PORT=8080) or in a TOML file given by "
    "--config (port = 8080). Flags win over the environment, the environment over the file."
)

PANELS = {
    "Model": ("bundle", "alpha", "policy", "device", "engine", "threads", "workers"),
    "Address": (
        *("host", "port", "metrics_port", "metrics", "reflection", "compression"),
        "max_connection_age_s",
    ),
    "Load": (
        *("max_batch_size", "max_batch_wait_s", "max_pending", "max_explain_pending"),
        *("stream_window", "caller_rate", "caller_burst", "request_timeout_s", "drain_timeout_s"),
    ),
    "Images": (
        *("max_image_bytes", "max_image_px", "max_side_px"),
        *("decode_threads", "decode_in", "decode_timeout_s"),
    ),
    "New models": (
        *("models", "watch_interval_s", "max_models", "acceptance", "accuracy_margin"),
        *("calibration_margin", "false_positive_margin", "shadow_share", "state_dir"),
    ),
    "Records and feedback": (
        *("records", "audit", "records_queue", "records_timeout_s", "receipt_key"),
        *("keep_images", "keep_share", "images", "images_quota_bytes", "images_ttl_days"),
    ),
    "Drift": (
        *("drift", "drift_false_alarm_rate", "drift_window"),
        *("sentinels", "sentinel_interval_s"),
    ),
    "Access": (
        *("tls_certificate", "tls_key", "tls_client_ca", "insecure", "tokens"),
        *("require_signature", "trusted_keys"),
    ),
    "Observation": ("log_level", "log_format", "traces"),
    "Settings": ("config",),
}
"""The settings as `--help` groups them."""

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
app.add_typer(token_app, name="token")
app.add_typer(records_app, name="records")


def _parameter(name: str, panel: str) -> inspect.Parameter:
    """The command-line option of a setting, with its description and default."""
    field = Settings.model_fields[name]
    flag = f"--{name.replace('_', '-')}"
    kind = _plain(field.annotation)
    default = "" if field.default is None else f" Default: {_shown(field.default)}."
    if get_origin(field.annotation) is Literal:
        default += f" One of {', '.join(get_args(field.annotation))}."
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
        help=f"{field.description}{default}",
        show_default=False,
        rich_help_panel=panel,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def _plain(annotation: Any) -> Any:
    """The type that the command line reads; what else is asked of a value, the settings say."""
    if get_origin(annotation) is Literal:
        return str
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    return _plain(kinds[0]) if kinds else annotation


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    return str(default)


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for every setting in place of its ``**flags``."""
    signature = inspect.signature(command, eval_str=True)
    own = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    settings = [_parameter(name, panel) for panel, names in PANELS.items() for name in names]
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*own, *settings]
    )
    return command


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"ibinn-serve {ibinn.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True, epilog=_EPILOG)
@_with_settings
def serve(
    context: typer.Context,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Only tell everything that is wrong, or what would be served."
        ),
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
    **flags: Any,
) -> None:
    """Serve a model over gRPC.

    Answers Classify, ClassifyStream, Explain and GetModel of ibinn.v1.ClassificationService, with
    administration, the Open Inference Protocol, health, reflection and a Prometheus endpoint.
    Prints one line when it is ready. SIGTERM stops it after the requests in flight are answered.
    """
    if context.invoked_subcommand is not None:
        return
    try:
        settings = settings_module.load(flags)
        logs.configure(level=settings.log_level, form=settings.log_format)
        wrong = checks.problems(settings)
        if not wrong and check:
            wrong = _try_out(settings)
        elif not wrong:
            for warning in checks.warnings(settings):
                _log.warning("%s", warning)
            run(settings)
    except IbinnError as error:
        wrong = [str(error)]
    for problem in wrong:
        typer.echo(f"error: {problem}", err=True)
    if wrong:
        raise typer.Exit(2)


def _try_out(settings: Settings) -> list[str]:
    """Prints what would be served; returns what is wrong with it."""
    from service import trial

    try:
        lines = trial.summary(settings, lambda: load_bundle(settings))
    except IbinnError as error:
        return [str(error)]
    for line in ("ok", *lines, *(f"warning: {found}" for found in checks.warnings(settings))):
        typer.echo(line)
    return []


def run(settings: Settings) -> None:
    """Serves the settings' bundle until a signal stops it.

    Raises:
        IbinnError: The server cannot start.
    """
    tuning.before_torch()
    if settings.workers > 1:
        from service import workers

        asyncio.run(workers.serve(settings, on_ready=announce))
        return
    from service.server import Addresses
    from service.server import serve as serve_forever

    def on_ready(addresses: Addresses, info: Any) -> None:
        announce(Ready.of(info, grpc=addresses.grpc, metrics=addresses.metrics))

    asyncio.run(
        serve_forever(settings, functools.partial(load_bundle, settings), on_ready=on_ready)
    )


def announce(ready: Ready) -> None:
    """Prints the line that scripts wait for."""
    typer.echo(ready.line())
    sys.stdout.flush()


def load_bundle(settings: Settings, path: Path | None = None) -> Classifier:
    """The classifier of a bundle, under its policy if there is one.

    Args:
        settings: What can be set.
        path: The bundle; None: the settings', or the embedded model.

    Raises:
        BundleError: There is no usable bundle, or it is not signed by a trusted key and must be.
        ConfigError: The bundle's calibration cannot give the significance asked for, or one is
            given beside a policy, which has its own.
        PolicyError: The policy cannot be used, or not with this bundle.
    """
    from service.models import loading

    return loading.load(settings, path or settings.bundle or manifest.embedded_path())


def main() -> None:
    """Runs the command."""
    app()
