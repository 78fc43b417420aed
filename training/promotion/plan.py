"""A signed plan: within which limits candidates are promoted without asking a person.

A TOML file with its signature beside it, ``NAME.sig``. It names the margins, the images and the
models that it was written for; what lies outside waits for a person:

    format_version = 1
    valid_until = 2027-01-31T00:00:00Z
    promotions = 3                  # in all
    acceptance = "<digest>"         # of the acceptance set
    ood = "<digest>"                # of the out-of-distribution sets
    first = "<weights>"             # of the first approved model
    lineage = ["<weights>"]         # current models that may be replaced; promoted ones join
    new_classes = false             # whether a candidate may know classes that are new

    [terms]                         # the margins; see `ibinn-train promote --help`
    accuracy = 0.01

    [limits]                        # of the candidate itself, whatever the others had
    accuracy = 0.9                  # at least
    calibration = 0.05              # top-label ECE, at most
    false_positives = 0.03          # at most
    misses = 0.4                    # of every out-of-distribution set, at most
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ibinn import signing
from ibinn.errors import ConfigError
from ibinn.signing import PublicKey
from training.promotion import log
from training.promotion.decision import Decision, now
from training.promotion.judging import Figure, FigureKind
from training.promotion.log import Entry
from training.promotion.terms import Terms

FORMAT_VERSION = 1
DOMAIN = b"ibinn promotion plan, version 1\x00"
_HOW = "sign it with `ibinn-train plan sign PLAN --key FILE`"
_LIMITS = {
    "accuracy": FigureKind.ACCURACY,
    "calibration": FigureKind.CALIBRATION,
    "false_positives": FigureKind.FALSE_POSITIVE_RATE,
    "misses": FigureKind.MISS_RATE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a plan allows; see the module.

    Attributes:
        digest: sha256 (hex) of the file.
    """

    format_version: int
    valid_until: datetime
    promotions: int
    acceptance: str
    ood: str
    first: str
    lineage: tuple[str, ...]
    new_classes: bool
    terms: Terms
    limits: Mapping[str, float]
    digest: str


def parse(data: bytes, path: Path) -> Plan:
    """The plan in the bytes of a file.

    Raises:
        ConfigError: A key is missing, unknown or malformed; it is named.
    """
    try:
        content: dict[str, Any] = tomllib.loads(data.decode("utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"plan {path} is not TOML ({error}); see `ibinn-train plan new`"
        ) from error
    expected = {entry.name for entry in fields(Plan)} - {"digest"}
    if wrong := sorted(expected.symmetric_difference(content)):
        raise ConfigError(
            f"plan {path}: key {wrong[0]!r} is {'missing' if wrong[0] in expected else 'unknown'}; "
            f"expected: {', '.join(sorted(expected))}"
        )

    def need(name: str, *, right: bool, what: str) -> None:
        if not right:
            raise ConfigError(f"plan {path}: {name} is {content[name]!r}; expected {what}")

    version, until, count = (content[n] for n in ("format_version", "valid_until", "promotions"))
    need("format_version", right=version == FORMAT_VERSION, what=str(FORMAT_VERSION))
    aware = isinstance(until, datetime) and until.tzinfo is not None
    need("valid_until", right=aware, what="a time with its zone, such as 2027-01-31T00:00:00Z")
    whole = isinstance(count, int) and not isinstance(count, bool) and count > 0
    need("promotions", right=whole, what="a whole number of 1 or more")
    for name in ("acceptance", "ood", "first"):
        text = content[name]
        need(name, right=isinstance(text, str) and len(text) == 64, what="64 hexadecimal digits")
    lineage = content["lineage"]
    right = isinstance(lineage, list) and all(isinstance(n, str) and len(n) == 64 for n in lineage)
    need("lineage", right=right and bool(lineage), what="a list of digests of weights")
    need("new_classes", right=isinstance(content["new_classes"], bool), what="true or false")
    limits, terms = content["limits"], content["terms"]
    right = isinstance(limits, dict) and set(limits) <= set(_LIMITS)
    right = right and all(isinstance(v, int | float) and 0 <= v <= 1 for v in limits.values())
    need("limits", right=right, what=f"fractions in [0, 1] for {', '.join(_LIMITS)}")
    known = {entry.name for entry in fields(Terms)}
    need("terms", right=isinstance(terms, dict) and set(terms) <= known, what=", ".join(known))
    return Plan(
        format_version=version,
        valid_until=until,
        promotions=count,
        acceptance=content["acceptance"],
        ood=content["ood"],
        first=content["first"],
        lineage=tuple(lineage),
        new_classes=content["new_classes"],
        terms=Terms(**terms),
        limits=limits,
        digest=hashlib.sha256(data).hexdigest(),
    )


def sign(path: Path, key: bytes, *, passphrase: bytes | None = None) -> str:
    """Check a plan and sign it; returns the key's id.

    Raises:
        ConfigError: It is not a plan, or the key cannot be used.
    """
    data = _read(path)
    parse(data, path)
    return signing.sign_bytes(data, signature(path), key, domain=DOMAIN, passphrase=passphrase)


def read(path: Path, keys: Sequence[PublicKey]) -> Plan:
    """A plan that one of these keys signed.

    Raises:
        ConfigError: It is not a plan.
        BundleSignatureError: It is not signed by a trusted key, or was changed since.
    """
    data = _read(path)
    signing.verify_bytes(data, signature(path), keys, domain=DOMAIN, signed=path, how=_HOW)
    return parse(data, path)


def objections(plan: Plan, decision: Decision, promoted: Sequence[Entry]) -> tuple[str, ...]:
    """Why a plan does not cover a decision that passed; nothing where it does.

    Args:
        plan: The plan.
        decision: In which every figure passed.
        promoted: Entries of the plan's log.
    """
    said = []
    mine = [entry for entry in promoted if entry["plan"] == plan.digest]
    models = decision.models
    if now() > plan.valid_until.astimezone(UTC):
        said.append(f"the plan ran out at {plan.valid_until.isoformat()}")
    if len(mine) >= plan.promotions:
        said.append(f"the plan's {plan.promotions} promotions are used up")
    for what, asked, found in (
        ("acceptance set", plan.acceptance, decision.acceptance.digest),
        ("out-of-distribution sets", plan.ood, decision.ood.digest),
        ("first approved model", plan.first, models["first"].weights),
    ):
        if asked != found:
            said.append(f"the {what} is {found[:12]}, the plan is for {asked[:12]}")
    if models["current"].weights not in {*plan.lineage, *(entry["weights"] for entry in mine)}:
        said.append(f"the current model {models['current'].weights[:12]} is not of its lineage")
    if decision.new_classes and not plan.new_classes:
        said.append(f"the candidate has new classes: {', '.join(decision.new_classes)}")
    if decision.retired:
        said.append(f"classes were given up: {', '.join(decision.retired)}")
    if decision.terms != plan.terms:
        said.append("the margins are not the plan's")
    said += [words for name in plan.limits if (words := _over(plan, name, decision.figures))]
    return tuple(said)


def note_promotion(path: Path, plan: Plan, decision: Decision, *, sha256: str) -> tuple[str, ...]:
    """Count a promotion against its plan before it is made; objections found meanwhile.

    Args:
        path: The plan's log.
        plan, decision: As for `objections`.
        sha256: Of the decision's file.
    """
    said: tuple[str, ...] = ()
    candidate = decision.models["candidate"]

    def addition(entries: Sequence[Entry]) -> Entry | None:
        nonlocal said
        said = objections(plan, decision, entries)
        if said:
            return None
        return {
            "plan": plan.digest,
            "time": now().isoformat(),
            "weights": candidate.weights,
            "calibration": candidate.calibration,
            "decision": sha256,
        }

    log.add(path, addition)
    return said


def template(
    *, acceptance: str, ood: str, first: str, current: str, until: datetime, promotions: int,
    terms: Terms,
) -> str:  # fmt: skip
    """A plan to edit and sign: no limits of its own, no new classes."""
    margins = "\n".join(f"{name} = {value!r}" for name, value in asdict(terms).items())
    return f"""\
# Within these limits candidates are promoted without asking a person.
# Sign it after every change: ibinn-train plan sign THIS --key FILE
format_version = {FORMAT_VERSION}
valid_until = {until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
promotions = {promotions}
acceptance = "{acceptance}"
ood = "{ood}"
first = "{first}"
lineage = ["{current}"]
new_classes = false

[terms]
{margins}

# Of the candidate itself, such as: accuracy = 0.9 (at least), and calibration = 0.05,
# false_positives = 0.03, misses = 0.4 (at most).
[limits]
"""


def signature(path: Path) -> Path:
    """Where a plan's signature lies."""
    return path.with_name(f"{path.name}.sig")


def _over(plan: Plan, name: str, figures: Sequence[Figure]) -> str:
    limit, kind = plan.limits[name], _LIMITS[name]
    values = [f.candidate for f in figures if f.kind is kind and f.candidate is not None]
    worst = min(values) if kind is FigureKind.ACCURACY else max(values)
    over = worst < limit if kind is FigureKind.ACCURACY else worst > limit
    return f"{name} is {worst:.4f}, the plan's limit is {limit:g}" if over else ""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"plan {path} cannot be read ({error.strerror}); make one with `ibinn-train plan new`"
        ) from error
