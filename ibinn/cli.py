"""The command `ibinn`: classify and explain images, describe and verify models.

Exit codes: 0 an answer was given, whatever the verdict; 1 some image failed, the others were
answered; 2 the usage, the bundle or the connection is wrong.

Importing this module imports neither torch nor generated protobuf code: a classifier is loaded
only when a command needs one, a client only with ``--server``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ibinn import __version__
from ibinn.errors import ConfigError, IbinnError
from ibinn.json_lines import json_line
from ibinn.rendering import model_block, prediction_block, predictions_table
from ibinn.sources import IMAGE_ERRORS, Failure, open_source
from ibinn.types import Prediction

_PLAIN_WIDTH = 160

app = typer.Typer(
    help="Classify images, and say how far the answers can be trusted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Server = Annotated[
    str | None,
    typer.Option(help="Ask the server at this address instead of loading a bundle.",
                 metavar="HOST:PORT", show_default=False),
]  # fmt: skip
Bundle = Annotated[
    Path | None,
    typer.Option(help="Load this bundle instead of the embedded one.", metavar="DIR",
                 show_default=False),
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
def classify(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", show_default=False)],
    server: Server = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
    alpha: Annotated[
        float | None,
        typer.Option(help="Significance of the verdict, instead of the bundle's.",
                     show_default=False),
    ] = None,
) -> None:  # fmt: skip
    """Answer each IMAGE with its class, a verdict and the reason."""
    console = _console()
    answers: list[tuple[str, Prediction]] = []
    failed = 0
    with _reported_errors():
        try:
            with open_source(server=server, bundle=bundle, alpha=alpha) as source:
                for path, answer in zip(images, source.classify(images), strict=True):
                    if isinstance(answer, Failure):
                        failed += 1
                        _complain(answer.error, image=path)
                    elif as_json:
                        typer.echo(json_line(answer, image=str(path)))
                    else:
                        answers.append((str(path), answer))
        finally:
            # Also when the connection broke on the way: what was answered is shown.
            if len(answers) == 1 and len(images) == 1:
                console.print(prediction_block(*answers[0]))
            elif answers:
                console.print(predictions_table(answers))
    if failed:
        raise typer.Exit(1)


@app.command()
def explain(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", show_default=False)],
    out: Annotated[
        Path, typer.Option(help="Where to write the picture.", metavar="PNG", show_default=False)
    ],
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="Explain this class; may be given more than once. "
                     "Without it: the most probable ones.", metavar="NAME", show_default=False),
    ] = None,
    server: Server = None,
    bundle: Bundle = None,
) -> None:  # fmt: skip
    """Draw which parts of IMAGE speak for and against classes, as a PNG."""
    console = _console()
    with _reported_errors():
        if out.suffix.lower() != ".png":
            raise ConfigError(f"--out is {str(out)!r}, expected a name that ends in .png")
        if not out.parent.is_dir():
            raise ConfigError(f"the folder of --out, {str(out.parent)!r}, does not exist; make it")
        with open_source(server=server, bundle=bundle) as source:
            try:
                explanation = source.explain(image, classes or None)
            except IMAGE_ERRORS as error:
                _complain(error, image=image)
                raise typer.Exit(1) from error
        from ibinn.decoding import Limits, open_image
        from ibinn.explain.drawing import SheetRow, explanation_sheet

        original = open_image(image, Limits()).pixels
        row = SheetRow(title=image.name, explanation=explanation, original=original)
        explanation_sheet([row]).save(out, format="PNG")
        console.print(prediction_block(str(image), explanation.prediction))
        for heatmap in explanation.heatmaps:
            console.print(
                f"heatmap of {heatmap.class_name}: adds up to log q = "
                f"{heatmap.log_posterior:.4f} nats within {heatmap.completeness_error:.1e}",
                markup=False, highlight=False,
            )  # fmt: skip
        console.print(f"written to {out}", markup=False, highlight=False)


@app.command()
def model(server: Server = None, bundle: Bundle = None, as_json: AsJson = False) -> None:
    """Describe the model: classes, calibration, tests and what they are worth."""
    with _reported_errors(), open_source(server=server, bundle=bundle) as source:
        info = source.model()
        if as_json:
            typer.echo(json_line(info))
        else:
            _console().print(model_block(info))


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", show_default=False)],
) -> None:
    """Check that every file of BUNDLE has the hash that its manifest states."""
    with _reported_errors():
        from ibinn.manifest import verify as verify_files

        manifest = verify_files(bundle)
        typer.echo(
            f"{bundle}: intact; {len(manifest.files)} files of {manifest.name}, "
            f"weights {manifest.weights_digest}"
        )


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal without these characters shows "?" instead of ending the program.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    app()


def _console() -> Console:
    """Console on stdout; wide lines where no terminal sets a width, so that nothing is cut."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


@contextmanager
def _reported_errors() -> Iterator[None]:
    """End with code 2 and a message instead of a traceback on an error of `ibinn`."""
    try:
        yield
    except IbinnError as error:
        _complain(error)
        raise typer.Exit(2) from error


def _complain(error: IbinnError, *, image: Path | None = None) -> None:
    where = f"{image}: " if image is not None and str(image) not in str(error) else ""
    typer.echo(f"ibinn: {where}{error}", err=True)


if __name__ == "__main__":
    main()
