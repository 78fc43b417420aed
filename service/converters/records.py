"""Between what is kept of answers and its messages (``proto/ibinn/v1/record.proto``).

Messages are serialised deterministically: the bytes are hashed and signed as they are.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from ibinn import records, types
from ibinn.errors import LedgerError, RequestError
from ibinn.v1 import answer_pb2 as answer
from ibinn.v1 import record_pb2 as record
from service.converters.classification import fill, fill_versions
from service.converters.names import ACTIONS, GUARANTEES, VERDICTS

_T = TypeVar("_T")
_M = TypeVar("_M", bound=Message)

KINDS = {
    records.EntryKind.ANSWER: record.ENTRY_KIND_ANSWER,
    records.EntryKind.FEEDBACK: record.ENTRY_KIND_FEEDBACK,
    records.EntryKind.ERASURE: record.ENTRY_KIND_ERASURE,
    records.EntryKind.GUARANTEE: record.ENTRY_KIND_GUARANTEE,
}
KEPT = {
    records.ImageKept.ALL: record.IMAGE_KEPT_ALL,
    records.ImageKept.FLAGGED: record.IMAGE_KEPT_FLAGGED,
    records.ImageKept.SAMPLED: record.IMAGE_KEPT_SAMPLED,
}
IMAGE_STATES = {
    records.ImageState.NOT_KEPT: record.IMAGE_STATE_NOT_KEPT,
    records.ImageState.KEPT: record.IMAGE_STATE_KEPT,
    records.ImageState.ERASED: record.IMAGE_STATE_ERASED,
    records.ImageState.EXPIRED: record.IMAGE_STATE_EXPIRED,
}
OUTCOMES = {
    records.FeedbackOutcome.FIRST: record.FEEDBACK_OUTCOME_FIRST,
    records.FeedbackOutcome.REPEATED: record.FEEDBACK_OUTCOME_REPEATED,
    records.FeedbackOutcome.CONFIRMED: record.FEEDBACK_OUTCOME_CONFIRMED,
    records.FeedbackOutcome.CORRECTED: record.FEEDBACK_OUTCOME_CORRECTED,
    records.FeedbackOutcome.CONFLICTING: record.FEEDBACK_OUTCOME_CONFLICTING,
}
REACTIONS = {
    records.Reaction.FOLLOWED: record.REACTION_FOLLOWED,
    records.Reaction.OVERRULED: record.REACTION_OVERRULED,
    records.Reaction.NOT_USED: record.REACTION_NOT_USED,
}
SELECTIONS = {
    records.Selection.ALL: record.SELECTION_ALL,
    records.Selection.RANDOM: record.SELECTION_RANDOM,
    records.Selection.FLAGGED: record.SELECTION_FLAGGED,
    records.Selection.UNCERTAIN: record.SELECTION_UNCERTAIN,
    records.Selection.COMPLAINT: record.SELECTION_COMPLAINT,
    records.Selection.OTHER: record.SELECTION_OTHER,
}


def _named(table: dict[_T, Any], number: int) -> _T | None:
    return next((name for name, value in table.items() if value == number), None)


def _known(table: dict[_T, Any], number: int, what: str) -> _T:
    name = _named(table, number)
    if name is None:
        raise LedgerError(
            f"an entry of the ledger has {what} number {number}, which this version does not know; "
            "a newer version wrote it: read it with that one"
        )
    return name


# ------------------------------------------------------------------------------ bodies of entries


def answer_body(entry: records.AnswerEntry) -> bytes:
    """The body of an answer's entry."""
    message = record.AnswerEntry(
        caller=entry.caller,
        method=entry.method,
        group_id=entry.group_id,
        bundle=entry.bundle,
        server=entry.server,
    )
    fill(message.classification, entry.prediction)
    if entry.image_kept is not None:
        message.image_kept = KEPT[entry.image_kept]
    return _bytes(message)


def feedback_body(entry: records.FeedbackEntry) -> bytes:
    """The body of a statement's entry."""
    return _bytes(feedback_message(entry))


def erasure_body(entry: records.ErasureEntry) -> bytes:
    """The body of an erasure's entry."""
    return _bytes(
        record.ErasureEntry(
            sha256_bytes=entry.sha256_bytes,
            caller=entry.caller,
            reason=entry.reason,
            found=entry.found,
        )
    )


def guarantee_body(entry: records.GuaranteeEntry) -> bytes:
    """The body of a guarantee's entry."""
    return _bytes(
        record.GuaranteeEntry(
            calibration=entry.calibration,
            guarantee=GUARANTEES[entry.guarantee],
            reason=entry.reason,
            detector=entry.detector,
            caller=entry.caller,
        )
    )


def digest_bytes(digest: records.AnswerDigest) -> bytes:
    """An answer in short."""
    message = record.AnswerDigest()
    _fill_digest(message, digest)
    return _bytes(message)


def read_answer(body: bytes) -> record.AnswerEntry:
    """The message of an answer's entry.

    Raises:
        LedgerError: The body does not read.
    """
    return _parsed(record.AnswerEntry, body)


def read_answer_digest(body: bytes) -> records.AnswerDigest:
    """An answer in short, from the body of its entry.

    Raises:
        LedgerError: The body does not read.
    """
    found = read_answer(body)
    given = found.classification
    top = given.classes[0] if given.classes else answer.ClassScore()
    combined = given.combined_test
    return records.AnswerDigest(
        record_id=given.record_id,
        received_time=given.received_time.ToDatetime(UTC),
        versions=_versions(given.versions),
        class_name=top.name,
        confidence=top.probability,
        verdict=_known(VERDICTS, given.verdict, "verdict"),
        action=_named(ACTIONS, given.decision.action),
        sha256_bytes=given.input.sha256_bytes,
        sha256_pixels=given.input.sha256_pixels,
        p_value=combined.p_value if combined.HasField("p_value") else None,
        group_id=found.group_id,
    )


def read_feedback(body: bytes) -> records.FeedbackEntry:
    """The statement of an entry.

    Raises:
        LedgerError: The body does not read.
    """
    message = _parsed(record.FeedbackEntry, body)
    return records.FeedbackEntry(
        feedback_id=message.feedback_id,
        record_id=message.record_id,
        truth=_truth(message.truth),
        provenance=_provenance(message.provenance),
        labelled_time=_time(message, "labelled_time"),
        comment=message.comment,
        caller=message.caller,
        outcome=_known(OUTCOMES, message.outcome, "outcome"),
        revision=message.revision,
        answer=_digest(message.answer),
        record_known=message.record_known,
    )


def read_erasure(body: bytes) -> records.ErasureEntry:
    """The erasure of an entry.

    Raises:
        LedgerError: The body does not read.
    """
    message = _parsed(record.ErasureEntry, body)
    return records.ErasureEntry(
        sha256_bytes=message.sha256_bytes,
        caller=message.caller,
        reason=message.reason,
        found=message.found,
    )


def read_guarantee(body: bytes) -> records.GuaranteeEntry:
    """The change of a guarantee of an entry.

    Raises:
        LedgerError: The body does not read.
    """
    message = _parsed(record.GuaranteeEntry, body)
    return records.GuaranteeEntry(
        calibration=message.calibration,
        guarantee=_known(GUARANTEES, message.guarantee, "guarantee"),
        reason=message.reason,
        detector=message.detector,
        caller=message.caller,
    )


def read_digest(data: bytes) -> records.AnswerDigest:
    """An answer in short, from `digest_bytes`.

    Raises:
        LedgerError: The bytes do not read.
    """
    return _digest(_parsed(record.AnswerDigest, data))


# ------------------------------------------------------------------------- requests and responses


def feedback_of(request: Any) -> records.Feedback:
    """The statement that a SubmitFeedbackRequest makes.

    Raises:
        RequestError: It lacks a truth, or its provenance contradicts itself.
    """
    if request.truth.WhichOneof("truth") is None or request.truth == record.Truth(class_name=""):
        raise RequestError(
            "truth is not given; expected the name of a class, out_of_scope or unreadable",
            field="truth",
        )
    provenance = _provenance(request.provenance)
    certain = provenance.selection is records.Selection.ALL
    if certain and provenance.sampling_probability not in (None, 1.0):
        raise RequestError(
            f"provenance.sampling_probability is {provenance.sampling_probability:g} where "
            "provenance.selection says that every image is labelled; expected 1, or another "
            "selection",
            field="provenance.sampling_probability",
        )
    return records.Feedback(
        record_id=request.record_id,
        truth=_truth(request.truth),
        provenance=provenance,
        feedback_id=request.feedback_id,
        receipt=request.receipt,
        labelled_time=_time(request, "labelled_time"),
        comment=request.comment,
    )


def entry_message(entry: records.Entry) -> record.Entry:
    """An entry as it is kept."""
    message = record.Entry(
        sequence=entry.sequence,
        kind=KINDS[entry.kind],
        record_id=entry.record_id,
        body=entry.body,
        previous_hash=entry.previous_hash,
        hash=entry.hash,
    )
    message.time.FromDatetime(entry.time)
    return message


def entry_kinds(numbers: Any) -> frozenset[records.EntryKind]:
    """The kinds that a request names; all of them for none.

    Raises:
        RequestError: One is not a kind.
    """
    found = set()
    for number in numbers:
        kind = _named(KINDS, number)
        if kind is None:
            raise RequestError(
                f"kinds holds number {number}, which is no kind of entry; expected "
                "ENTRY_KIND_ANSWER, _FEEDBACK, _ERASURE or _GUARANTEE",
                field="kinds",
            )
        found.add(kind)
    return frozenset(found) or frozenset(records.EntryKind)


def feedback_message(entry: records.FeedbackEntry) -> record.FeedbackEntry:
    """A statement on record."""
    message = record.FeedbackEntry(
        feedback_id=entry.feedback_id,
        record_id=entry.record_id,
        comment=entry.comment,
        caller=entry.caller,
        outcome=OUTCOMES[entry.outcome],
        revision=entry.revision,
        record_known=entry.record_known,
    )
    match entry.truth.kind:
        case records.TruthKind.CLASS:
            message.truth.class_name = entry.truth.class_name
        case records.TruthKind.OUT_OF_SCOPE:
            message.truth.out_of_scope.SetInParent()
        case records.TruthKind.UNREADABLE:
            message.truth.unreadable.SetInParent()
    _fill_provenance(message.provenance, entry.provenance)
    if entry.labelled_time is not None:
        message.labelled_time.FromDatetime(entry.labelled_time)
    _fill_digest(message.answer, entry.answer)
    return message


# ------------------------------------------------------------------------------------------ parts


def _bytes(message: Message) -> bytes:
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def _parsed(kind: type[_M], data: bytes) -> _M:
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise LedgerError(
            f"{len(data)} bytes do not read as {kind.DESCRIPTOR.name} ({error}): they were changed "
            "or are of another kind; ibinn audit verify tells which entries are whole"
        ) from error
    return message


def _fill_digest(message: record.AnswerDigest, digest: records.AnswerDigest) -> None:
    message.record_id = digest.record_id
    message.received_time.FromDatetime(digest.received_time)
    fill_versions(message.versions, digest.versions)
    message.class_name = digest.class_name
    message.confidence = digest.confidence
    message.verdict = VERDICTS[digest.verdict]
    if digest.action is not None:
        message.action = ACTIONS[digest.action]
    message.sha256_bytes = digest.sha256_bytes
    message.sha256_pixels = digest.sha256_pixels
    if digest.p_value is not None:
        message.p_value = digest.p_value
    message.group_id = digest.group_id


def _digest(message: record.AnswerDigest) -> records.AnswerDigest:
    return records.AnswerDigest(
        record_id=message.record_id,
        received_time=message.received_time.ToDatetime(UTC),
        versions=_versions(message.versions),
        class_name=message.class_name,
        confidence=message.confidence,
        verdict=_known(VERDICTS, message.verdict, "verdict"),
        action=_named(ACTIONS, message.action),
        sha256_bytes=message.sha256_bytes,
        sha256_pixels=message.sha256_pixels,
        p_value=message.p_value if message.HasField("p_value") else None,
        group_id=message.group_id,
    )


def _versions(message: answer.Versions) -> types.Versions:
    return types.Versions(
        weights=message.weights,
        calibration=message.calibration,
        policy=message.policy,
        taxonomy=message.taxonomy,
        software=message.software,
    )


def _truth(message: record.Truth) -> records.Truth:
    match message.WhichOneof("truth"):
        case "out_of_scope":
            return records.OUT_OF_SCOPE
        case "unreadable":
            return records.UNREADABLE
        case _:
            return records.Truth.of_class(message.class_name)


def _fill_provenance(message: record.Provenance, provenance: records.Provenance) -> None:
    message.source = provenance.source
    if provenance.saw_answer is not None:
        message.saw_answer = provenance.saw_answer
    if provenance.reaction is not None:
        message.reaction = REACTIONS[provenance.reaction]
    if provenance.selection is not None:
        message.selection = SELECTIONS[provenance.selection]
    if provenance.sampling_probability is not None:
        message.sampling_probability = provenance.sampling_probability


def _provenance(message: record.Provenance) -> records.Provenance:
    chance = message.HasField("sampling_probability")
    return records.Provenance(
        source=message.source,
        saw_answer=message.saw_answer if message.HasField("saw_answer") else None,
        reaction=_named(REACTIONS, message.reaction),
        selection=_named(SELECTIONS, message.selection),
        sampling_probability=message.sampling_probability if chance else None,
    )


def _time(message: Any, field: str) -> datetime | None:
    """A time of a message, or None.

    Raises:
        RequestError: It is outside the years that a date can have.
    """
    if not message.HasField(field):
        return None
    try:
        found: datetime = getattr(message, field).ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise RequestError(
            f"{field} is not a time between the years 1 and 9999 ({error}); correct it, or leave "
            "it out",
            field=field,
        ) from error
    return found
