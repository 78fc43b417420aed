"""The command `ibinn-train`.

Exit codes: 0 done; 1 the run stopped early and can be resumed; 2 something is wrong, and the
message says what. `promote` and `approve` have their own, see `training.promotion.cli`.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ibinn.errors import IbinnError
from training.promotion import cli as promotion

if TYPE_CHECKING:
    import torch

    from training.trust_report import OodFolders

app = typer.Typer(
    no_args_is_help=True,
    help="Train, evaluate and examine trustworthy image classifiers.",
    pretty_exceptions_enable=False,
    add_completion=False,
)

DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        help="Folder of class folders; folder, pattern or URL of shards; or: digits, elpv.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value, such as epochs=20 or optimizer.learning_rate=0.002."),
]
GroupOption = Annotated[
    str | None,
    typer.Option(help="'parent' or a regular expression with a group: images kept together."),
]
SkipOption = Annotated[
    bool, typer.Option("--skip-unreadable", help="Go on without unreadable files; count them.")
]
OodOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder with mnist/ and tiny-imagenet/ for the report; default: beside --data."
    ),
]
OodCountOption = Annotated[
    int, typer.Option(min=2, help="Most images of each out-of-distribution set in the report.")
]
AcceleratorOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


@app.command()
def doctor(
    data: Annotated[str, typer.Argument(help="Folder of class folders, or: digits, elpv.")],
    recipe: Annotated[
        str | None, typer.Option(help="Examine with this recipe's split instead of the default.")
    ] = None,
    group_by: GroupOption = None,
    alpha: Annotated[float, typer.Option(help="Significance wished for per class.")] = 0.05,
) -> None:
    """Examine a data set: what is in it, what is wrong with it, what it can promise."""
    from rich.console import Console

    from training.data import open_data
    from training.doctor import diagnose
    from training.doctor_view import render
    from training.recipes import recipe as recipe_of
    from training.splits import SplitConfig

    with reported_errors():
        split = recipe_of(recipe).split if recipe else SplitConfig()
        source = open_data(data, skip_unreadable=True, group_by=group_by)
        Console().print(render(diagnose(source, split, alpha=alpha)))


@app.command()
def shard(
    data: Annotated[str, typer.Argument(help="Folder of class folders, or: digits, elpv.")],
    out: Annotated[Path, typer.Option(help="New folder of the shards and their index.")],
    shard_mib: Annotated[
        int, typer.Option(min=1, help="Size at which a shard is closed, in MiB.")
    ] = 128,
    seed: Annotated[int, typer.Option(help="Of the order of the images.")] = 0,
    group_by: GroupOption = None,
    skip_unreadable: SkipOption = False,
) -> None:
    """Write a data set as webdataset shards with an index, so that it opens at once."""
    with reported_errors():
        from training.console import counting
        from training.data import open_data
        from training.shard_writer import write_shards

        with counting("reading images") as read:
            source = open_data(
                data, skip_unreadable=skip_unreadable, group_by=group_by, progress=read
            )
        with counting("writing images") as written:
            index = write_shards(
                source, out, shard_bytes=shard_mib * 2**20, seed=seed, progress=written
            )
        size = sum(entry.size for entry in index.shards)
        typer.echo(
            f"written: {out}: {len(index.names):,} images of {len(index.class_names)} classes in "
            f"{len(index.shards)} shards, {size / 1e6:,.1f} MB; {len(source.skipped)} unreadable "
            f"files left out; use it as --data {out}"
        )


@app.command()
def recipes(
    show: Annotated[
        str | None, typer.Option(help="Print one recipe's whole configuration.")
    ] = None,
) -> None:
    """List the recipes, or print one."""
    from training.config import to_dict
    from training.recipes import RECIPES
    from training.recipes import recipe as recipe_of

    with reported_errors():
        if show is not None:
            typer.echo(json.dumps(to_dict(recipe_of(show)), indent=2))
            return
        width = max(map(len, RECIPES))
        for entry in RECIPES.values():
            typer.echo(f"{entry.name:<{width}}  {entry.summary}")


@app.command()
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
                ood=_ood_folders(ood_data, data),
                with_baseline=baseline,
                ood_count=ood_count,
                device=fabric.device,
                progress=console.evaluation,
            )
        _print_summary(evaluation.headline(), out / "bundle")


@app.command()
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
                ood=_ood_folders(ood_data, data),
                with_report=report,
                device=fabric.device,
                progress=console.evaluation,
            )
        _print_summary(headline, out / "bundle")


@app.command()
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
                ood=_ood_folders(ood_data, data),
                curve=curve,
                extent=extent,
                progress=console.evaluation,
            )
        files = report_files(evaluation, classifier)
        for name, text in files.items():
            (out / name).write_text(text, encoding="utf-8")
        if into_bundle:
            put_into_bundle(bundle, evaluation, files, curve)
        _print_summary(evaluation.headline(), out)


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
def study(
    name: Annotated[
        str, typer.Argument(metavar="STUDY", help="small, cifar10 or cifar10-two-cores.")
    ],
    data: Annotated[
        Path, typer.Option(help="Folder that holds the data sets (mnist, cifar10, …), or one.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the study; an existing one is resumed.")],
    seeds: Annotated[
        str | None, typer.Option(help="Seeds, such as 0,1,2; default: the study's own.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only this model or data set, such as gamma-1 or mnist; repeatable."),
    ] = None,
    stop_after: Annotated[
        float | None, typer.Option(help="Stop, to be resumed, after about so many seconds.")
    ] = None,
    accelerator: AcceleratorOption = "auto",
) -> None:
    """Train many models on the same images and set their figures beside the published ones.

    Finished runs are skipped, the others go on where they stopped. Writes study.html,
    study.json and a CSV per table.
    """
    with reported_errors():
        from training import fit as fitting
        from training.finish import library_versions, machine
        from training.study.conduct import collected, conduct
        from training.study.console import StudyConsole
        from training.study.page import HTML_FILE, write_study
        from training.study.plan import runs_of
        from training.study.recipes import study as study_of

        chosen = study_of(name)
        wanted = _seeds(seeds)
        runs = runs_of(chosen, seeds=wanted, only=only or ())
        fabric = fitting.Hardware(accelerator=accelerator).fabric()
        with StudyConsole() as console:
            try:
                conducted = conduct(
                    chosen,
                    data,
                    out,
                    fabric=fabric,
                    reporter=console,
                    seeds=wanted,
                    only=only or (),
                    stop_after_s=stop_after,
                )
            except KeyboardInterrupt:
                conducted = collected(chosen, runs, out)
        summary = write_study(
            conducted,
            out,
            facts=(
                ("command", shlex.join(["ibinn-train", *sys.argv[1:]])),
                ("machine", machine(fabric.device)),
                *library_versions().items(),
            ),
        )
        for finding in summary.findings:
            typer.echo(f"{finding.data}: {finding.claim}: {finding.answer.value}. {finding.words}")
        typer.echo(f"written: {out / HTML_FILE}")
        if not conducted.complete:
            typer.echo("not complete; the same command goes on from here", err=True)
            raise typer.Exit(1)


@app.command("import-checkpoint")
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="A released checkpoint, such as beta_8.avg.pt.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Folder of class folders (names or WordNet ids) with images that the model was "
            "not trained on; without one the bundle is not calibrated and assesses nothing."
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(min=2, help="Most images that are calibrated on, half for each part.")
    ] = 5_000,
    class_names: Annotated[
        Path | None, typer.Option(help="File with a class name a line; default: ImageNet's.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model; default: the file's.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Significance of the verdict.")] = 0.01,
    seed: Annotated[int, typer.Option(help="Seed of which images calibrate what.")] = 0,
    skip_unreadable: SkipOption = False,
    device: Annotated[str, typer.Option(help="Where calibration computes: cpu or cuda.")] = "cpu",
) -> None:
    """Make a bundle of a released ImageNet checkpoint; no code in the file is run."""
    with reported_errors():
        from training.import_checkpoint import ImportRequest
        from training.import_checkpoint import import_checkpoint as import_one

        request = ImportRequest(
            file=file,
            out=out,
            name=name,
            class_names=class_names,
            calibrate=calibrate,
            images=images,
            skip_unreadable=skip_unreadable,
            alpha=alpha,
            seed=seed,
            command=shlex.join(["ibinn-train", *sys.argv[1:]]),
        )
        written = import_one(request, device=_usable(device), say=typer.echo)
        typer.echo(
            f"written: {out} ({len(written.classes)} classes, weights "
            f"{written.weights_digest[:12]})"
        )
        if calibrate is None:
            typer.echo(
                "not calibrated: every verdict will be NOT_ASSESSED; import again with "
                "--calibrate FOLDER"
            )


@app.command("export-checkpoint")
def export_checkpoint(
    bundle: Annotated[Path, typer.Argument(help="A bundle of architecture ib-inn-50.")],
    out: Annotated[Path, typer.Option(help="File to write, such as model.avg.pt.")],
) -> None:
    """Write a bundle as a checkpoint in the layout of the released ImageNet networks."""
    with reported_errors():
        from training.export_checkpoint import export_checkpoint as export_one

        count = export_one(bundle, out)
        typer.echo(f"written: {out} ({count} tensors)")


app.command()(promotion.promote)
app.command()(promotion.approve)
app.add_typer(promotion.plan_app, name="plan")


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn an error of ours into one line on standard error and exit code 2."""
    try:
        yield
    except IbinnError as error:
        typer.secho(f"ibinn-train: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(2) from error


def _ood_folders(ood_data: Path | None, data: str) -> OodFolders:
    from training.trust_report import OodFolders

    return OodFolders.under(ood_data if ood_data is not None else Path(data).resolve().parent)


def _usable(device: str) -> torch.device:
    import torch

    from ibinn.errors import ConfigError

    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"--device is {device!r}, which cannot be used ({str(error).splitlines()[0]}); "
            "expected cpu, or cuda where there is one"
        ) from error


def _seeds(text: str | None) -> tuple[int, ...] | None:
    from ibinn.errors import ConfigError

    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--seeds is {text!r}; expected whole numbers with commas between, such as 0,1,2"
        ) from error


def _print_summary(headline: dict[str, float], where: Path) -> None:
    for name, value in headline.items():
        typer.echo(f"{name:>24}  {value:.4g}")
    typer.echo(f"written: {where} (open {where / 'report.html'})")


def main() -> None:
    """Entry point of the console script."""
    app()
