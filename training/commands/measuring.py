"""Commands that measure a bundle: evaluate, calibrate, extremes, comparator."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import (
    DataOption,
    GroupOption,
    OodCountOption,
    OodOption,
    SkipOption,
    ood_folders,
    print_summary,
    reported_errors,
)


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="A model bundle.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder for report.html and report.json.")],
    chapters: Annotated[
        str, typer.Option(help="all, none, or names with commas (none is quick).")
    ] = "all",
    limit: Annotated[
        int, typer.Option(help="Most images per condition that a costly chapter looks at.")
    ] = 1_000,
    ood_count: OodCountOption = 3_000,
    comparator: Annotated[
        Path | None,
        typer.Option(help="Weights of `ibinn-train comparator`; default: the repository's."),
    ] = None,
    into_bundle: Annotated[
        bool, typer.Option("--into-bundle", help="Also put report and figures into the bundle.")
    ] = False,
    group_by: GroupOption = None,
    skip_unreadable: SkipOption = False,
    ood_data: OodOption = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Measure a bundle on the test images of a data set and write its trust report."""
    with reported_errors():
        from ibinn import bundle as bundles
        from training.chapters.registry import chosen
        from training.console import Console
        from training.import_checkpoint import imported_roles, is_imported
        from training.roles import known_roles
        from training.trust_report import (
            CURVE_FILE,
            Extent,
            default_comparator,
            evaluate_bundle,
            put_into_bundle,
            read_curve,
            report_files,
        )

        manifest = bundles.verify(bundle)
        classifier = bundles.load(bundle, device=device)
        extent = Extent(
            chapters=chosen(chapters),
            limit=limit,
            ood_count=ood_count,
            comparator=comparator or default_comparator(manifest.name),
        )
        if is_imported(manifest):
            roles = imported_roles(bundle, manifest, data, skip_unreadable=skip_unreadable)
        else:
            roles = known_roles(manifest, data, skip_unreadable=skip_unreadable, group_by=group_by)
        curve = read_curve(bundle / CURVE_FILE)
        out.mkdir(parents=True, exist_ok=True)
        with Console(out, quiet=False) as console:
            evaluation = evaluate_bundle(
                classifier,
                manifest,
                roles,
                ood=ood_folders(ood_data, data),
                curve=curve,
                extent=extent,
                progress=console.evaluation,
            )
        files = report_files(evaluation, classifier)
        for name, text in files.items():
            (out / name).write_text(text, encoding="utf-8")
        if into_bundle:
            put_into_bundle(bundle, evaluation, files, curve)
        print_summary(evaluation.headline(), out)


def calibrate(
    bundle: Annotated[Path, typer.Argument(help="A model bundle.")],
    data: DataOption,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the new bundle; default: the same one.")
    ] = None,
    group_by: GroupOption = None,
    skip_unreadable: SkipOption = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Calibrate a bundle anew on the calibration images of its training run.

    The weights stay as they are; figures and report of the old calibration are removed.
    """
    with reported_errors():
        import torch

        from ibinn import bundle as bundles
        from ibinn.errors import ConfigError
        from training.import_checkpoint import is_imported
        from training.recalibrate import recalibrate
        from training.roles import roles_of

        manifest = bundles.verify(bundle)
        if is_imported(manifest):
            raise ConfigError(
                f"{bundle} was imported, so it has no training run whose images calibrate it; "
                "import the checkpoint again with --calibrate FOLDER"
            )
        roles = roles_of(manifest, data, skip_unreadable=skip_unreadable, group_by=group_by)
        written = recalibrate(bundle, roles, out or bundle, device=torch.device(device))
        typer.echo(
            f"calibrated: weights {written.weights_digest[:12]}, calibration "
            f"{written.calibration_digest[:12]}; now run `ibinn-train evaluate {out or bundle}`"
        )


def extremes(
    bundle: Annotated[Path, typer.Argument(help="A calibrated model bundle.")],
    data: DataOption,
    out: Annotated[
        Path, typer.Option(help="Folder of the page; never one that a repository tracks.")
    ] = Path("runs/extremes"),
    count: Annotated[int, typer.Option(min=1, help="Images at each end of a statistic.")] = 10,
    group_by: GroupOption = None,
    skip_unreadable: SkipOption = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Show the most and least unusual test images by every statistic, on a page for local use.

    It holds images of the data set, which may seldom be passed on.
    """
    with reported_errors():
        from ibinn import bundle as bundles
        from training.console import Console
        from training.extremes import check_private, write_page
        from training.fit import held_out_images

        check_private(out)
        manifest = bundles.verify(bundle)
        classifier = bundles.load(bundle, device=device)
        images = held_out_images(manifest, data, skip_unreadable=skip_unreadable, group_by=group_by)
        with Console(out, quiet=False) as console:
            path = write_page(
                classifier, manifest, images, out, count=count, progress=console.evaluation
            )
        typer.echo(f"written: {path} (for local use: it shows images of the data set)")


def comparator(
    bundle: Annotated[Path, typer.Argument(help="The bundle to compare with.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="File to write, such as resnet.safetensors.")],
    run: Annotated[Path, typer.Option(help="Folder of the checkpoint; the same one resumes.")],
    group_by: GroupOption = None,
    skip_unreadable: SkipOption = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train the softmax ResNet that a bundle's report is held against, at the same cost.

    Same training images, preprocessing, augmentation, batch size, smoothing and epochs.
    """
    with reported_errors():
        from ibinn import bundle as bundles
        from training.comparator import train_comparator

        def say(epoch: int, epochs: int, loss: float, accuracy: float) -> None:
            typer.echo(f"epoch {epoch}/{epochs}  loss {loss:.4f}  training accuracy {accuracy:.1%}")

        made = train_comparator(
            bundles.verify(bundle),
            data,
            run=run,
            out=out,
            command=shlex.join(["ibinn-train", *sys.argv[1:]]),
            device=device,
            skip_unreadable=skip_unreadable,
            group_by=group_by,
            progress=say,
        )
        typer.echo(f"{made.name}: {made.description}; test accuracy {made.accuracy.value:.2%}")
