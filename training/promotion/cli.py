"""The commands `ibinn-train promote`, `approve` and `plan`.

Exit codes: 0 promoted or approved; 1 refused; 2 something is wrong, and the message says what;
3 the candidate waits for a person's approval.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ibinn.errors import CandidateRefusedError, ConfigError, IbinnError

if TYPE_CHECKING:
    from ibinn.signing import PublicKey
    from training.promotion.terms import Terms

REFUSED = 1
WRONG = 2
WAITING = 3

CurrentOption = Annotated[Path | None, typer.Option(help="Bundle that is served now.")]
FirstOption = Annotated[
    Path | None,
    typer.Option(help="Bundle that was approved first; default: the current one."),
]
AcceptanceOption = Annotated[
    Path | None, typer.Option(help="Class folders of images that no model has seen.")
]
OodOption = Annotated[
    Path | None, typer.Option(help="Folder with one folder per kind of unknown image.")
]
MarginOption = Annotated[float | None, typer.Option(help="By how much it may be worse.")]
KeyOption = Annotated[Path, typer.Option(help="Private key, from `ibinn keygen`.")]
PassphraseOption = Annotated[
    str | None,
    typer.Option(help="Environment variable with the private key's passphrase.", metavar="NAME"),
]
TrustedOption = Annotated[
    Path | None,
    typer.Option(help="Public keys that may approve and sign plans: a file, or a folder of *.pem."),
]
DeployOption = Annotated[Path | None, typer.Option(help="The servers' models folder.")]
NameOption = Annotated[
    str | None, typer.Option(help="Of the bundle there; default: from name and digests.")
]

plan_app = typer.Typer(no_args_is_help=True, help="Signed plans for promotion without a person.")


def promote(
    candidate: Annotated[
        Path | None, typer.Argument(help="Bundle that wants to be served.", show_default=False)
    ] = None,
    current: CurrentOption = None,
    first: FirstOption = None,
    acceptance: AcceptanceOption = None,
    ood: OodOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the decision; a new one.")] = None,
    approved: Annotated[
        Path | None,
        typer.Option(help="Deploy the candidate of this approved decision; compares nothing."),
    ] = None,
    deploy: DeployOption = None,
    name: NameOption = None,
    trusted_keys: TrustedOption = None,
    plan: Annotated[
        Path | None, typer.Option(help="Signed plan within which nobody is asked.")
    ] = None,
    plan_log: Annotated[
        Path | None, typer.Option(help="Where its promotions are counted; default: PLAN.log.jsonl.")
    ] = None,
    accuracy_margin: MarginOption = None,
    calibration_margin: MarginOption = None,
    false_positive_margin: MarginOption = None,
    miss_margin: MarginOption = None,
    recall_margin: MarginOption = None,
    new_class_recall: Annotated[
        float | None, typer.Option(help="Least recall, right and not flagged, of a new class.")
    ] = None,
    retire: Annotated[
        list[str] | None, typer.Option(help="Class that was given up; repeatable.")
    ] = None,
    uses: Annotated[
        Path | None, typer.Option(help="Log of uses; default: ACCEPTANCE.uses.jsonl beside it.")
    ] = None,
    use_limit: Annotated[
        int, typer.Option(min=1, help="Most comparisons on one acceptance set.")
    ] = 10,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Hold a candidate against the current and the first approved model; deploy what is approved.

    Ends with 0 (promoted), 1 (refused), 2 (something is wrong) or 3 (waits for approval).
    """
    with _reported():
        from training import promote as promoting

        if approved is not None:
            where, by = promoting.promote_approved(
                approved,
                _given(deploy, "--deploy"),
                keys=_keys(trusted_keys),
                candidate=candidate,
                name=name,
            )
            typer.echo(f"promoted: {where} (approved by {by.by}, {by.time})")
            return
        if plan is None and deploy is not None:
            raise ConfigError(
                "--deploy needs an approved decision (--approved DECISION) or a signed plan "
                "(--plan FILE); without either the candidate waits for a person"
            )
        automatic = None
        margins = {
            "accuracy": accuracy_margin,
            "calibration": calibration_margin,
            "false_positives": false_positive_margin,
            "misses": miss_margin,
            "recall": recall_margin,
            "new_class_recall": new_class_recall,
        }
        given = {key: value for key, value in margins.items() if value is not None}
        terms = _terms(given)
        if plan is not None:
            from training.promotion.plan import read

            if given:
                raise ConfigError(
                    f"{', '.join(given)}: margins are the plan's where there is one; leave out "
                    "either the plan or the margins"
                )
            found = read(plan, _keys(trusted_keys))
            terms = found.terms
            automatic = promoting.Automatic(
                plan=found,
                log=plan_log or plan.with_name(f"{plan.name}.log.jsonl"),
                models=_given(deploy, "--deploy"),
                name=name,
            )
        present = _given(current, "--current")
        folder = _given(out, "--out")
        decision = promoting.propose(
            promoting.Comparison(
                candidate=_given(candidate, "CANDIDATE"),
                current=present,
                first=first or present,
                acceptance=_given(acceptance, "--acceptance"),
                ood=_given(ood, "--ood"),
                terms=terms,
                retired=frozenset(retire or ()),
                uses=uses,
                use_limit=use_limit,
                device=device,
            ),
            folder,
            automatic=automatic,
        )
        typer.echo(f"{decision.state.value}: {folder / 'decision.html'}")
        for reason in decision.reasons:
            typer.echo(f"  {reason}")
        match decision.state.value:
            case "REFUSED":
                raise typer.Exit(REFUSED)
            case "PENDING_APPROVAL":
                typer.echo(f"approve: ibinn-train approve {folder} --by NAME --key FILE")
                raise typer.Exit(WAITING)


def approve(
    decision: Annotated[Path, typer.Argument(help="Folder of the decision.")],
    by: Annotated[str, typer.Option(help="Who approves.")],
    key: KeyOption,
    passphrase_env: PassphraseOption = None,
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    valid_days: Annotated[int, typer.Option(min=1, help="Days in which it may be deployed.")] = 14,
    sign_bundle: Annotated[
        bool, typer.Option("--sign-bundle", help="Sign the candidate too, as `ibinn sign` does.")
    ] = False,
    deploy: DeployOption = None,
    name: NameOption = None,
    trusted_keys: TrustedOption = None,
) -> None:
    """Approve a decision that waits for a person, by signing it; with --deploy, promote too."""
    with _reported():
        from ibinn import signing
        from training import promote as promoting
        from training.promotion import approval
        from training.promotion.decision import read

        keys = None if deploy is None else _keys(trusted_keys)
        found, _ = read(decision)
        approval.require_passed(found, decision)
        for reason in found.reasons:
            typer.echo(f"  {reason}")
        pem, passphrase = _pem(key), _passphrase(passphrase_env)
        made, key_id = approval.approve(
            decision, by=by, key=pem, passphrase=passphrase, comment=comment, valid_days=valid_days
        )
        typer.echo(f"approved by {made.by} with key {key_id}, until {made.expires}")
        if sign_bundle:
            signing.sign_bundle(found.models["candidate"].path, pem, passphrase=passphrase)
        if deploy is not None and keys is not None:
            where, _ = promoting.promote_approved(decision, deploy, keys=keys, name=name)
            typer.echo(f"promoted: {where}")


@plan_app.command("new")
def plan_new(
    path: Annotated[Path, typer.Argument(help="File to write, such as plan.toml.")],
    current: CurrentOption = None,
    first: FirstOption = None,
    acceptance: AcceptanceOption = None,
    ood: OodOption = None,
    days: Annotated[int, typer.Option(min=1, help="For how long it holds.")] = 90,
    promotions: Annotated[int, typer.Option(min=1, help="How many it allows in all.")] = 3,
) -> None:
    """Write a plan for these models and images, with the usual margins, to edit and sign."""
    with _reported():
        from training.promotion import plan
        from training.promotion.images import read_held
        from training.promotion.measuring import identify

        if path.exists():
            raise ConfigError(f"{path} exists; choose another name")
        present = _given(current, "--current")
        text = plan.template(
            acceptance=read_held(_given(acceptance, "--acceptance"), option="--acceptance").digest,
            ood=read_held(_given(ood, "--ood"), option="--ood").digest,
            first=identify(first or present).weights,
            current=identify(present).weights,
            until=datetime.now(UTC) + timedelta(days=days),
            promotions=promotions,
            terms=_terms({}),
        )
        path.write_text(text, encoding="utf-8")
        typer.echo(f"written: {path}; edit it, then: ibinn-train plan sign {path} --key FILE")


@plan_app.command("sign")
def plan_sign(
    path: Annotated[Path, typer.Argument(help="The plan.")],
    key: KeyOption,
    passphrase_env: PassphraseOption = None,
) -> None:
    """Check a plan and sign it; whatever changes it later needs a new signature."""
    with _reported():
        from training.promotion import plan

        key_id = plan.sign(path, _pem(key), passphrase=_passphrase(passphrase_env))
        typer.echo(f"{path}: signed by key {key_id}")


@plan_app.command("check")
def plan_check(
    path: Annotated[Path, typer.Argument(help="The plan.")],
    trusted_keys: TrustedOption = None,
    plan_log: Annotated[
        Path | None, typer.Option(help="Where its promotions are counted; default: PLAN.log.jsonl.")
    ] = None,
) -> None:
    """Check a plan's signature, and say what is left of it."""
    with _reported():
        from training.promotion import log, plan

        found = plan.read(path, _keys(trusted_keys))
        entries = log.read(plan_log or path.with_name(f"{path.name}.log.jsonl"))
        made = sum(entry["plan"] == found.digest for entry in entries)
        typer.echo(
            f"{path}: until {found.valid_until.isoformat()}, {made} of {found.promotions} "
            f"promotions made, digest {found.digest[:12]}"
        )


@contextmanager
def _reported() -> Iterator[None]:
    """One line on standard error for an error of ours: exit code 1 if refused, else 2."""
    try:
        yield
    except IbinnError as error:
        typer.secho(f"ibinn-train: {error}", err=True, fg=typer.colors.RED)
        refused = isinstance(error, CandidateRefusedError)
        raise typer.Exit(REFUSED if refused else WRONG) from error


def _given(path: Path | None, option: str) -> Path:
    if path is None:
        raise ConfigError(f"{option} is missing; see --help")
    return path


def _terms(margins: dict[str, float]) -> Terms:
    from training.promotion.terms import Terms

    return Terms(**margins)


def _keys(path: Path | None) -> tuple[PublicKey, ...]:
    from ibinn.signing import trusted_keys

    return trusted_keys(_given(path, "--trusted-keys"))


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"--key {path} cannot be read ({error.strerror}); make one with `ibinn keygen`"
        ) from error


def _passphrase(variable: str | None) -> bytes | None:
    if variable is None:
        return None
    if not (value := os.environ.get(variable)):
        raise ConfigError(f"--passphrase-env is {variable}, and that variable is empty or not set")
    return value.encode()
