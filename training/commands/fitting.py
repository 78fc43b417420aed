"""Commands that train: fit, retrain."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import (
    AcceleratorOption,
    DataOption,
    GroupOption,
    OodCountOption,
    OodOption,
    SetOption,
    SkipOption,
    ood_folders,
    print_summary,
    reported_errors,
)


def fit(
    recipe: Annotated[str, typer.Option(help="Name of a recipe; see `ibinn-train recipes`.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder of the run; an existing run is resumed.")],
    set_: SetOption = None,
    group_by: GroupOption = None,
    skip_unreadable: SkipOption = False,
    ood_data: OodOption = None,
    baseline: Annotated[
        bool,
        typer.Option("--baseline", help="Also train a ResNet for as many epochs."),
    ] = False,
    ood_count: OodCountOption = 3_000,
    accelerator: AcceleratorOption = "auto",
    devices: Annotated[
        int,
        typer.Option(help="Number of processes on this machine; torchrun's own under torchrun."),
    ] = 1,
    stop_after: Annotated[
        float | None, typer.Option(help="Stop with a checkpoint after so many seconds.")
    ] = None,
) -> None:
    """Train a model on a folder of images and write its bundle with a report."""
    with reported_errors():
        from training import fit as fitting
        from training.config import override
        from training.console import Console, counting
        from training.finish import finish
        from training.recipes import recipe as recipe_of

        config = override(recipe_of(recipe), set_ or [])
        fabric = fitting.Hardware(accelerator=accelerator, devices=devices).fabric()
        with counting("reading images", quiet=not fabric.is_global_zero) as read:
            prepared = fitting.prepare(
                config,
                data,
                out,
                skip_unreadable=skip_unreadable,
                group_by=group_by,
                write=fabric.is_global_zero,
                progress=read,
            )
        with Console(out, quiet=not fabric.is_global_zero) as console:
            console.data(prepared.source, prepared.manifest)
            trained = fitting.train_model(
                config, prepared, out, fabric=fabric, progress=console, stop_after_s=stop_after
            )
            if trained is None:
                console.say(f"stopped after {stop_after:g} s; the same command goes on from here")
                raise typer.Exit(1)
            if not fabric.is_global_zero:
                return
            console.say("calibrating, evaluating and writing the report")
            evaluation = finish(
                trained,
                config,
                prepared,
                out,
                command=shlex.join(["ibinn-train", *sys.argv[1:]]),
                ood=ood_folders(ood_data, data),
                with_baseline=baseline,
                ood_count=ood_count,
                device=fabric.device,
                progress=console.evaluation,
            )
        print_summary(evaluation.headline(), out / "bundle")


def retrain(
    feedback: Annotated[
        Path, typer.Option(help="Folder of `ibinn-serve records export`.", show_default=False)
    ],
    base: Annotated[Path, typer.Option(help="Bundle of the model to go on from.")],
    data: Annotated[
        str, typer.Option(help="What the base was trained on; RUN/data if it was retrained.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run; an existing run is resumed.")],
    mode: Annotated[str, typer.Option(help="fine-tune or scratch.")] = "fine-tune",
    trusted_sources: Annotated[
        Path | None,
        typer.Option(help="File with a trusted source a line: caller/source, * for any text."),
    ] = None,
    trust: Annotated[
        list[str] | None, typer.Option(help="A trusted source, likewise; repeatable.")
    ] = None,
    min_checks: Annotated[
        int, typer.Option(help="Other sources: least images on which they could be checked.")
    ] = 20,
    agreement: Annotated[
        float, typer.Option(help="Other sources: least lower 95 % bound of their agreement.")
    ] = 0.8,
    check_confidence: Annotated[
        float, typer.Option(help="From where on the base's own answers serve as a check.")
    ] = 0.99,
    share: Annotated[
        float, typer.Option(help="Other sources: most of a class's images that one gives.")
    ] = 0.2,
    min_new_class: Annotated[
        int, typer.Option(help="Images that a class unknown to the base needs to be added.")
    ] = 50,
    replay: Annotated[
        float, typer.Option(help="Share of the old training images that is trained on again.")
    ] = 1.0,
    calibrate_on: Annotated[
        str,
        typer.Option(
            help="known: calibrate and test on feedback images only where the chance of being "
            "selected for labelling is known; all: on any."
        ),
    ] = "known",
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Data never to train on, such as an acceptance set; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn from old data and sources.")] = 0,
    set_: SetOption = None,
    group_by: GroupOption = None,
    skip_unreadable: SkipOption = False,
    ood_data: OodOption = None,
    compose_only: Annotated[
        bool, typer.Option("--compose-only", help="Write what would be trained on, and stop.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write the bundle's trust report.")
    ] = True,
    accelerator: AcceleratorOption = "auto",
    stop_after: Annotated[
        float | None, typer.Option(help="Stop with a checkpoint after so many seconds.")
    ] = None,
) -> None:
    """Train a model further with what was said about its answers; writes a new bundle."""
    with reported_errors():
        from training import retrain as retraining
        from training.console import Console
        from training.fit import Hardware
        from training.retraining.command import complete, request_of
        from training.retraining.record import PAGE

        request = request_of(
            feedback=feedback,
            base=base,
            data=data,
            mode=mode,
            trusted_file=trusted_sources,
            trusted=trust or (),
            min_checks=min_checks,
            agreement=agreement,
            check_confidence=check_confidence,
            share=share,
            min_new_class=min_new_class,
            replay=replay,
            calibrate_on=calibrate_on,
            exclude=exclude or (),
            seed=seed,
            assignments=set_ or (),
            group_by=group_by,
            skip_unreadable=skip_unreadable,
        )
        plan = retraining.prepare(request, out)
        with Console(out) as console:
            for line in retraining.steps_said(plan.record):
                console.say(line)
            console.say(f"composed: {out / PAGE}")
            if compose_only:
                return
            console.data(plan.prepared.source, plan.prepared.manifest)
            fabric = Hardware(accelerator=accelerator).fabric()
            trained = retraining.train_further(
                plan, out, fabric=fabric, progress=console, stop_after_s=stop_after
            )
            if trained is None:
                console.say(f"stopped after {stop_after:g} s; the same command goes on from here")
                raise typer.Exit(1)
            console.say("calibrating, evaluating and writing the report")
            headline = complete(
                plan,
                trained,
                out,
                command=shlex.join(["ibinn-train", *sys.argv[1:]]),
                ood=ood_folders(ood_data, data),
                with_report=report,
                device=fabric.device,
                progress=console.evaluation,
            )
        print_summary(headline, out / "bundle")
