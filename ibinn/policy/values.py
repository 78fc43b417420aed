"""What a policy is: frozen values with a digest. K classes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ibinn.errors import ConfigError

FORMAT_VERSION = 1
"""Version of the file's form; part of the digest."""

_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What actions cost, in one unit of the user's choice.

    Attributes:
        act: Cost of acting on class j where the truth is i, ``act[i][j]``, K rows of K.
        defer: Cost of asking a person.
        reject: Cost of asking for another picture.
        unknown: Cost of acting on an image of no class. It enters forecasts only: how probable
            such an image is cannot be read off the image.

    Raises:
        ConfigError: Not square, or a cost that is negative or not finite.
    """

    act: tuple[tuple[float, ...], ...]
    defer: float
    reject: float
    unknown: float

    def __post_init__(self) -> None:
        rows = tuple(tuple(_plain(value) for value in row) for row in self.act)
        object.__setattr__(self, "act", rows)
        for name in ("defer", "reject", "unknown"):
            object.__setattr__(self, name, _plain(getattr(self, name)))
        if len(rows) < 2 or any(len(row) != len(rows) for row in rows):
            raise ConfigError(
                f"the costs of acting are {len(rows)} rows of {sorted({len(r) for r in rows})}; "
                "expected K rows of K costs, K >= 2"
            )
        named = [("defer", self.defer), ("reject", self.reject), ("unknown", self.unknown)]
        named += [(f"act[{i}][{j}]", c) for i, row in enumerate(rows) for j, c in enumerate(row)]
        for name, cost in named:
            if not (math.isfinite(cost) and cost >= 0):
                raise ConfigError(f"cost {name} is {cost:g}; expected a number of 0 or more")

    @classmethod
    def zero_one(cls, classes: int, *, defer: float, reject: float, unknown: float = 1.0) -> Costs:
        """Every error costs 1, the right class nothing."""
        act = tuple(tuple(float(i != j) for j in range(classes)) for i in range(classes))
        return cls(act=act, defer=defer, reject=reject, unknown=unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Priors:
    """How often each class comes, where the policy is used and in the model.

    Attributes:
        deployment: p'(y), K shares that add up to 1.
        model: p(y) = exp(w_y) of the model's mixture, K shares above 0.

    Raises:
        ConfigError: Not two lists of K shares.
    """

    deployment: tuple[float, ...]
    model: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("deployment", "model"):
            shares = tuple(_plain(share) for share in getattr(self, name))
            object.__setattr__(self, name, shares)
            least = "above 0" if name == "model" else "of 0 or more"
            if not all(math.isfinite(s) and s >= 0 for s in shares) or (
                name == "model" and min(shares, default=0.0) <= 0
            ):
                raise ConfigError(f"{name} priors are {list(shares)}; expected shares {least}")
            if abs(math.fsum(shares) - 1.0) > _SUM_TOLERANCE:
                raise ConfigError(
                    f"{name} priors add up to {math.fsum(shares):g}; expected 1: give every class "
                    "its share"
                )
        if len(self.deployment) != len(self.model):
            raise ConfigError(
                f"there are {len(self.deployment)} deployment priors and {len(self.model)} of the "
                "model; expected one of each per class"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What Learn-then-Test found on held-out images; see `ibinn.policy.risk`.

    Attributes:
        max_risk: R: largest share of errors among accepted answers.
        delta: δ: how probable it is, over held-out sets, that the share is larger after all.
        threshold: λ: an answer is accepted only where the class acted on has at least this
            probability under the policy's priors.
        images: Held-out images that were used.
        accepted: How many of them are accepted at λ.
        errors: How many of these are wrong.
        p_value: P(Binomial(accepted, R) <= errors), which had to be at most `level`.
        level: The part of δ that λ was tested at.

    Raises:
        ConfigError: A value out of its range.
    """

    max_risk: float
    delta: float
    threshold: float
    images: int
    accepted: int
    errors: int
    p_value: float
    level: float

    def __post_init__(self) -> None:
        for name in ("max_risk", "delta", "threshold", "p_value", "level"):
            object.__setattr__(self, name, _plain(getattr(self, name)))
        for name in ("max_risk", "delta"):
            check_share(name, getattr(self, name))
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold is {self.threshold:g}; expected a probability")
        if not 0 <= self.errors <= self.accepted <= self.images or self.accepted < 1:
            raise ConfigError(
                f"the certificate has {self.errors} errors of {self.accepted} accepted of "
                f"{self.images} images; expected each at most the next, 1 accepted at least"
            )
        if not 0 <= self.p_value <= self.level <= self.delta:
            raise ConfigError(
                f"the certificate has p = {self.p_value:g} at level {self.level:g} of δ = "
                f"{self.delta:g}; expected p <= level <= δ"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The model that a policy was fitted for: sha256 digests (hex) as in `Versions`."""

    weights: str
    calibration: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How answers become actions; `ibinn.policy.decision` applies it.

    Attributes:
        name: For people.
        classes: Names of the classes in index order, K of them.
        origin: The model it was fitted for, or None if it was not fitted: it then holds no
            certificate, and any model with these classes may use it.
        alpha: Significance of the combined test, at least the bundle's.
        class_alphas: Significance of the class-conditional test of each class, None where a class
            has none; empty where no class has.
        coverage: Target coverage of the conformal sets behind AMBIGUOUS.
        costs: What actions cost.
        priors: Class shares where it is used, or None: as in the calibration images.
        certificate: The accepted risk with its threshold, or None if not fitted.

    Raises:
        ConfigError: Parts that do not fit each other, or values out of range.
    """

    name: str
    classes: tuple[str, ...]
    origin: Origin | None
    alpha: float
    class_alphas: tuple[float | None, ...]
    coverage: float
    costs: Costs
    priors: Priors | None
    certificate: Certificate | None

    def __post_init__(self) -> None:
        for name in ("alpha", "coverage"):
            object.__setattr__(self, name, _plain(getattr(self, name)))
            check_share(name, getattr(self, name))
        alphas = tuple(None if a is None else _plain(a) for a in self.class_alphas)
        object.__setattr__(self, "class_alphas", alphas)
        for alpha in alphas:
            if alpha is not None:
                check_share("class-wise alpha", alpha)
        count = len(self.classes)
        if len(set(self.classes)) != count:
            raise ConfigError(f"the classes {list(self.classes)} repeat a name; expected K names")
        sizes = [("costs", len(self.costs.act)), ("class-wise alphas", len(alphas) or count)]
        if self.priors is not None:
            sizes.append(("priors", len(self.priors.deployment)))
        for name, size in sizes:
            if size != count:
                raise ConfigError(f"{name} are for {size} classes; the policy has {count}")
        if self.certificate is not None and self.origin is None:
            raise ConfigError(
                "a policy with a certificate names no model; expected the digests that it was "
                "fitted for, because the risk is certified for these alone"
            )

    @property
    def digest(self) -> str:
        """sha256 (hex) of the policy's canonical form, its name included."""
        return content_digest(content(self))


def content(policy: Policy) -> dict[str, Any]:
    """The policy as plain JSON values, with the format's version."""
    return {"format_version": FORMAT_VERSION, **dataclasses.asdict(policy)}


def content_digest(values: dict[str, Any]) -> str:
    """sha256 (hex) of plain JSON values, whatever their order."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def check_share(name: str, value: float) -> None:
    """Refuse what is not in (0, 1).

    Raises:
        ConfigError: `value` is not.
    """
    if not 0.0 < value < 1.0:
        raise ConfigError(f"{name} is {value:g}; expected a number between 0 and 1")


def uniform(classes: Sequence[str]) -> tuple[float, ...]:
    """Equal shares."""
    return (1.0 / len(classes),) * len(classes)


def _plain(value: float) -> float:
    """A float without a sign at zero, so that equal policies have equal digests."""
    return float(value) + 0.0
