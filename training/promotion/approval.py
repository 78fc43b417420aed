"""A person's approval of a decision, signed.

``approval.json`` names the decision by the sha256 of its file and the candidate by that of its
manifest; ``approval.json.sig`` is an Ed25519 signature of it, in a domain of its own, so that the
signature of a bundle approves nothing. Whoever holds the private key approves: keep it from jobs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ibinn import signing
from ibinn.errors import CandidateRefusedError, DataError
from ibinn.signing import PublicKey
from training.promotion import decision as decisions
from training.promotion.decision import Decision, State, now

FILE = "approval.json"
DOMAIN = b"ibinn promotion approval, version 1\x00"
VALID_DAYS = 14
"""An approval is of the present: after so long, figures and models may be others."""
_HOW = "approve it with `ibinn-train approve DECISION --by NAME --key FILE`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Who approved what.

    Attributes:
        decision_sha256: Of ``decision.json``.
        manifest_sha256: Of the candidate's manifest.
        by: Who.
        time: When, ISO 8601.
        expires: Until when it may be deployed, ISO 8601.
        comment: Why, in their words.
    """

    decision_sha256: str
    manifest_sha256: str
    by: str
    time: str
    expires: str
    comment: str


def approve(
    folder: Path,
    *,
    by: str,
    key: bytes,
    passphrase: bytes | None = None,
    comment: str = "",
    valid_days: int = VALID_DAYS,
) -> tuple[Approval, str]:
    """Sign a decision that waits for a person.

    Args:
        folder: Of the decision.
        by: Who approves; not empty.
        key: Ed25519 private key, PEM.
        passphrase: Of the key.
        comment: Why.
        valid_days: For how long.

    Returns:
        The approval, and the key's id.

    Raises:
        CandidateRefusedError: The candidate was refused; nobody's approval changes that.
        DataError: There is no decision, or nobody is named.
        ConfigError: The key cannot be used.
    """
    found, digest = decisions.read(folder)
    require_passed(found, folder)
    if not by.strip():
        raise DataError("--by is empty; give the name of the person who approves")
    at = now()
    approval = Approval(
        decision_sha256=digest,
        manifest_sha256=found.models["candidate"].manifest_sha256,
        by=by.strip(),
        time=at.isoformat(),
        expires=(at + timedelta(days=valid_days)).isoformat(),
        comment=comment,
    )
    data = (json.dumps(asdict(approval), indent=1, ensure_ascii=False) + "\n").encode()
    # The signature first: an approval is never there without its own.
    key_id = signing.sign_bytes(data, _signature(folder), key, domain=DOMAIN, passphrase=passphrase)
    temporary = folder / f".{FILE}.partial"
    temporary.write_bytes(data)
    temporary.replace(folder / FILE)
    return approval, key_id


def verify(folder: Path, keys: Sequence[PublicKey]) -> tuple[Decision, Approval]:
    """The decision in a folder, if a trusted key approved it as it is and not too long ago.

    Raises:
        CandidateRefusedError: It is not approved, the approval has expired, or the candidate was
            refused.
        BundleSignatureError: The approval is not signed by a trusted key.
        DataError: There is no decision, or the approval is of another one.
    """
    found, digest = decisions.read(folder)
    require_passed(found, folder)
    path = folder / FILE
    if not path.is_file():
        raise CandidateRefusedError(
            f"{folder} is not approved: there is no {FILE}; {_HOW}", reasons=("not approved",)
        )
    data = path.read_bytes()
    signing.verify_bytes(data, _signature(folder), keys, domain=DOMAIN, signed=path, how=_HOW)
    try:
        content: dict[str, Any] = json.loads(data)
        approval = Approval(**content)
        expires = datetime.fromisoformat(approval.expires)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is not an approval ({error}); {_HOW}") from error
    if (approval.decision_sha256, approval.manifest_sha256) != (
        digest,
        found.models["candidate"].manifest_sha256,
    ):
        raise DataError(
            f"{path} approves the decision {approval.decision_sha256[:12]}, this one is "
            f"{digest[:12]}; it was changed after the approval: {_HOW} after reading it"
        )
    if now() > expires:
        raise CandidateRefusedError(
            f"{path}: the approval ran out at {approval.expires}; compare again with `ibinn-train "
            "promote`, for the current model may be another",
            reasons=("the approval ran out",),
        )
    return found, approval


def require_passed(found: Decision, folder: Path) -> None:
    """Refuse a decision in which any figure failed, or that waits for nobody.

    Raises:
        CandidateRefusedError: It is one; the figures are named.
    """
    names = "; ".join(figure.name for figure in found.failed)
    if found.state is State.REFUSED or names or not found.figures:
        raise CandidateRefusedError(
            f"{folder}: the candidate was refused ({names or ' '.join(found.reasons)}); a refusal "
            "cannot be approved: train another candidate, or change the margins for all to see",
            reasons=found.reasons,
        )


def _signature(folder: Path) -> Path:
    return folder / f"{FILE}.sig"
