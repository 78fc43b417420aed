"""The decision on a candidate: what it was held against, every figure, and what became of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from ibinn.errors import DataError
from training.promotion.judging import Figure, FigureKind, Outcome
from training.promotion.measuring import Model
from training.promotion.terms import Terms
from training.promotion.uses import Use

FORMAT_VERSION = 1
JSON_FILE = "decision.json"
HTML_FILE = "decision.html"


class State(StrEnum):
    """What may happen with a candidate."""

    REFUSED = "REFUSED"
    PENDING_APPROVAL = "PENDING_APPROVAL"
    APPROVED_BY_PLAN = "APPROVED_BY_PLAN"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSet:
    """A set that the models were held against.

    Attributes:
        digest: sha256 of its images; see `training.promotion.images`.
        counts: Class or kind -> number of images.
    """

    digest: str
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Everything that a promotion rests on.

    Attributes:
        state: What may happen.
        created: When, UTC.
        models: ``candidate``, ``current`` and ``first``.
        acceptance: The acceptance set.
        ood: The out-of-distribution sets.
        terms: Margins.
        new_classes: Classes that the current model does not know.
        retired: Classes that the operator gave up.
        use: Of the acceptance set; None where too few images ended it before.
        figures: Every figure, or those with too few images.
        reasons: Why it is in this state, in sentences.
        plan: Digest of the plan that was asked; empty if none.
        software: Version of ibinn.
    """

    state: State
    created: datetime
    models: Mapping[str, Model]
    acceptance: HeldSet
    ood: HeldSet
    terms: Terms
    new_classes: tuple[str, ...]
    retired: tuple[str, ...]
    use: Use | None
    figures: tuple[Figure, ...]
    reasons: tuple[str, ...]
    plan: str
    software: str

    @property
    def failed(self) -> tuple[Figure, ...]:
        """Figures that did not pass."""
        return tuple(f for f in self.figures if f.outcome is not Outcome.PASSED)

    def to_json(self) -> str:
        """As text."""
        content = asdict(self) | {
            "format_version": FORMAT_VERSION,
            "created": self.created.isoformat(),
            "models": {
                role: asdict(model) | {"path": str(model.path)}
                for role, model in self.models.items()
            },
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str, path: Path) -> Decision:
    """What `Decision.to_json` wrote.

    Raises:
        DataError: It is something else.
    """
    try:
        content: dict[str, Any] = json.loads(text)
        if (version := content.pop("format_version")) != FORMAT_VERSION:
            raise DataError(
                f"{path}: format version is {version!r}, this software reads {FORMAT_VERSION}; "
                "make the decision again"
            )
        figures = tuple(
            Figure(**row | {"kind": FigureKind(row["kind"]), "outcome": Outcome(row["outcome"])})
            for row in content.pop("figures")
        )
        models = {
            role: Model(**row | {"path": Path(row["path"]), "classes": tuple(row["classes"])})
            for role, row in content.pop("models").items()
        }
        models["candidate"]
        use = content.pop("use")
        return Decision(
            state=State(content.pop("state")),
            created=datetime.fromisoformat(content.pop("created")),
            models=models,
            acceptance=HeldSet(**content.pop("acceptance")),
            ood=HeldSet(**content.pop("ood")),
            terms=Terms(**content.pop("terms")),
            use=None if use is None else Use(**use),
            figures=figures,
            new_classes=tuple(content.pop("new_classes")),
            retired=tuple(content.pop("retired")),
            reasons=tuple(content.pop("reasons")),
            **content,
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path} is not a decision ({error}); expected {JSON_FILE} of `ibinn-train promote`"
        ) from error


def read(folder: Path) -> tuple[Decision, str]:
    """The decision in a folder, and the sha256 of its file.

    Raises:
        DataError: There is none.
    """
    path = folder / JSON_FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"no decision at {folder}: expected a folder with {JSON_FILE} from `ibinn-train "
            "promote … --out FOLDER`"
        ) from error
    return from_json(data.decode("utf-8", "replace"), path), hashlib.sha256(data).hexdigest()


def now() -> datetime:
    """The time, UTC, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)
