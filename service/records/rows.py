"""Between entries and rows: what is repeated of an entry's body in columns."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ibinn.chain import entry_hash
from ibinn.errors import LedgerError
from ibinn.records import (
    AnswerDigest,
    Entry,
    EntryKind,
    FeedbackEntry,
    ImageState,
)
from ibinn.types import Versions
from service.records.contents import NewAnswer
from service.records.statements import confidence_bin


def model_name(versions: Versions) -> str:
    """The name of a model with its calibration, as the metrics' label ``model`` has it."""
    return f"{versions.weights[:12]}-{versions.calibration[:12]}"


class Chain:
    """The end of the ledger, while it is being appended to.

    Args:
        sequence: Of the newest entry; 0 where there is none.
        hash: Its hash.
        time: When what follows is appended.

    Attributes:
        sequence: Of the newest entry, those appended here included.
        hash: Its hash.
        rows: The new entries, for the table ``ledger``.
        time: When they are appended.
    """

    def __init__(self, sequence: int, hash: str, time: datetime) -> None:
        self.sequence = sequence
        self.hash = hash
        self.rows: list[dict[str, Any]] = []
        self.time = time

    def append(self, kind: EntryKind, record_id: str, body: bytes) -> int:
        """Adds an entry and returns its sequence."""
        previous, self.sequence = self.hash, self.sequence + 1
        self.hash = entry_hash(
            sequence=self.sequence,
            previous_hash=previous,
            kind=kind,
            record_id=record_id,
            time=self.time,
            body=body,
        )
        self.rows.append(
            {
                "sequence": self.sequence,
                "kind": kind.value,
                "record_id": record_id,
                "time": self.time,
                "body": body,
                "previous_hash": previous,
                "hash": self.hash,
            }
        )
        return self.sequence


def entry_of(row: Any) -> Entry:
    """The entry of a row of ``ledger``.

    Raises:
        LedgerError: Its kind is none that this version knows.
    """
    if row.kind not in EntryKind._value2member_map_:
        raise LedgerError(
            f"entry {row.sequence} of the ledger is of the kind {row.kind!r}; expected one of "
            f"{', '.join(EntryKind)}: it was altered, or a newer version wrote it"
        )
    return Entry(
        sequence=row.sequence,
        kind=EntryKind(row.kind),
        record_id=row.record_id,
        time=row.time,
        body=row.body,
        previous_hash=row.previous_hash,
        hash=row.hash,
    )


def answer_row(answer: NewAnswer, sequence: int) -> dict[str, Any]:
    """The row of an answer."""
    digest, kept = answer.digest, answer.image_kept
    state = ImageState.NOT_KEPT if kept is None else ImageState.KEPT
    return {
        "record_id": digest.record_id,
        "sequence": sequence,
        "received_time": digest.received_time,
        "caller": plain(answer.caller),
        "method": answer.method,
        "model": model_name(digest.versions),
        "class_name": plain(digest.class_name),
        "confidence": digest.confidence,
        "verdict": digest.verdict.value,
        "action": None if digest.action is None else digest.action.value,
        "p_value": digest.p_value,
        "sha256_bytes": digest.sha256_bytes,
        "sha256_pixels": digest.sha256_pixels,
        "group_id": plain(digest.group_id),
        "image_kept": None if kept is None else kept.value,
        "image_state": state.value,
    }


def feedback_row(entry: FeedbackEntry, sequence: int) -> dict[str, Any]:
    """The row of a statement."""
    digest: AnswerDigest = entry.answer
    return {
        "feedback_id": entry.feedback_id,
        "record_id": entry.record_id,
        "revision": entry.revision,
        "sequence": sequence,
        "source": plain(entry.provenance.source),
        "truth_kind": entry.truth.kind.value,
        "truth_class": plain(entry.truth.class_name),
        "outcome": entry.outcome.value,
        "received_time": digest.received_time,
        "model": model_name(digest.versions),
        "confidence": digest.confidence,
        "bin": confidence_bin(digest.confidence),
        "correct": digest.correct(entry.truth),
    }


def plain(text: str) -> str:
    """A text as a column; PostgreSQL takes no NUL in one. The body has it as it came."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
