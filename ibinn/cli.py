"""The command `ibinn`: classify and explain images, describe and verify models, audit answers.

Exit codes: 0 an answer was given, whatever the verdict; 1 some image failed, the others were
answered, a server refused what an operator told it, or an audit found a discrepancy; 2 the usage,
the bundle or the connection is wrong; 130 interrupted.

Importing this module imports neither torch nor generated protobuf code: a classifier is loaded
only when a command needs one, a client only with ``--server``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ibinn import __version__, signing
from ibinn.admin_cli import app as admin_app
from ibinn.audit_cli import app as audit_app
from ibinn.classify_command import classify
from ibinn.errors import ConfigError
from ibinn.feedback_command import feedback
from ibinn.group_command import judge_group
from ibinn.json_lines import json_line
from ibinn.load_command import load_test
from ibinn.policy.cli import app as policy_app
from ibinn.rendering import explanation_block, model_block
from ibinn.server_options import ServerOptions, with_server
from ibinn.signing_cli import keygen, sign
from ibinn.sources import IMAGE_ERRORS, open_source
from ibinn.terminal import complain as _complain
from ibinn.terminal import console as _console
from ibinn.terminal import reported_errors as _reported_errors
from ibinn.types import (
    ContrastChoice,
    ExplainOptions,
    Explanation,
    HeatmapSize,
)

app = typer.Typer(
    help="Classify images, and say how far the answers can be trusted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(classify)
app.add_typer(policy_app, name="policy")
app.add_typer(admin_app, name="admin")
app.command()(feedback)
app.add_typer(audit_app, name="audit")

Bundle = Annotated[
    Path | None,
    typer.Option(help="Load this bundle instead of the embedded one.", metavar="DIR",
                 show_default=False),
]  # fmt: skip
PolicyFile = Annotated[
    Path | None,
    typer.Option("--policy", help="Decide with this policy what to do with each answer: ACCEPT, "
                 "DEFER or REJECT_INPUT; see `ibinn policy`.", metavar="FILE", show_default=False),
]  # fmt: skip
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"ibinn {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Classify images, and say how far the answers can be trusted."""


@app.command()
@with_server
def explain(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", show_default=False)],
    asked: ServerOptions,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write the picture.", metavar="PNG", show_default=False),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="Explain this class; may be given more than once. "
                     "Without it: the most probable ones.", metavar="NAME", show_default=False),
    ] = None,
    contrast: Annotated[
        str | None,
        typer.Option(help="Weigh the evidence for this class against another one.",
                     metavar="NAME", show_default=False),
    ] = None,
    versus: Annotated[
        str | None,
        typer.Option(help="The other class of the contrast. Without it: the most probable one "
                     "besides.", metavar="NAME", show_default=False),
    ] = None,
    size: Annotated[
        HeatmapSize,
        typer.Option(help="Cells of the heatmaps in JSON: those of the last feature map, or the "
                     "pixels of the network's input."),
    ] = HeatmapSize.GRID,
    bundle: Bundle = None,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Show which parts of IMAGE speak for and against classes, as a PNG, as JSON or both."""
    with _reported_errors():
        _check_out(out, as_json=as_json)
        pair = None
        if contrast is not None or versus is not None:
            pair = ContrastChoice(class_name=contrast, versus=versus)
        options = ExplainOptions(classes=tuple(classes or ()), contrast=pair, heatmap_size=size)
        with open_source(asked, bundle=bundle, policy=policy) as source:
            try:
                explanation = source.explain(image, options)
            except IMAGE_ERRORS as error:
                _complain(error, image=image)
                raise typer.Exit(1) from error
        if out is not None:
            _draw(image, explanation, out)
        if as_json:
            typer.echo(json_line(explanation, file=str(image)))
        else:
            console = _console()
            console.print(explanation_block(str(image), explanation))
            console.print(f"written to {out}", markup=False, highlight=False)


def _check_out(out: Path | None, *, as_json: bool) -> None:
    if out is None:
        if as_json:
            return
        raise ConfigError("neither --out nor --json is given; say where the picture goes: --out X")
    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out is {str(out)!r}, expected a name that ends in .png")
    if not out.parent.is_dir():
        raise ConfigError(f"the folder of --out, {str(out.parent)!r}, does not exist; make it")


def _draw(image: Path, explanation: Explanation, out: Path) -> None:
    from ibinn.decoding import Limits, open_image
    from ibinn.explain.drawing import SheetRow, explanation_sheet

    original = open_image(image, Limits()).pixels
    row = SheetRow(title=image.name, explanation=explanation, original=original)
    explanation_sheet([row]).save(out, format="PNG")


@app.command()
@with_server
def model(
    asked: ServerOptions,
    bundle: Bundle = None,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Describe the model: classes, limits, calibration, policy, and what it is worth."""
    with _reported_errors(), open_source(asked, bundle=bundle, policy=policy) as source:
        info = source.model()
        if as_json:
            typer.echo(json_line(info))
        else:
            _console().print(model_block(info))


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", show_default=False)],
    public_key: Annotated[
        Path | None,
        typer.Option(help="Check its signature too, by this public key or one of those in this "
                     "folder.", metavar="FILE", show_default=False),
    ] = None,
) -> None:  # fmt: skip
    """Check that every file of BUNDLE has the hash that its manifest states."""
    with _reported_errors():
        from ibinn.manifest import verify as verify_files

        manifest = verify_files(bundle)
        signed = ""
        if public_key is not None:
            key_id = signing.verify_bundle(bundle, signing.trusted_keys(public_key))
            signed = f"; signed by key {key_id}"
        typer.echo(
            f"{bundle}: intact; {len(manifest.files)} files of {manifest.name}, "
            f"weights {manifest.weights_digest}{signed}"
        )


app.command("judge-group")(judge_group)
app.command("load-test")(load_test)
app.command()(keygen)
app.command()(sign)


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal without these characters shows "?" instead of ending the program.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    app()


if __name__ == "__main__":
    main()
