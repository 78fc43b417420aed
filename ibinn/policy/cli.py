"""The commands `ibinn policy`: fit a policy, show one, check one against a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import Progress

from ibinn.errors import ConfigError, NotCalibratedError
from ibinn.terminal import console, reported_errors

if TYPE_CHECKING:
    from ibinn.held_out import HeldOutScores
    from ibinn.trusted import TrustedClassifier

app = typer.Typer(
    help="Decide what is accepted, deferred to a person or rejected, at a certified risk.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_EXAMPLE = """Example of a costs file:

\b
    error = 1.0           # acting on a wrong class
    defer = 0.2           # asking a person
    reject = 0.05         # asking for another picture
    unknown = 1.0         # acting on an image of no class (or as error)
    alpha = 0.02          # significance of the test (or the bundle's)
    [confusions.cat]      # where the truth is cat,
    dog = 0.1             #   acting on dog costs 0.1 instead of 1.0
    [priors]              # class shares in use (or as in calibration)
    cat = 0.4
    dog = 0.6
    [class_alpha]         # class-wise significances (or none)
    cat = 0.05
"""

_FIT_HELP = (
    "Fit a policy, print what it will do per 1,000 images, and write it.\n\n"
    "The threshold is the laxest that keeps the share of errors among accepted answers at or below "
    "R with confidence 1 - D (Learn-then-Test with exact binomial tails). It is fitted on the "
    "bundle's own calibration images unless --images or --scores gives others, which must not have "
    "served training.\n\n" + escape(_EXAMPLE)
)

Bundle = Annotated[
    Path | None,
    typer.Option(help="Use this bundle instead of the embedded one.", metavar="DIR",
                 show_default=False),
]  # fmt: skip
File = Annotated[Path, typer.Argument(metavar="POLICY", show_default=False)]


@app.command(help=_FIT_HELP)
def fit(
    costs: Annotated[
        Path,
        typer.Option(help="What actions cost, TOML or JSON.", metavar="FILE", show_default=False),
    ],
    max_risk: Annotated[
        float,
        typer.Option(help="Largest share of errors among accepted answers.", metavar="R",
                     show_default=False),
    ],
    delta: Annotated[
        float, typer.Option(help="Probability that the share is larger after all.", metavar="D")
    ] = 0.05,
    out: Annotated[Path, typer.Option(help="Where to write the policy.", metavar="FILE")] = Path(
        "policy.json"
    ),
    bundle: Bundle = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Fit on these images, a folder of class folders.", metavar="DIR",
                     show_default=False),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="Fit on these scores, from ibinn.held_out.save.", metavar="FILE",
                     show_default=False),
    ] = None,
    ood_share: Annotated[
        float, typer.Option(help="Share of unknown images to expect, for the figures printed.",
                            metavar="S")
    ] = 0.0,
    name: Annotated[
        str | None, typer.Option(help="Name of the policy; default: that of --out.",
                                 show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of images where priors are set.")] = 0,
) -> None:  # fmt: skip
    """Fit a policy; typer shows `_FIT_HELP`."""
    from ibinn.policy import file, fitting, forecast, terms
    from ibinn.policy.rendering import forecast_block, policy_block
    from ibinn.sources import load_classifier

    with reported_errors():
        if images is not None and scores is not None:
            raise ConfigError("got --images and --scores; give one of them")
        if not out.parent.is_dir():
            raise ConfigError(f"the folder of --out, {str(out.parent)!r}, does not exist; make it")
        if not 0 <= ood_share <= 1:
            raise ConfigError(f"--ood-share is {ood_share:g}; expected 0 to 1")
        show = console()
        classifier = load_classifier(bundle, None)
        facts = fitting.facts_of(classifier)
        wanted = terms.read(costs, facts.classes)
        held_out = _held_out(classifier, images, scores)
        policy = fitting.fit(
            wanted,
            held_out,
            facts,
            max_risk=max_risk,
            delta=delta,
            name=name or out.stem,
            seed=seed,
        )
        used = fitting.in_use(held_out, policy, seed=seed)
        found = forecast.forecast(
            policy,
            fitting.model_answers(used, facts),
            used.labels,
            unknown_share=ood_share,
            missed=forecast.known_misses(classifier.info.tests, policy.alpha),
        )
        try:
            file.write(policy, out)
        except OSError as error:
            raise ConfigError(f"--out {str(out)!r} cannot be written: {error}") from error
        show.print(policy_block(policy))
        show.print(forecast_block(found))
        show.print(f"written to {out}", markup=False, highlight=False)


@app.command()
def show(
    path: File,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as one line of JSON.")] = False,
) -> None:
    """Describe the policy in a file."""
    from ibinn.json_lines import json_line
    from ibinn.policy import file
    from ibinn.policy.rendering import policy_block

    with reported_errors():
        policy = file.read(path)
        if as_json:
            typer.echo(json_line(policy, digest=policy.digest))
        else:
            console().print(policy_block(policy))


@app.command()
def check(path: File, bundle: Bundle = None) -> None:
    """Check that a policy was made for a bundle, and that neither file was changed."""
    from ibinn.policy import file
    from ibinn.policy.decision import check as check_policy

    with reported_errors():
        from ibinn.bundle import embedded_path
        from ibinn.manifest import verify

        policy = file.read(path)
        manifest = verify(embedded_path() if bundle is None else bundle)
        check_policy(
            policy,
            classes=manifest.classes,
            weights=manifest.weights_digest,
            calibration=manifest.calibration_digest,
        )
        if policy.alpha < manifest.alpha or policy.coverage != manifest.conformal_coverage:
            raise ConfigError(
                f"policy {policy.name!r} is for α = {policy.alpha:g} and class sets for "
                f"{policy.coverage:g}, {manifest.name} has {manifest.alpha:g} and "
                f"{manifest.conformal_coverage:g}; fit it again for this bundle"
            )
        risk = "no certified risk"
        if policy.certificate is not None:
            risk = (
                f"risk at most {policy.certificate.max_risk:g} with confidence "
                f"{1 - policy.certificate.delta:g}"
            )
        typer.echo(f"{path}: fits {manifest.name}; {risk}; policy {policy.digest}")


def _held_out(
    classifier: TrustedClassifier, images: Path | None, scores: Path | None
) -> HeldOutScores:
    """The images to fit on: those given, or the bundle's own calibration images.

    Raises:
        NotCalibratedError: None are given, and the bundle keeps none.
    """
    from ibinn import held_out
    from ibinn.policy.scoring import score_folder

    versions = classifier.info.versions
    if scores is not None:
        return held_out.load(scores, weights=versions.weights, calibration=versions.calibration)
    if images is not None:
        with Progress(transient=True) as bar:
            task = bar.add_task("scoring images")
            return score_folder(
                classifier,
                images,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    kept: HeldOutScores | None = getattr(classifier.reference, "held_out", None)
    if kept is None:
        raise NotCalibratedError(
            f"bundle {classifier.info.name!r} keeps no scores of its calibration images; give "
            "--images DIR or --scores FILE, or calibrate it again with this version"
        )
    return kept
