"""Hold a candidate against the models before it, and write what became of it.

The order matters: what can be refused without looking is refused first, the use of the acceptance
set is noted before it is made, and a bundle is copied only after the decision is on the disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ibinn import __version__
from ibinn.errors import DataError
from ibinn.signing import PublicKey
from training.promotion import approval, log, page
from training.promotion import plan as plans
from training.promotion.decision import (
    HTML_FILE,
    JSON_FILE,
    Decision,
    HeldSet,
    State,
    now,
)
from training.promotion.deploying import deploy
from training.promotion.images import HeldImages, read_held, refuse_seen
from training.promotion.judging import Answers, Counts, Outcome, judge, too_few
from training.promotion.measuring import Model, identify, measure
from training.promotion.plan import Plan
from training.promotion.terms import Terms
from training.promotion.uses import LIMIT, take
from training.scoring import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What is held against what.

    Attributes:
        candidate: Bundle.
        current: Bundle that is served now.
        first: Bundle that was approved first; the current one, where it is that.
        acceptance: Class folders of images that no model has seen.
        ood: One folder per kind of image that no model has a class for.
        terms: Margins.
        retired: Classes given up.
        uses: Log of the acceptance set's uses; None: ``FOLDER.uses.jsonl`` beside the set.
        use_limit: Most uses of one set.
        device: Where to compute.
    """

    candidate: Path
    current: Path
    first: Path
    acceptance: Path
    ood: Path
    terms: Terms
    retired: frozenset[str] = frozenset()
    uses: Path | None = None
    use_limit: int = LIMIT
    device: str = "cpu"

    @property
    def log(self) -> Path:
        """Where the uses are counted."""
        folder = self.acceptance.resolve()
        return self.uses or folder.with_name(f"{folder.name}.uses.jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Automatic:
    """A plan, and where it lets candidates go.

    Attributes:
        plan: Signed, and read.
        log: Where its promotions are counted.
        models: The servers' folder.
        name: Of the bundle there; None: from its digests.
    """

    plan: Plan
    log: Path
    models: Path
    name: str | None = None


def propose(
    comparison: Comparison,
    out: Path,
    *,
    automatic: Automatic | None = None,
    progress: Progress | None = None,
) -> Decision:
    """Compare, and write the decision; under a plan that covers it, promote.

    Args:
        comparison: What is held against what.
        out: Folder of the decision; it must not hold one.
        automatic: A plan, or None: a passing candidate waits for a person.
        progress: Called as images are scored.

    Raises:
        DataError, BundleError, NotCalibratedError, ConfigError: It cannot be judged.
    """
    if (out / JSON_FILE).exists():
        raise DataError(f"{out} holds a decision already; decisions are kept: give another --out")
    models = {
        "candidate": identify(comparison.candidate),
        "current": identify(comparison.current),
        "first": identify(comparison.first),
    }
    acceptance = read_held(comparison.acceptance, option="--acceptance")
    ood = read_held(comparison.ood, option="--ood")
    refuse_seen(acceptance, comparison.candidate)
    counts = Counts(
        truths=acceptance.names,
        sets=_counts(ood),
        classes={role: model.classes for role, model in models.items()},
        retired=comparison.retired,
    )
    counts.check()
    blank = _blank(comparison, models, acceptance, ood, counts)
    decision = _decided(comparison, blank, counts, acceptance, ood, progress)
    if automatic is None:
        write(decision, out)
        return decision
    return _under_plan(decision, automatic, comparison.candidate, out)


def promote_approved(
    folder: Path,
    models: Path,
    *,
    keys: Sequence[PublicKey],
    candidate: Path | None = None,
    name: str | None = None,
) -> tuple[Path, approval.Approval]:
    """Copy the candidate of an approved decision into the servers' models folder.

    Args:
        folder: Of the decision.
        models: The servers' folder.
        keys: Of which one must have signed the approval.
        candidate: The bundle, where it was moved.
        name: Of the bundle there; None: from its digests.

    Returns:
        Where the bundle lies, and the approval.

    Raises:
        CandidateRefusedError, BundleSignatureError, DataError: See `approval.verify`.
        BundleError, ConfigError: See `deploying.deploy`.
    """
    decision, found = approval.verify(folder, keys)
    model = decision.models["candidate"]
    return deploy(candidate or model.path, model, models, name=name), found


def write(decision: Decision, out: Path) -> str:
    """Write a decision for machines and for people; returns the sha256 of ``decision.json``."""
    data = decision.to_json().encode()
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / HTML_FILE).write_text(page.render(decision), encoding="utf-8")
        temporary = out / f".{JSON_FILE}.partial"
        temporary.write_bytes(data)
        temporary.replace(out / JSON_FILE)
    except OSError as error:
        raise DataError(f"--out {out} cannot be written ({error.strerror})") from error
    return hashlib.sha256(data).hexdigest()


def _decided(
    comparison: Comparison,
    blank: Decision,
    counts: Counts,
    acceptance: HeldImages,
    ood: HeldImages,
    progress: Progress | None,
) -> Decision:
    terms = comparison.terms
    if scarce := too_few(counts, terms):
        reasons = tuple(figure.sentence() for figure in scarce)
        return replace(blank, figures=scarce, reasons=reasons)
    use = take(
        comparison.log,
        ids=acceptance.ids,
        digest=acceptance.digest,
        comparison=_fingerprint(blank),
        candidate=blank.models["candidate"].manifest_sha256,
        limit=comparison.use_limit,
    )
    if not use.allowed:
        return replace(blank, use=use, reasons=(use.sentence(),))
    answers: dict[str, Answers] = {}
    known: dict[str, Answers] = {}
    for role, model in blank.models.items():
        if model.manifest_sha256 not in known:
            known[model.manifest_sha256] = measure(
                model, acceptance, ood, device=comparison.device, progress=progress
            )
        answers[role] = known[model.manifest_sha256]
    figures = judge(counts, answers, terms)
    failed = [figure for figure in figures if figure.outcome is not Outcome.PASSED]
    said = [figure.sentence() for figure in failed]
    state = State.REFUSED if failed else State.PENDING_APPROVAL
    if not failed:
        said.append(f"all {len(figures)} figures are within their margins")
    return replace(blank, state=state, use=use, figures=figures, reasons=(*said, use.sentence()))


def _under_plan(decision: Decision, automatic: Automatic, candidate: Path, out: Path) -> Decision:
    plan = automatic.plan
    decision = replace(decision, plan=plan.digest)
    if decision.state is not State.PENDING_APPROVAL:
        write(decision, out)
        return decision
    said = plans.objections(plan, decision, log.read(automatic.log))
    if not said:
        approved = replace(
            decision,
            state=State.APPROVED_BY_PLAN,
            reasons=(*decision.reasons, f"the plan {plan.digest[:12]} covers it"),
        )
        digest = hashlib.sha256(approved.to_json().encode()).hexdigest()
        said = plans.note_promotion(automatic.log, plan, approved, sha256=digest)
        if not said:
            write(approved, out)
            model = approved.models["candidate"]
            deploy(candidate, model, automatic.models, name=automatic.name)
            return approved
    waits = tuple(f"waits for a person: {words}" for words in said)
    decision = replace(decision, reasons=(*decision.reasons, *waits))
    write(decision, out)
    return decision


def _blank(
    comparison: Comparison,
    models: Mapping[str, Model],
    acceptance: HeldImages,
    ood: HeldImages,
    counts: Counts,
) -> Decision:
    """The decision before anything is measured: refused."""
    return Decision(
        state=State.REFUSED,
        created=now(),
        models={role: replace(model, path=model.path.resolve()) for role, model in models.items()},
        acceptance=HeldSet(digest=acceptance.digest, counts=_counts(acceptance)),
        ood=HeldSet(digest=ood.digest, counts=_counts(ood)),
        terms=comparison.terms,
        new_classes=counts.new,
        retired=tuple(sorted(comparison.retired)),
        use=None,
        figures=(),
        reasons=(),
        plan="",
        software=__version__,
    )


def _fingerprint(decision: Decision) -> str:
    """sha256 of what decides the outcome besides the acceptance set."""
    content = {
        "models": {role: model.manifest_sha256 for role, model in decision.models.items()},
        "ood": decision.ood.digest,
        "terms": asdict(decision.terms),
        "retired": decision.retired,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _counts(held: HeldImages) -> dict[str, int]:
    return {name: len(held.positions(name)) for name in held.images.class_names}
