"""From the wire to the library's types: what a server keeps of its answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import DecodeError

from ibinn import records
from ibinn.client import answers
from ibinn.client.names import (
    ACTIONS,
    ENTRY_KINDS,
    GUARANTEES,
    IMAGE_STATES,
    IMAGES_KEPT,
    OUTCOMES,
    REACTIONS,
    SELECTIONS,
    VERDICTS,
    known,
    versions,
)
from ibinn.errors import InternalServerError, LedgerError
from ibinn.v1 import admin_service_pb2 as admin
from ibinn.v1 import classification_service_pb2 as service
from ibinn.v1 import record_pb2 as record

Content = (
    records.AnswerEntry | records.FeedbackEntry | records.ErasureEntry | records.GuaranteeEntry
)
"""What an entry's body says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some entries of the ledger, in order.

    Attributes:
        entries: Those that come after the one that was named.
        head_sequence: Of the newest entry of the ledger; 0 where it is empty.
        head_hash: Its hash.
    """

    entries: tuple[records.Entry, ...]
    head_sequence: int
    head_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What became of an order to erase an image.

    Attributes:
        found: Whether there was an image to erase.
        records: How many answers had it; their records stay.
    """

    found: bool
    records: int


def acknowledgement(message: service.SubmitFeedbackResponse) -> records.Acknowledgement:
    """What a server says of a statement that is durable now."""
    return records.Acknowledgement(
        feedback_id=message.feedback_id,
        outcome=known(OUTCOMES, message.outcome, "outcome of a statement"),
        revision=message.revision,
        record_known=message.record_known,
    )


def kept_record(message: record.Record) -> records.Record:
    """What is kept of one answer, read from the bytes that are hashed.

    Raises:
        LedgerError: The answer's entry does not read.
    """
    kept = entry(message.entry)
    found = content(kept)
    if not isinstance(found, records.AnswerEntry):
        raise LedgerError(
            f"entry {kept.sequence} of the ledger is of kind {kept.kind.value!r}; expected an "
            "answer: the server's records are not in order, verify them"
        )
    return records.Record(
        entry=kept,
        answer=found,
        feedback=tuple(_feedback(statement) for statement in message.feedback),
        image_state=known(IMAGE_STATES, message.image_state, "state of an image"),
        image=message.image or None,
    )


def page(message: service.ListEntriesResponse) -> Page:
    """Some entries of the ledger."""
    return Page(
        entries=tuple(entry(found) for found in message.entries),
        head_sequence=message.head_sequence,
        head_hash=message.head_hash,
    )


def erased(message: admin.EraseImageResponse) -> Erased:
    """What became of an order to erase an image."""
    return Erased(found=message.found, records=message.records)


def entry(message: record.Entry) -> records.Entry:
    """An entry as it is kept."""
    return records.Entry(
        sequence=message.sequence,
        kind=known(ENTRY_KINDS, message.kind, "kind of an entry"),
        record_id=message.record_id,
        time=_time(message.time),
        body=message.body,
        previous_hash=message.previous_hash,
        hash=message.hash,
    )


def content(kept: records.Entry) -> Content:
    """What an entry's body says.

    Raises:
        LedgerError: It does not read: it is damaged, or a newer version wrote it.
    """
    try:
        match kept.kind:
            case records.EntryKind.ANSWER:
                return _answer(record.AnswerEntry.FromString(kept.body))
            case records.EntryKind.FEEDBACK:
                return _feedback(record.FeedbackEntry.FromString(kept.body))
            case records.EntryKind.ERASURE:
                return _erasure(record.ErasureEntry.FromString(kept.body))
            case records.EntryKind.GUARANTEE:
                return _guarantee(record.GuaranteeEntry.FromString(kept.body))
    except (DecodeError, InternalServerError, ValueError) as error:
        raise LedgerError(
            f"the body of entry {kept.sequence} of the ledger does not read as kind "
            f"{kept.kind.value!r}: {error}; it is damaged, or a newer version of ibinn wrote it"
        ) from error


def record_id_in(kept: records.Entry) -> str | None:
    """The answer that an entry's body is about; None where its kind names none.

    Raises:
        LedgerError: The body does not read.
    """
    match content(kept):
        case records.AnswerEntry(prediction=prediction):
            return prediction.receipt.record_id if prediction.receipt else ""
        case records.FeedbackEntry(record_id=record_id):
            return record_id
        case records.GuaranteeEntry():
            return ""
        case records.ErasureEntry():
            return None


def _answer(message: record.AnswerEntry) -> records.AnswerEntry:
    return records.AnswerEntry(
        prediction=answers.prediction(message.classification),
        caller=message.caller,
        method=message.method,
        group_id=message.group_id,
        bundle=message.bundle,
        server=message.server,
        image_kept=known(IMAGES_KEPT, message.image_kept, "reason to keep an image"),
    )


def _feedback(message: record.FeedbackEntry) -> records.FeedbackEntry:
    return records.FeedbackEntry(
        feedback_id=message.feedback_id,
        record_id=message.record_id,
        truth=_truth(message.truth),
        provenance=_provenance(message.provenance),
        labelled_time=_time(message.labelled_time) if message.HasField("labelled_time") else None,
        comment=message.comment,
        caller=message.caller,
        outcome=known(OUTCOMES, message.outcome, "outcome of a statement"),
        revision=message.revision,
        answer=_digest(message.answer),
        record_known=message.record_known,
    )


def _erasure(message: record.ErasureEntry) -> records.ErasureEntry:
    return records.ErasureEntry(
        sha256_bytes=message.sha256_bytes,
        caller=message.caller,
        reason=message.reason,
        found=message.found,
    )


def _guarantee(message: record.GuaranteeEntry) -> records.GuaranteeEntry:
    guarantee = known(GUARANTEES, message.guarantee, "guarantee")
    if guarantee is None:
        raise ValueError("it says of no guarantee whether it is held or suspended")
    return records.GuaranteeEntry(
        calibration=message.calibration,
        guarantee=guarantee,
        reason=message.reason,
        detector=message.detector,
        caller=message.caller,
    )


def _truth(message: record.Truth) -> records.Truth:
    match message.WhichOneof("truth"):
        case "class_name" if message.class_name:
            return records.Truth.of_class(message.class_name)
        case "out_of_scope":
            return records.OUT_OF_SCOPE
        case "unreadable":
            return records.UNREADABLE
        case _:
            raise InternalServerError(
                "the server's answer holds a kind of truth that this client does not know; "
                "update ibinn",
                code="UNKNOWN",
            )


def _provenance(message: record.Provenance) -> records.Provenance:
    def optional(name: str) -> Any:
        return getattr(message, name) if message.HasField(name) else None

    return records.Provenance(
        source=message.source,
        saw_answer=optional("saw_answer"),
        reaction=known(REACTIONS, message.reaction, "reaction"),
        selection=known(SELECTIONS, message.selection, "selection"),
        sampling_probability=optional("sampling_probability"),
    )


def _digest(message: record.AnswerDigest) -> records.AnswerDigest:
    return records.AnswerDigest(
        record_id=message.record_id,
        received_time=_time(message.received_time),
        versions=versions(message.versions),
        class_name=message.class_name,
        confidence=message.confidence,
        verdict=known(VERDICTS, message.verdict, "verdict"),
        action=known(ACTIONS, message.action, "action") if message.action else None,
        sha256_bytes=message.sha256_bytes,
        sha256_pixels=message.sha256_pixels,
        p_value=message.p_value if message.HasField("p_value") else None,
        group_id=message.group_id,
    )


def _time(message: Any) -> datetime:
    found: datetime = message.ToDatetime(tzinfo=UTC)
    return found
